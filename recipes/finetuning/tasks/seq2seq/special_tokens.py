"""The ids of special tokens in the config of a model that exists, or whose shape is taken, by its tokenizer."""

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError

_NAMES = ("pad_token_id", "eos_token_id", "bos_token_id")


def special_ids(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Config fields: the tokenizer's end token, and the token that the decoder begins with, which is the one that has
    the same part in the tokenizer as in the config (T5 begins with padding, BART with the end token).

    Raises:
        RecipeError: nothing says what the decoder begins with.
    """
    start = getattr(config, "decoder_start_token_id", None)
    parts = [name for name in _NAMES if start is not None and getattr(config, name, None) == start]
    found = [getattr(tokenizer, part) for part in parts] if parts else [start, tokenizer.bos_token_id]
    start = next((token for token in found if token is not None), start)
    if start is None:
        raise RecipeError(
            "nothing says which token the decoder begins with: set decoder_start_token_id in the model's config."
        )
    return {"eos_token_id": tokenizer.eos_token_id, "decoder_start_token_id": start}
