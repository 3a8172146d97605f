"""Rows of text with masks, each of its tokens to be predicted from its own place or from the one before it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import weft
from weft.recipes.pretraining.datasets.masking import Masker
from weft.recipes.pretraining.datasets.packed import DocumentSpan, TrainingRows, ValidationRows, positions_of
from weft.recipes.training.batch_schedule import Steps

Row = dict[str, Any]


class MaskedRows:
    """Rows of text with masks. A row is a dict of arrays [row_length]:

    input_ids       the text with its masks
    position_ids    restart with each document
    targets         what is predicted from each place, -100 where nothing is
    and `is_causal` (bool) and `weight` (what each of its targets counts).
    """

    def __init__(self, rows: TrainingRows, masker: Masker, steps: Steps) -> None:
        """Args:
        rows: of tokens (overlap 0), or of pairs (overlap 1): a masked token is then predicted from the place before it.
        """
        self.rows, self.masker, self.steps = rows, masker, steps

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return masked_row(self.rows.spans(index), self.masker, self.rate_of(index), self.rows.overlap)

    def rate_of(self, index: int) -> float:
        """The share of the tokens of row `index` that is masked."""
        return self.masker.arguments.rate_at(self.steps.of(int(index)), self.steps.number)


def masked_row(spans: Sequence[DocumentSpan], masker: Masker, rate: float, overlap: int) -> Row:
    """A row in which masked tokens are predicted, each from its own place (overlap 0) or the one before (1)."""
    selected, masked = masker(spans, rate)
    tokens = np.concatenate([span.tokens for span in spans]).astype(np.int64)
    targets = np.where(selected, tokens, weft.IGNORE_INDEX)
    lengths = np.array([len(span.tokens) for span in spans])
    ends = np.cumsum(lengths)
    is_input, is_target = np.ones(len(tokens), dtype=bool), np.ones(len(tokens), dtype=bool)
    if overlap:
        is_input[ends - 1] = False
        is_target[ends - lengths] = False
    arrays = {"input_ids": masked[is_input], "position_ids": positions_of(spans, overlap)}
    return {**arrays, "targets": targets[is_target], "is_causal": False, "weight": 1.0}


class MaskedValidationRows:
    """The held-out text with the same masks in every run: they depend on the masker's seed and the rate only.

    The last row, and any beyond it, is filled up with padding.
    """

    def __init__(self, rows: ValidationRows, masker: Masker, rate: float) -> None:
        self.rows, self.masker, self.rate = rows, masker, rate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        spans = self.rows.spans(index)
        row = masked_row(spans, self.masker, self.rate, self.rows.overlap) if spans else empty_row()
        return pad_row(row, self.rows.row_length)


def empty_row() -> Row:
    """A row without any token."""
    nothing = np.empty(0, dtype=np.int64)
    arrays = {"input_ids": nothing, "position_ids": nothing, "targets": nothing}
    return {**arrays, "is_causal": False, "weight": 1.0}


def pad_row(row: Row, length: int) -> Row:
    """Fill a row up to `length` with a document of its own in which nothing is predicted."""
    missing = length - len(row["input_ids"])
    filling = {"position_ids": np.arange(missing), "targets": np.full(missing, weft.IGNORE_INDEX)}
    padded = {
        name: np.concatenate((value, filling.get(name, np.zeros(missing, dtype=np.int64))))
        for name, value in row.items()
        if isinstance(value, np.ndarray) and len(value) == len(row["input_ids"])
    }
    return {**row, **padded}
