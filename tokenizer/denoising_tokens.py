"""The special tokens that text-to-text pretraining needs: sentinels, which stand for spans, and names of modes."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from weft.tokenizer.special_tokens import add_extra_tokens

SENTINELS = 100  # as many as T5 has
MODES = {"R": "<mode_R>", "S": "<mode_S>", "X": "<mode_X>"}


def sentinel_names(number: int) -> list[str]:
    """The names of so many sentinels, which are T5's, in the order in which they are used."""
    return [f"<extra_id_{index}>" for index in range(number)]


def give_tokens(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> list[str]:
    """Have a tokenizer know these special tokens, in place; ordinary tokens of such names become special ones.

    Returns:
        Those that it did not have: resize the model's embeddings to `number_of_ids`.
    """
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    missing = [name for name in names if name not in special]
    return add_extra_tokens(tokenizer, missing) if missing else []


def ids_of(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> list[int]:
    """The ids of special tokens.

    Raises:
        ValueError: the tokenizer has not got one of them; names it.
    """
    known = tokenizer.get_vocab()
    for name in names:
        if name not in known:
            raise ValueError(f"the tokenizer has no token {name}: add it with `give_tokens`, and rows to the model.")
    return [known[name] for name in names]
