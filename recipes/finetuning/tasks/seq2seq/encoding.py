"""Texts to token ids on both sides, and what was cut off of them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError

CHUNK = 1000  # texts that are tokenised at once


@dataclass
class PairCounts:
    """Counts of a split: its texts on each side, how many of them were cut, and the tokens of its targets."""

    sources: int = 0
    targets: int = 0
    cut_sources: int = 0
    cut_targets: int = 0
    target_tokens: int = 0
    longest_target: int = 0


def encode_sources(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, longest: int, counts: PairCounts
) -> list[list[int]]:
    """Each source as the tokenizer gives it; one that is too long loses its end, but not what stands around it."""
    encoded: list[list[int]] = []
    for begin in range(0, len(texts), CHUNK):
        encoded += tokenizer(list(texts[begin : begin + CHUNK]), verbose=False).input_ids
    cutting = copy.deepcopy(tokenizer)  # a tokenizer that was told to cut remembers it when it is saved
    for number, ids in enumerate(encoded):
        if len(ids) > longest:
            counts.cut_sources += 1
            encoded[number] = cutting(texts[number], truncation=True, max_length=longest).input_ids
    counts.sources = len(texts)
    return encoded


def encode_targets(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, start: int, longest: int, counts: PairCounts
) -> list[list[int]]:
    """Each target as the decoder is to say it: to its end token, and without the start token, which it is given.

    A target that is too long loses its end token with its end, so that stopping there is not learnt.

    Raises:
        RecipeError: the tokenizer has no end token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise RecipeError("the tokenizer has no end token, by which a decoder would know when to stop: set eos_token.")
    encoded: list[list[int]] = []
    for begin in range(0, len(texts), CHUNK):
        for ids in tokenizer(text_target=list(texts[begin : begin + CHUNK]), verbose=False).input_ids:
            ids = ids[1:] if ids[:1] == [start] else ids
            ids = ids if ids[-1:] == [end] else [*ids, end]
            counts.cut_targets += len(ids) > longest
            encoded.append(ids[:longest])
    counts.targets = len(texts)
    counts.target_tokens = sum(map(len, encoded))
    counts.longest_target = max(map(len, encoded))
    return encoded
