"""Rows and batches of the masked and the hybrid objective."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.datasets.hybrid import HybridArguments
from weft.recipes.pretraining.datasets.masking import Masker
from weft.recipes.pretraining.datasets.packed import Piece, TrainingRows, ValidationRows, positions_of
from weft.recipes.training.batch_schedule import Steps

Row = dict[str, Any]


class MaskedRows(Dataset):
    """Rows of text with masks. A row is a dict of arrays [row_length]:

    input_ids       the text with its masks
    position_ids    restart with each document
    targets         what is predicted from each place, -100 where nothing is
    and `is_causal` (bool) and `weight` (what each of its targets counts).
    """

    def __init__(self, rows: TrainingRows, masker: Masker, steps: Steps, hybrid: HybridArguments | None) -> None:
        """Args:
        rows: of tokens (overlap 0), or, for the hybrid objective, of pairs (overlap 1): a masked token is then
            predicted from the place before it, as in the causal rows.
        """
        self.rows, self.masker, self.steps, self.hybrid = rows, masker, steps, hybrid

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        index = int(index)
        pieces = self.rows.pieces(index)
        if self.is_causal(index):
            return causal_row(pieces)
        rate = self.masker.arguments.rate_at(self.steps.of(index), self.steps.number)
        row = masked_row(pieces, self.masker, rate, self.rows.overlap)
        if self.hybrid is not None:
            row["weight"] = 1 / rate  # a row counts the same, whatever the share of its tokens that is predicted
        return row

    def is_causal(self, index: int) -> bool:
        """Whether row `index` of the run is causal: spread evenly over the rows, on any number of processes."""
        if self.hybrid is None:
            return False
        until = self.hybrid.causal_steps
        until = round(until * self.steps.number) if until < 1 else int(until)
        if self.steps.of(index) < until:
            return True
        share = self.hybrid.causal_share
        return int((index + 1) * share) > int(index * share)


def causal_row(pieces: Sequence[Piece]) -> Row:
    """A row of pairs in which every token is predicted from those before it."""
    return {
        "input_ids": np.concatenate([piece.tokens[:-1] for piece in pieces]).astype(np.int64),
        "position_ids": positions_of(pieces, overlap=1),
        "targets": np.concatenate([piece.tokens[1:] for piece in pieces]).astype(np.int64),
        "is_causal": True,
        "weight": 1.0,
    }


def masked_row(pieces: Sequence[Piece], masker: Masker, rate: float, overlap: int) -> Row:
    """A row in which masked tokens are predicted, each from its own place (overlap 0) or the one before (1)."""
    selected, masked = masker(pieces, rate)
    tokens = np.concatenate([piece.tokens for piece in pieces]).astype(np.int64)
    targets = np.where(selected, tokens, IGNORE_INDEX)
    lengths = np.array([len(piece.tokens) for piece in pieces])
    ends = np.cumsum(lengths)
    is_input, is_target = np.ones(len(tokens), dtype=bool), np.ones(len(tokens), dtype=bool)
    if overlap:
        is_input[ends - 1] = False
        is_target[ends - lengths] = False
    return {
        "input_ids": masked[is_input],
        "position_ids": positions_of(pieces, overlap),
        "targets": targets[is_target],
        "is_causal": False,
        "weight": 1.0,
    }


class MaskedValidationRows(Dataset):
    """The held-out text with the same masks in every run: they depend on the masker's seed and the rate only.

    The last row, and any beyond it, is filled up with padding.
    """

    def __init__(self, rows: ValidationRows, masker: Masker, rate: float) -> None:
        self.rows, self.masker, self.rate = rows, masker, rate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        pieces = self.rows.pieces(index)
        row = empty_row()
        if pieces:
            row = masked_row(pieces, self.masker, self.rate, self.rows.overlap)
        return pad_row(row, self.rows.row_length)


def empty_row() -> Row:
    """A row without any token."""
    nothing = np.empty(0, dtype=np.int64)
    arrays = {"input_ids": nothing, "position_ids": nothing, "targets": nothing}
    return {**arrays, "is_causal": False, "weight": 1.0}


def pad_row(row: Row, length: int) -> Row:
    """Fill a row up to `length` with a document of its own in which nothing is predicted."""
    missing = length - len(row["input_ids"])
    filling = {"position_ids": np.arange(missing), "targets": np.full(missing, IGNORE_INDEX)}
    padded = {
        name: np.concatenate((value, filling.get(name, np.zeros(missing, dtype=np.int64))))
        for name, value in row.items()
        if isinstance(value, np.ndarray) and len(value) == len(row["input_ids"])
    }
    return {**row, **padded}
