"""Text infilling and sentence permutation (BART, https://huggingface.co/papers/1910.13461): the target is the text.

Of n tokens ceil(n * rate) are masked, in spans whose lengths come from a Poisson distribution until they make up that
number; the last one is cut down to it. One mask token stands for a span, whatever its length, and a span of no token is
a mask between two tokens. Spans and remaining tokens come in a random order, each as likely as the others. The
sentences of the result are put into a random order too.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.recipes.common.options import Options, option
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.denoising.pieces import LENGTH, ORDER, PLACE, Piece, TextPair, choose

RATE, MEAN_LENGTH = 0.3, 3.0


@dataclass
class InfillArguments(Options):
    """What infilling masks, and whether sentences change places."""

    infill_rate: float = option(RATE, "infill: share of the tokens that are masked", above=0, most=1)
    mean_infill_length: float = option(MEAN_LENGTH, "infill: tokens of a span on average (Poisson)", least=1, most=500)
    permute_sentences: bool = option(True, "infill: also put the sentences of a document into a random order")


@dataclass(frozen=True)
class InfillDenoiser:
    """Text infilling, with or without sentence permutation.

    Attributes:
        mask: id of the mask token.
    """

    mask: int
    infill_rate: float = RATE
    mean_length: float = MEAN_LENGTH
    permute: bool = True

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, infill_rate: float = RATE, mean_length: float = MEAN_LENGTH, permute: bool = True
    ) -> Self:
        """With the mask token of a tokenizer; raises ValueError where it has none."""
        if tokenizer.mask_token_id is None:
            raise ValueError("the tokenizer has no mask token, which infilling needs: set its mask_token.")
        return cls(tokenizer.mask_token_id, infill_rate, mean_length, permute)

    def __call__(self, piece: Piece) -> TextPair:
        """See `Denoiser`; raises ValueError where sentences are to be permuted and not known."""
        places, is_mask = self.slots(piece)
        source = np.where(is_mask, self.mask, piece.tokens[places])
        if self.permute:
            source = source[self._sentence_order(piece)[places].argsort(kind="stable")]
        return TextPair(source, piece.tokens)

    def slots(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """What the source is made of, before sentences change places: for each of its tokens where in the piece it
        stands, and whether it is a mask, both [tokens of the source]."""
        columns: list[tuple[np.ndarray, ...]] = []
        for start, length in piece.stretches():
            sizes, is_mask = self._draw_slots(make_key(int(piece.key), start), length)
            # a mask between two tokens belongs to the one behind it, at the end of a stretch to the one before it
            begins = np.minimum(np.cumsum(sizes) - sizes, length - 1) + start
            inside = (begins < piece.end) & (begins + np.maximum(sizes, 1) > piece.first)
            columns.append((begins[inside], is_mask[inside], sizes[inside] == 0))
        begins, is_mask, is_inserted = (np.concatenate(column) for column in zip(*columns))
        surplus = len(begins) - len(piece.tokens)
        if surplus > 0:  # a source is never longer than its text
            left = np.delete(np.arange(len(begins)), np.flatnonzero(is_inserted)[-surplus:])
            begins, is_mask = begins[left], is_mask[left]
        return np.maximum(begins - piece.first, 0), is_mask

    def shares(self) -> tuple[float, float]:
        """See `Denoiser`."""
        return 1 - self.infill_rate + self.infill_rate / self.mean_length, 1.0

    def _draw_slots(self, key: np.uint64, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that remain of a stretch and its masks in their order: how many tokens each of them stands for,
        and whether it is a mask."""
        noise = min(length, math.ceil(self.infill_rate * length - 1e-9))
        spans = self._draw_lengths(key, noise)
        number = length - noise + len(spans)
        sizes, is_mask = np.ones(number, dtype=np.int64), np.zeros(number, dtype=bool)
        places = choose(key, number, len(spans), PLACE)
        sizes[places], is_mask[places] = spans, True
        return sizes, is_mask

    def _draw_lengths(self, key: np.uint64, noise: int) -> np.ndarray:
        """Lengths of spans with that sum, in the order in which they were drawn."""
        number = 8
        while True:
            lengths = np.searchsorted(self._shares_below, uniform(key, np.arange(number), LENGTH), side="right")
            sums = np.cumsum(lengths)
            if sums[-1] >= noise:
                break
            number *= 2
        last = int(np.searchsorted(sums, noise))
        lengths[last] -= sums[last] - noise
        return lengths[: last + 1]

    @cached_property
    def _shares_below(self) -> np.ndarray:
        """How often a length is 0, at most 1, at most 2 ..., to where it hardly ever is more."""
        longest = int(self.mean_length + 12 * math.sqrt(self.mean_length) + 20)
        shares = [math.exp(-self.mean_length)]
        for length in range(1, longest):
            shares.append(shares[-1] * self.mean_length / length)
        return np.cumsum(shares)

    @staticmethod
    def _sentence_order(piece: Piece) -> np.ndarray:
        """For each token of a piece a random number of its sentence, by which sentences are sorted."""
        if piece.sentences is None:
            raise ValueError(
                "permuting sentences needs to know where they begin: give that with each text, or permute none."
            )
        begins = piece.sentences.copy()
        begins[:1] = True
        drawn = uniform(piece.key, piece.first + np.flatnonzero(begins), ORDER)
        return drawn[np.cumsum(begins) - 1]
