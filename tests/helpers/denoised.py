"""Pieces of texts for denoisers, and what a text looked like before."""

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from weft.recipes.pretraining.datasets.counter_rng import make_key
from weft.recipes.pretraining.datasets.denoising.pieces import Piece, TextPair

SENTINELS = np.arange(10_000, 10_100)
MASK = 9_999


def piece_of(
    length: int, number: int = 0, first: int = 0, end: int | None = None, sentences: Sequence[bool] | None = None
) -> Piece:
    """The tokens [first, end) of a text of so many different ones, which are their places."""
    flags = None if sentences is None else np.array(sentences[first:end], dtype=bool)
    return Piece(np.arange(length)[first:end], first, length, make_key(7, number), flags)


def cuts_of(length: int, draw: random.Random, number: int) -> list[tuple[int, int]]:
    """A text of so many tokens in up to so many pieces and one."""
    places = sorted({0, length, *(draw.randrange(length) for _ in range(number))})
    return list(pairwise(places))


def restored(pair: TextPair, sentinels: Sequence[int] = SENTINELS) -> list[int]:
    """The text, from a source with sentinels and a target that says what each stands for."""
    marks, spans = {*np.asarray(sentinels).tolist()}, {}
    current: list[int] = []
    for token in pair.target.tolist():
        if token in marks:
            assert token not in spans
            current = spans[token] = []
        else:
            current.append(token)
    result: list[int] = []
    for token in pair.source.tolist():
        result += spans.pop(token) if token in marks else [token]
    assert not spans
    return result
