"""Rows to batches, for causal, masked and hybrid rows and for sentence pairs."""

from collections.abc import Sequence

import numpy as np
import torch

from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.datasets.packed import Row


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


def collate_causal(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Stack rows into a batch [rows, row_length]; labels are already aligned with the logits (`shift_labels`)."""
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    return {**batch, "shift_labels": batch["labels"]}
