"""Rows of text with masks, and the random numbers by which a generator's tokens are drawn for them.

A number belongs to (seed, pass, document, position), as a mask does. So a drawn token follows from that and from what
the generator predicts, and from no state that a resumed run or another number of processes would have to share.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

import weft
from weft.recipes.pretraining.datasets.collators import Batch, MaskedCollator, stack
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.masked import MaskedRows, MaskedValidationRows, Row
from weft.recipes.pretraining.datasets.masking import DRAWN_TOKEN, Masker
from weft.recipes.pretraining.datasets.packed import DocumentSpan

BITS = 24  # of a number that float32 holds as it is


class ReplacedTokenRows(MaskedRows):
    """Rows of `MaskedRows` (overlap 0) with what `with_draws` adds."""

    def __getitem__(self, index: int) -> Row:
        return with_draws(super().__getitem__(index), self.rows.spans(index), self.masker)


class ReplacedTokenValidationRows(MaskedValidationRows):
    """The same of held-out text."""

    def __getitem__(self, index: int) -> Row:
        return with_draws(super().__getitem__(index), self.rows.spans(index), self.masker)


def with_draws(row: Row, spans: Sequence[DocumentSpan], masker: Masker) -> Row:
    """A row with three arrays more, [row_length] each:

    original_ids    the text without masks
    is_text         whether a token is of the text, and neither special nor padding
    draws           a random number in [0, 1) for each token of the text, float32
    """
    original = np.where(row["targets"] == weft.IGNORE_INDEX, row["input_ids"], row["targets"])
    lengths = np.array([len(span.tokens) for span in spans], dtype=np.int64)
    keys = np.array([make_key(masker.seed, span.pass_number, span.document) for span in spans], dtype=np.uint64)
    positions = np.concatenate([np.empty(0, np.int64), *(span.first + np.arange(len(span.tokens)) for span in spans)])
    found = uniform(np.repeat(keys, lengths), positions, DRAWN_TOKEN)
    draws = np.pad(np.floor(found * 2**BITS) / 2**BITS, (0, len(original) - len(found)))
    is_text = ~np.isin(original, masker.vocabulary.special) & (np.arange(len(original)) < len(found))
    return {**row, "original_ids": original, "is_text": is_text, "draws": draws.astype(np.float32)}


class ReplacedTokenCollator(MaskedCollator):
    """Collates such rows: a batch as `MaskedCollator` makes it, with the `draws` [n] of its targets, and original_ids
    and is_text [rows, row_length]."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        batch = super().__call__(rows)
        more = stack(rows, ("original_ids", "is_text", "draws"))
        return {**batch, **more, "draws": more["draws"].flatten()[batch["predict_from"]]}
