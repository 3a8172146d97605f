"""What a model cannot learn or find, because it is cut off or no token ends where it does: a warning above a share."""

MOST = 0.05  # of all: more is worth another setting
TOKENIZER_HELPS = (
    "give --tokenizer_type wordpiece or char, or start from a model whose tokens end where words and signs do"
)


def warn_of(number: int, total: int, what: str, advice: str) -> list[tuple[str, str]]:
    """A line of the plan where too many are out of reach: how many of all, in words, and the field that helps."""
    if number <= MOST * total:
        return []
    return [("warning", f"{number / total:.1%} of {what}: {advice}")]
