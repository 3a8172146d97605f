"""What a denoiser is given and what it gives, and the random choices that denoisers share.

All of them are pure functions of a document's key (seed, pass, document) and of places in its text. So a document that
is cut over several rows is spoilt as a whole, and each row has its own part of that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from weft.recipes.pretraining.datasets.counter_rng import uniform

# A document is spoilt in stretches of so many tokens, the last one shorter, so that a row of a book costs no more than
# one of a letter.
STRETCH = 2048

# Streams of random numbers.
NOISE, REST, LENGTH, PLACE, ORDER, SPLIT, CHOICE = range(7)


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of a document's text, without what stands around the text.

    Attributes:
        tokens: ids [tokens], int64.
        first: place of the first one in the text.
        length: tokens of the whole text.
        key: of the document in this pass over it, from `make_key`.
        sentences: which tokens begin a sentence, bool [tokens]; None: not known.
    """

    tokens: np.ndarray
    first: int
    length: int
    key: np.uint64
    sentences: np.ndarray | None = None

    @property
    def end(self) -> int:
        """The place behind the last token."""
        return self.first + len(self.tokens)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Place and tokens of each stretch of the text that has a part in the piece."""
        for start in range(self.first // STRETCH * STRETCH, self.end, STRETCH):
            yield start, min(STRETCH, self.length - start)


@dataclass(frozen=True)
class TextPair:
    """What an encoder reads and what a decoder is to write, ids [tokens] int64, without start and end tokens.

    Attributes:
        mode: number of the mode that made it, in the order of the mixture's modes; 0 where there are none.
    """

    source: np.ndarray
    target: np.ndarray
    mode: int = 0


class Denoiser(Protocol):
    """Makes a pair of a piece. The source never has more tokens than the piece, the target at most one more, a mode
    token not counted."""

    def __call__(self, piece: Piece) -> TextPair:
        """The pair. An empty target: the piece has nothing to predict."""

    def shares(self) -> tuple[float, float]:
        """Tokens of sources and of targets for each token of a long text, about."""


def choose(key: np.uint64, number: int, chosen: int, stream: int) -> np.ndarray:
    """`chosen` of `number` things, as indices in random order; every order is as likely as every other."""
    return np.argsort(uniform(key, np.arange(number), stream), kind="stable")[:chosen]


def compose(key: np.uint64, total: int, parts: int, stream: int) -> np.ndarray:
    """Lengths [parts] of 1 and more that sum to `total`; every such sequence is as likely as every other."""
    cuts = np.sort(choose(key, total - 1, parts - 1, stream)) + 1
    return np.diff(np.concatenate(([0], cuts, [total])))
