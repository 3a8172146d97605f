"""Texts with masks, or with masks put behind them, written out by a masked language model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.positions import position_limit
from weft.recipes.generation.diffusion.custom_generate.generate import never_written, unmask
from weft.tokenizer.encode_as_text import encode_as_text
from weft.tokenizer.special_tokens import tokens_around


def has_gaps(tokenizer: PreTrainedTokenizerBase, prompt: str) -> bool:
    """Whether a prompt spells the mask token out, so that its gaps are filled and nothing is put behind it."""
    return tokenizer.mask_token in prompt


def canvas_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, max_new_tokens: int) -> list[int]:
    """A text with masks as training saw documents, with start and end token where the tokenizer has them.

    In a prompt with gaps special tokens are read as such, as in the pipeline `fill-mask`. In any other they are text,
    and masks stand behind the prompt, before the end token: the text is to end there.
    """
    if has_gaps(tokenizer, prompt):
        return tokenizer(prompt).input_ids
    before, after = tokens_around(tokenizer)
    (encoding,) = encode_as_text(tokenizer, [prompt])
    return [*before, *encoding.ids, *[tokenizer.mask_token_id] * max_new_tokens, *after]


def check_canvases(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int
) -> None:
    """Refuse texts that begin with a mask which nothing predicts, or are longer than the model has positions, before
    anything is computed; raises RecipeError."""
    limit, rows = position_limit(model), [canvas_ids(tokenizer, prompt, max_new_tokens) for prompt in prompts]
    if getattr(model.config, "masked_next_token", False) and any(row[0] == tokenizer.mask_token_id for row in rows):
        raise RecipeError(
            "this model predicts a mask from the place before it, and its tokenizer puts nothing before a text: let "
            "every prompt begin with text."
        )
    lengths = [*map(len, rows)]
    if limit is None or max(lengths) <= limit:
        return
    number = lengths.index(max(lengths))
    which = "the text" if len(prompts) == 1 else f"the text of prompt {number + 1}"
    less = "" if has_gaps(tokenizer, prompts[number]) else " or max_new_tokens"
    raise RecipeError(
        f"{which} has {max(lengths)} tokens, but the model has only {limit} positions (max_position_embeddings): give "
        f"a shorter prompt{less}."
    )


def write_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    watch: Callable[[torch.Tensor], None] | None = None,
    **options: Any,
) -> list[str]:
    """Fill in the gaps of prompts, or write behind them where they have none, all in one batch.

    Args:
        model: one with a head for masked tokens, in evaluation mode.
        tokenizer: a fast one with a mask token.
        watch: called with the token ids [prompts, tokens] after each step.
        options: of `unmask`.

    Returns:
        The whole texts, without special tokens.
    """
    rows = [canvas_ids(tokenizer, prompt, max_new_tokens) for prompt in prompts]
    longest = max(map(len, rows))
    pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    # on the right, so that positions count from 0 in models that ignore the mask too
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    never = never_written(tokenizer, model.config.vocab_size)
    written = unmask(model, ids, tokenizer.mask_token_id, mask, never=never, watch=watch, **options)
    return [tokenizer.decode(row[: len(own)], skip_special_tokens=True) for row, own in zip(written.tolist(), rows)]
