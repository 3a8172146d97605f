"""Rows and batches of the masked and the hybrid objective."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.masking import Masker
from weft.recipes.common.packing import IGNORE_INDEX, Piece, TrainingRows, ValidationRows, positions_of
from weft.recipes.common.steps import Steps

Row = dict[str, Any]


@dataclass
class HybridArguments:
    """Which rows are causal, in the hybrid objective."""

    causal_share: float = field(default=0.5, metadata={"help": "hybrid: share of the rows that are causal"})
    causal_steps: float = field(
        default=0.0,
        metadata={"help": "hybrid: steps at the beginning in which all rows are; below 1: a share of all steps"},
    )

    def check(self) -> None:
        """Raises RecipeError for a share outside [0, 1] or a negative number of steps."""
        if not 0 <= self.causal_share <= 1:
            raise RecipeError(f"causal_share is {self.causal_share}: give a share between 0 and 1.")
        if not 0 <= self.causal_steps < math.inf:
            raise RecipeError(f"causal_steps is {self.causal_steps}: give a number of steps, or a share below 1.")


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


class MaskedCollator:
    """Rows to a batch whose head and loss are computed at the places of targets only.

    A batch holds input_ids, position_ids [rows, row_length]; `predict_from` [n], the places of targets, and their
    `labels` [n]; in the hybrid objective `causal_rows` [rows] and `loss_weights` [n]; for sentence pairs
    token_type_ids [rows, row_length], `pool_from` and `next_sentence_label` [pairs].
    """

    def __init__(self, hybrid: bool = False, target_share: float | None = None) -> None:
        """Args:
        target_share: where given, n is the same for all batches: this share of their tokens. Places beyond the
            targets have the label -100; of more targets than that, some are left out, evenly over the batch.
        """
        self.hybrid, self.target_share = hybrid, target_share

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        names = [name for name in ("input_ids", "position_ids", "token_type_ids") if name in rows[0]]
        batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in names}
        targets = np.stack([row["targets"] for row in rows])
        places = np.flatnonzero(targets != IGNORE_INDEX)
        labels = targets.reshape(-1)[places]
        weights = np.repeat([row["weight"] for row in rows], (targets != IGNORE_INDEX).sum(1)).astype(np.float32)
        if self.target_share is not None:
            room, found = round(self.target_share * targets.size), len(places)
            kept = np.arange(room) * found // room if found > room else np.arange(found)
            missing = room - len(kept)
            places = np.pad(places[kept], (0, missing))
            labels = np.pad(labels[kept], (0, missing), constant_values=IGNORE_INDEX)
            weights = np.pad(weights[kept], (0, missing))
        batch |= {"predict_from": torch.from_numpy(places), "labels": torch.from_numpy(labels)}
        if self.hybrid:
            batch["loss_weights"] = torch.from_numpy(weights)
            batch["causal_rows"] = torch.tensor([row["is_causal"] for row in rows])
        if "pool_from" in rows[0]:
            starts = np.concatenate([row["pool_from"] + i * targets.shape[1] for i, row in enumerate(rows)])
            batch["pool_from"] = torch.from_numpy(starts)
            batch["next_sentence_label"] = torch.from_numpy(np.concatenate([row["pair_labels"] for row in rows]))
        return batch
