"""Numbers in sentences."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, as "1 example" and "2,000 examples"; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
