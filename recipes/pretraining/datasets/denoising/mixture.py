"""A mixture of denoisers (UL2, https://huggingface.co/papers/2205.05131), each named by a token before the source.

R is regular span corruption, S goes on with a prefix (sequential), X is extreme span corruption: long spans, many of
them, or both. The stretches of a document are told apart, so that a book has all modes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.pretraining.datasets.counter_rng import uniform
from weft.recipes.pretraining.datasets.denoising.pieces import CHOICE, STRETCH, Denoiser, Piece, TextPair
from weft.recipes.pretraining.datasets.denoising.prefix import PrefixDenoiser
from weft.recipes.pretraining.datasets.denoising.spans import SpanDenoiser
from weft.tokenizer.denoising_tokens import MODES, SENTINELS, ids_of

SEQUENTIAL, INFINITE = "S", float("inf")
# Those of the paper: mean span length and noise rate, all as often as each other.
UL2 = ("R:3:0.15", "R:8:0.15", "S", "X:3:0.5", "X:8:0.5", "X:64:0.15", "X:64:0.5")
FORM = (
    "MODE:MEAN_SPAN_LENGTH:NOISE_RATE with MODE R or X, or S, each with =WEIGHT behind it where it has another than 1"
)


@dataclass
class MixtureArguments(Options):
    """Which denoisers a mixture has."""

    denoisers: list[str] = option(list(UL2), f"mixture: {FORM}")

    def check(self) -> None:
        """Raises RecipeError where one cannot be read, or all weights are 0."""
        super().check()
        if not sum(parse_denoiser(text).weight for text in self.denoisers) > 0:
            raise RecipeError(f"denoisers is {' '.join(self.denoisers)!r}: give one with a weight above 0.")


@dataclass(frozen=True)
class DenoiserChoice:
    """One denoiser of a mixture: its mode, and for span corruption mean length and rate; how often it is taken."""

    mode: str
    weight: float
    mean_length: float | None = None
    noise_rate: float | None = None


def parse_denoiser(text: str) -> DenoiserChoice:
    """Read MODE:MEAN_SPAN_LENGTH:NOISE_RATE=WEIGHT; raises RecipeError where it cannot be."""
    name, _, weight = text.partition("=")
    mode, *numbers = name.split(":")
    try:
        read = [float(number) for number in numbers]
        weight = float(weight or 1)
        is_right = not read if mode == SEQUENTIAL else 1 <= read[0] < INFINITE and 0 < read[1] < 1 and len(read) == 2
        is_right = is_right and mode in MODES and 0 <= weight < INFINITE
    except (ValueError, IndexError):
        is_right = False
    if not is_right:
        raise RecipeError(f"denoisers has {text!r}: give {FORM}.")
    return DenoiserChoice(mode, weight, *read)


@dataclass(frozen=True)
class MixtureDenoiser:
    """A mixture.

    Attributes:
        denoisers: what it chooses from.
        mode_tokens: the id that the source of each of them begins with.
        modes: the mode of each of them, as its number in `MODES`.
        weights: how often each is taken, in relation to the others.
    """

    denoisers: tuple[Denoiser, ...]
    mode_tokens: tuple[int, ...]
    modes: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, denoisers: Sequence[str] = UL2, sentinels: int = SENTINELS) -> Self:
        """With the sentinels and mode tokens of a tokenizer.

        Raises:
            ValueError: the tokenizer lacks some.
            RecipeError: a denoiser cannot be read.
        """
        chosen = [parse_denoiser(text) for text in denoisers]
        made = tuple(
            PrefixDenoiser()
            if each.mode == SEQUENTIAL
            else SpanDenoiser.of(tokenizer, each.noise_rate, each.mean_length, sentinels)
            for each in chosen
        )
        tokens = tuple(ids_of(tokenizer, [MODES[each.mode] for each in chosen]))
        modes = tuple(list(MODES).index(each.mode) for each in chosen)
        return cls(made, tokens, modes, tuple(each.weight for each in chosen))

    def __call__(self, piece: Piece) -> TextPair:
        weights_below = np.cumsum(self.weights)
        drawn = uniform(piece.key, piece.first // STRETCH, CHOICE) * weights_below[-1]
        number = int(np.searchsorted(weights_below, drawn, side="right"))
        pair = self.denoisers[number](piece)
        return TextPair(np.append(self.mode_tokens[number], pair.source), pair.target, self.modes[number])

    def shares(self) -> tuple[float, float]:
        """See `Denoiser`."""
        shares = np.average([denoiser.shares() for denoiser in self.denoisers], axis=0, weights=self.weights)
        return float(shares[0]), float(shares[1])
