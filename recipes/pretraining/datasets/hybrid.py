"""Masked and causal rows in one batch: which rows are causal, and what their targets count."""

from collections.abc import Sequence
from dataclasses import dataclass

import weft
from weft.recipes.common.options import Options, option
from weft.recipes.pretraining.datasets.collators import Batch, MaskedCollator
from weft.recipes.pretraining.datasets.masked import MaskedRows, Row
from weft.recipes.pretraining.datasets.masking import Masker
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.training.batch_schedule import Steps, steps_of


@dataclass
class HybridArguments(Options):
    """Which rows are causal, in the hybrid objective."""

    causal_share: float = option(0.5, "hybrid: share of the rows that are causal", least=0, most=1)
    causal_steps: float = option(
        0.0, "hybrid: steps at the beginning in which all rows are; below 1: a share of all steps", least=0
    )


class HybridRows(MaskedRows):
    """Rows of pairs, some causal and the others masked; each is a dict as in `MaskedRows`."""

    def __init__(self, rows: TrainingRows, masker: Masker, steps: Steps, hybrid: HybridArguments) -> None:
        super().__init__(rows, masker, steps)
        self.hybrid = hybrid

    def __getitem__(self, index: int) -> Row:
        if not self.is_causal(index):
            # a row counts the same, whatever the share of its tokens that is predicted
            return {**super().__getitem__(index), "weight": 1 / self.rate_of(index)}
        row = self.rows[index]
        row["targets"] = row.pop("labels")
        return {**row, "is_causal": True, "weight": 1.0}

    def is_causal(self, index: int) -> bool:
        """Whether row `index` of the run is causal: spread evenly over the rows, on any number of processes."""
        if self.steps.of(int(index)) < steps_of(self.hybrid.causal_steps, self.steps.number):
            return True
        share = self.hybrid.causal_share
        return int((index + 1) * share) > int(index * share)


class HybridCollator(MaskedCollator):
    """Collates such rows: the batch also holds `causal_rows` [rows] and `loss_weights` [n]."""

    def __call__(self, rows: Sequence[Row]) -> Batch:
        import torch  # which the command line, that knows these fields, does not wait for

        batch = super().__call__(rows)
        weights = torch.tensor([row["weight"] for row in rows], dtype=torch.float32)
        of_targets = weights[batch["predict_from"] // batch["input_ids"].shape[1]]
        batch["loss_weights"] = of_targets.where(batch["labels"] != weft.IGNORE_INDEX, 0)
        return {**batch, "causal_rows": torch.tensor([row["is_causal"] for row in rows])}
