"""Span corruption (T5, https://huggingface.co/papers/1910.10683): spans of a text are replaced by sentinels in the
source, and the target has each sentinel with what it stands for.

    source  The <extra_id_0> walks in <extra_id_1> park
    target  <extra_id_0> cute dog <extra_id_1> the

Of n tokens round(n * rate) are noise, in round(noise / mean length) spans. The lengths of the spans, and those of what
stands between them, are any sequence of so many numbers with that sum, each as likely as the others. Text comes first
and noise last, as in T5's own code, so a text ends with a span.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Self

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.recipes.common.options import Options, option
from weft.recipes.pretraining.datasets.counter_rng import make_key
from weft.recipes.pretraining.datasets.denoising.pieces import NOISE, REST, STRETCH, Piece, TextPair, compose
from weft.tokenizer.denoising_tokens import SENTINELS, ids_of, sentinel_names

RATE, MEAN_LENGTH = 0.15, 3.0


@dataclass
class SentinelArguments(Options):
    """How many spans of a text can be told apart."""

    sentinels: int = option(
        SENTINELS,
        "span, mixture: sentinel tokens; further spans of a piece of text stay in it",
        least=1,
        rare=True,
    )


@dataclass
class SpanArguments(Options):
    """What span corruption takes out of a text."""

    noise_rate: float = option(RATE, "span: share of the tokens that are taken out", above=0, below=1)
    mean_span_length: float = option(MEAN_LENGTH, "span: tokens of a span on average", least=1)


@dataclass(frozen=True)
class SpanDenoiser:
    """Span corruption.

    Attributes:
        sentinels: ids in the order in which they are used [n]; spans of a piece beyond the last of them stay text.
    """

    sentinels: np.ndarray
    noise_rate: float = RATE
    mean_length: float = MEAN_LENGTH

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        noise_rate: float = RATE,
        mean_length: float = MEAN_LENGTH,
        sentinels: int = SENTINELS,
    ) -> Self:
        """With the sentinels of a tokenizer; raises ValueError where it has too few."""
        return cls(np.array(ids_of(tokenizer, sentinel_names(sentinels))), noise_rate, mean_length)

    def __call__(self, piece: Piece) -> TextPair:
        is_noise = self.mask(piece)
        begins = is_noise & ~np.concatenate(([False], is_noise[:-1]))
        span = np.cumsum(begins) - 1
        is_noise &= span < len(self.sentinels)
        begins &= is_noise
        sentinels = self.sentinels[span[begins]]
        marked = piece.tokens.copy()
        marked[begins] = sentinels
        target = np.insert(piece.tokens[is_noise], np.flatnonzero(begins[is_noise]), sentinels)
        return TextPair(marked[~is_noise | begins], target)

    def mask(self, piece: Piece) -> np.ndarray:
        """Which tokens of a piece are noise, bool [tokens]."""
        parts = []
        for start, length in piece.stretches():
            whole = noise_mask(make_key(int(piece.key), start), length, self.noise_rate, self.mean_length)
            parts.append(whole[max(0, piece.first - start) : piece.end - start])
        return np.concatenate(parts)

    def shares(self) -> tuple[float, float]:
        """See `Denoiser`."""
        sentinels = min(self.noise_rate / self.mean_length, 1 - self.noise_rate)  # text stands before each span
        return 1 - self.noise_rate + sentinels, self.noise_rate + sentinels


def count_noise(length: int, noise_rate: float, mean_length: float) -> tuple[int, int]:
    """Tokens that are noise, and their spans, of a stretch of so many tokens: all but one at most, and none of one."""
    noise = min(max(round(length * noise_rate), 1), length - 1)
    return noise, min(max(round(noise / mean_length), 1), noise, length - noise)


def noise_mask(key: np.uint64, length: int, noise_rate: float, mean_length: float) -> np.ndarray:
    """Which tokens of a stretch are noise, bool [length]."""
    noise, spans = count_noise(length, noise_rate, mean_length)
    if not spans:
        return np.zeros(length, dtype=bool)
    lengths = (compose(key, length - noise, spans, REST), compose(key, noise, spans, NOISE))
    return np.repeat(np.tile([False, True], spans), np.stack(lengths, axis=1).ravel())


def count_spans(length: int, noise_rate: float, mean_length: float) -> int:
    """Spans of a whole text of so many tokens."""
    source, target = corrupted_lengths(length, noise_rate, mean_length)
    return (source + target - length) // 2  # a sentinel on each side


def corrupted_lengths(length: int, noise_rate: float = RATE, mean_length: float = MEAN_LENGTH) -> tuple[int, int]:
    """Tokens of the source and of the target that a whole text of so many tokens becomes, sentinels among them."""
    sizes = [STRETCH] * (length // STRETCH) + ([length % STRETCH] if length % STRETCH else [])
    counts = [count_noise(size, noise_rate, mean_length) for size in sizes]
    noise, spans = (sum(numbers) for numbers in zip(*counts))
    return length - noise + spans, noise + spans


def longest_text(limit: int, noise_rate: float = RATE, mean_length: float = MEAN_LENGTH) -> int:
    """The most tokens that a text may have for its source to have `limit` at most: T5 cuts its text so.

    Args:
        limit: without what stands around a source: 511 where an end token does and an encoder takes 512.
    """
    texts = range(1, int((limit + STRETCH) / (1 - noise_rate)) + 2)
    return bisect_right(texts, limit, key=lambda length: corrupted_lengths(length, noise_rate, mean_length)[0])
