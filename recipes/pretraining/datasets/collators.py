"""Collate causal and masked rows to batches; those of other objectives build on these."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import weft

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch

Batch = dict[str, "torch.Tensor"]


def collate_causal(rows: Sequence[dict[str, np.ndarray]]) -> Batch:
    """Stack rows into a batch [rows, row_length]; labels are already aligned with the logits (`shift_labels`)."""
    batch = stack(rows, rows[0])
    return {**batch, "shift_labels": batch["labels"]}


class MaskedCollator:
    """Collates rows to a batch whose head and loss are computed at the places of targets only.

    A batch holds input_ids and position_ids [rows, row_length], `predict_from` [n], the places of targets in the
    flattened batch, and their `labels` [n].
    """

    def __init__(self, target_share: float | None = None) -> None:
        """Args:
        target_share: makes n the same for all batches, this share of their tokens. Places beyond the targets have the
            label -100. Of too many targets some are left out, evenly over the batch.
        """
        self.target_share = target_share

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        import torch

        targets = np.stack([row["targets"] for row in rows])
        places = np.flatnonzero(targets != weft.IGNORE_INDEX)
        missing = 0
        if self.target_share is not None:
            room, found = round(self.target_share * targets.size), len(places)
            places = places[np.arange(room) * found // room] if found > room else places
            missing = room - len(places)
        labels = np.pad(targets.reshape(-1)[places], (0, missing), constant_values=weft.IGNORE_INDEX)
        places = np.pad(places, (0, missing))
        batch = stack(rows, ("input_ids", "position_ids"))
        return {**batch, "predict_from": torch.from_numpy(places), "labels": torch.from_numpy(labels)}


def stack(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Batch:
    """Stack these arrays of rows, as tensors [rows, ...]."""
    import torch

    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in names}
