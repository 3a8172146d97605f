"""The parts of a loss that has several, added up between two logs."""

from typing import Any

import torch

from weft.losses import IGNORE_INDEX


class LossParts:
    """Nats and targets of each part of the loss, summed on the device until they are taken.

    A hybrid batch has the parts causal and masked, one of sentence pairs masked and next_sentence.
    """

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def add(self, batch: dict[str, torch.Tensor], outputs: Any) -> None:
        """Add what a forward pass gave; batches whose loss has one part add nothing."""
        if "causal_rows" in batch:
            row_length = batch["input_ids"].shape[1]
            is_causal = batch["causal_rows"][batch["predict_from"] // row_length]
            self._add("causal", outputs["target_nats"], (batch["labels"] != IGNORE_INDEX) & is_causal)
            self._add("masked", outputs["target_nats"], (batch["labels"] != IGNORE_INDEX) & ~is_causal)
        elif "next_sentence_label" in batch:
            self._add("masked", outputs["target_nats"], batch["labels"] != IGNORE_INDEX)
            self._add("next_sentence", outputs["next_sentence_nats"], batch["next_sentence_label"] != IGNORE_INDEX)

    def _add(self, name: str, nats: torch.Tensor, is_target: torch.Tensor) -> None:
        found = torch.stack(((nats * is_target).sum().float(), is_target.sum().float()))
        self.sums[name] = self.sums[name] + found if name in self.sums else found

    def take(self, accelerator: Any) -> dict[str, float]:
        """Nats per target of each part since the last call, over all processes, as loss_causal and so on."""
        if not self.sums:
            return {}
        names = sorted(self.sums)  # the same in all processes, for every batch adds all parts
        sums = torch.stack([self.sums[name] for name in names])
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, "sum")
        self.sums = {}
        return {f"loss_{name}": nats / count for name, (nats, count) in zip(names, sums.tolist()) if count}
