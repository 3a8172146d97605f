"""Prefix language modelling (T5, https://huggingface.co/papers/1910.10683): the source is the beginning of a text, the
target is how it goes on."""

from dataclasses import dataclass

from weft.recipes.pretraining.datasets.counter_rng import uniform
from weft.recipes.pretraining.datasets.denoising.pieces import SPLIT, Piece, TextPair


@dataclass(frozen=True)
class PrefixDenoiser:
    """Cuts each piece in two at a random place, every one as likely as the others; the source may be empty."""

    def __call__(self, piece: Piece) -> TextPair:
        cut = int(uniform(piece.key, piece.first, SPLIT) * len(piece.tokens))
        return TextPair(piece.tokens[:cut], piece.tokens[cut:])

    def shares(self) -> tuple[float, float]:
        """See `Denoiser`."""
        return 0.5, 0.5
