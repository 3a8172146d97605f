"""The ids of a vocabulary, which may have holes: the largest counts, not how many there are."""

from transformers import PreTrainedTokenizerBase


def number_of_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many rows an embedding needs for all ids of a tokenizer: the largest id and one."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _names(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List the special tokens that have a role: start, end, padding ..."""
    return [name for name in tokenizer.special_tokens_map.values() if isinstance(name, str)]


def check_rows(tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Refuse a tokenizer with ids that a model has no embedding for.

    Special tokens that have no role do not count: a text never becomes one of them.

    Args:
        rows: of the model's embedding.

    Raises:
        ValueError: names the largest id and the number of rows.
    """
    roles = {tokenizer.convert_tokens_to_ids(name) for name in _names(tokenizer)}
    idle = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special} - roles
    largest = max(set(tokenizer.get_vocab().values()) - idle, default=-1)
    if largest >= rows:
        raise ValueError(
            f"the tokenizer has ids up to {largest}, but the model only {rows} rows: they do not belong together, so "
            "give the tokenizer that the model was trained with."
        )
