"""Prompts are looked at before anything is computed: whether the model can read them, and continue them so far."""

import sys
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.positions import position_limit
from weft.recipes.common.wording import some_of
from weft.recipes.generation.generate_text import start_ids
from weft.tokenizer.encode_as_text import unread_pieces
from weft.tokenizer.vocabulary import check_rows


def check_prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int
) -> None:
    """`check_reading`, and raises RecipeError where prompt and continuation are longer than the model has positions."""
    check_reading(model, tokenizer, prompts)
    check_length(model, [len(start_ids(tokenizer, prompt)) for prompt in prompts], max_new_tokens)


def check_reading(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> None:
    """Say what of the prompts the model does not read, since the tokenizer has no token for it.

    Raises:
        RecipeError: the tokenizer has ids that the model has no row for.
    """
    with refusing(None, ValueError, say=str):
        check_rows(tokenizer, model.get_input_embeddings().weight.shape[0])
    if tokenizer.is_fast:
        _tell_unread(tokenizer, prompts)


def check_length(model: PreTrainedModel, lengths: Sequence[int], max_new_tokens: int) -> None:
    """Refuse prompts of so many tokens if not all of their continuations find positions; raises RecipeError."""
    limit, longest = position_limit(model), max(lengths)
    if limit is None or longest + max_new_tokens - 1 <= limit:  # the last token that is written is not read
        return
    has = f"the model has only {limit} positions (max_position_embeddings)"
    number = lengths.index(longest) + 1
    which = "the prompt has" if len(lengths) == 1 else f"prompt {number} has"
    if longest > limit:
        raise RecipeError(f"{which} {longest} tokens, but {has}: give a shorter prompt.")
    raise RecipeError(
        f"{which} {longest} tokens and max_new_tokens is {max_new_tokens}, but {has}: give max_new_tokens "
        f"{limit + 1 - longest} at most, or a shorter prompt."
    )


def _tell_unread(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> None:
    found = {number: pieces for number, prompt in enumerate(prompts, 1) if (pieces := unread_pieces(tokenizer, prompt))}
    if not found:
        return
    pieces = list(dict.fromkeys(piece for each in found.values() for piece in each))
    where = "the prompt" if len(prompts) == 1 else f"{len(found)} of {len(prompts)} prompts (first: {min(found)})"
    print(
        f"warning: the tokenizer has no token for {some_of([*map(repr, pieces)])} of {where}: "
        "the model does not read that",
        file=sys.stderr,
        flush=True,
    )
