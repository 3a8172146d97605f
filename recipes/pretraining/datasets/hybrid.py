"""Masked, causal and diffusion rows in one batch: which rows are of which kind, and what their targets count.

What a row counts is the sum of what its targets count. Of a causal row each place has a target, which counts 1. The
targets of a masked row count 1/rate, and those of a diffusion row n/k, where k of the n tokens of their document are
masked. The latter sum to the tokens of the row's text exactly, the former on average. So a row counts as many tokens as
it has, whatever its rates, and each kind has the say that its share of the rows is (but for end tokens, which only
causal rows have to predict, and at the end of a diffusion row as many tokens as it has documents).

The weights n/k are those of the bound on the nats of a text (`recipes/common/masked_diffusion.py`), and nothing is
done to them here. What the loss is divided by does not depend on the rates and masks of diffusion rows: it is the
tokens of their text, and what the rows beside them count. So these rows add an unbiased estimate of their bound, times
a factor that has nothing to do with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import weft
from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.options import Options, option
from weft.recipes.common.schedule import Schedule, read_schedule
from weft.recipes.pretraining.datasets.collators import Batch, MaskedCollator
from weft.recipes.pretraining.datasets.diffusion import DiffusionRows
from weft.recipes.pretraining.datasets.masked import MaskedRows, Row
from weft.recipes.pretraining.datasets.masking import Masker
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.training.batch_schedule import Steps

CAUSAL, MASKED, DIFFUSION = "causal", "masked", "diffusion"  # kinds of rows


@dataclass
class HybridArguments(Options):
    """Which rows are causal, and which are those of diffusion, in the hybrid objective."""

    causal_share: float | str = option(
        0.5,
        "hybrid: share of the rows that are causal; in stages as 1@0.25,0: all in a quarter of the steps, then none",
        least=0,
        most=1,
        staged=True,
    )
    causal_steps: float = option(
        0.0, "hybrid: steps at the beginning in which all rows are; below 1: a share of all steps", least=0
    )
    diffusion_share: float = option(
        0.0,
        "hybrid: share of the rows in which each document is masked at a rate of its own, as diffusion has it, so "
        "that the model writes by filling in masks too (the rest of the rows is masked)",
        least=0,
        most=1,
    )
    masked_next_token: bool | None = option(
        None,
        "hybrid: false for a run whose last rows are all masked: their tokens are predicted from their own places, as "
        "by any masked model, instead of from those before them, as causal rows predict",
        rare=True,
    )

    @property
    def share(self) -> Schedule:
        """The share of the rows that are causal, by the step."""
        return read_schedule(self.causal_share).after(1.0, self.causal_steps)

    @property
    def ends_masked(self) -> bool:
        """Whether the model becomes a masked one, of which nothing says that it was causal before."""
        return self.masked_next_token is False

    def check(self) -> None:
        """Raises RecipeError for a share outside its range, shares that sum to more than all rows, stages that leave
        no step, and for a head that would have to predict two things from one place."""
        super().check()
        with refusing("causal_steps and causal_share", ValueError, say=str):
            stages = self.share.stages
        # stages before the last may have no other row than causal ones
        mixed = [stage for stage in stages if (stage.first, stage.last) != (1, 1) or stage is stages[-1]]
        most = max(value for stage in mixed for value in (stage.first, stage.last))
        if most + self.diffusion_share > 1 + 1e-9:
            raise RecipeError(
                f"causal_share and diffusion_share are {most:g} and {self.diffusion_share:g}: give shares "
                "that sum to 1 at most (the rest of the rows is masked)."
            )
        if self.ends_masked and (self.share.final or self.diffusion_share):
            raise RecipeError(
                f"masked_next_token is false, but the last rows are not all masked ({self.share.final:.0%} causal, "
                f"{self.diffusion_share:.0%} diffusion): end causal_share with 0, as 1@0.25,0 does, or leave "
                "masked_next_token out."
            )

    def diffusion_share_of_others(self, causal_share: float) -> float:
        """The share of the diffusion rows among those that are not causal, where so many are."""
        others = 1 - causal_share
        return min(1.0, round(self.diffusion_share / others, 12)) if others > 0 else 0.0


class HybridRows(MaskedRows):
    """Rows, some causal, some with a rate for each document, and the others masked; each is a dict as in
    `MaskedRows`, with `is_diffusion` (bool), and of the second kind with a weight for each place [row_length]."""

    def __init__(
        self,
        rows: TrainingRows,
        masker: Masker,
        steps: Steps,
        hybrid: HybridArguments,
        diffusion: DiffusionRows | None = None,
    ) -> None:
        """Args:
        diffusion: makes the rows of that kind, if there are such; of the same rows of pairs.
        """
        super().__init__(rows, masker, steps)
        self.hybrid, self.diffusion = hybrid, diffusion

    def __getitem__(self, index: int) -> Row:
        kind = self.kind_of(index)
        if kind == MASKED:
            # a row counts the same, whatever the share of its tokens that is predicted
            return {**super().__getitem__(index), "weight": 1 / self.rate_of(index), "is_diffusion": False}
        if kind == DIFFUSION:
            row = self.diffusion.masked(index, self.before(int(index), self.causal_share_of(index))[DIFFUSION])
            return {**row, "weight": row["weights"], "is_causal": False, "is_diffusion": True}
        row = self.rows[index]
        row["targets"] = row.pop("labels")
        return {**row, "is_causal": True, "weight": 1.0, "is_diffusion": False}

    def kind_of(self, index: int) -> str:
        """The kind of row `index` of the run: each spread evenly over the rows, on any number of processes."""
        before, after = (self.before(int(index) + more, self.causal_share_of(index)) for more in (0, 1))
        return next((kind for kind, number in after.items() if number > before[kind]), MASKED)

    def causal_share_of(self, index: int) -> float:
        """The share of causal rows in the step of row `index`."""
        return self.hybrid.share.at(self.steps.of(int(index)), self.steps.number)

    def before(self, index: int, causal_share: float) -> dict[str, int]:
        """How many of the first `index` rows are causal and how many are those of diffusion, where so many are."""
        causal = int(index * causal_share)
        others = self.hybrid.diffusion_share_of_others(causal_share)
        return {CAUSAL: causal, DIFFUSION: int((index - causal) * others)}


class HybridCollator(MaskedCollator):
    """Collates such rows: the batch also holds `causal_rows` and `diffusion_rows` [rows] and `loss_weights` [n]."""

    def __call__(self, rows: Sequence[Row]) -> Batch:
        import torch  # which the command line, that knows these fields, does not wait for

        batch = super().__call__(rows)
        weights = [np.full(len(row["targets"]), row["weight"], dtype=np.float32) for row in rows]
        of_targets = torch.from_numpy(np.concatenate(weights))[batch["predict_from"]]
        batch["loss_weights"] = of_targets.where(batch["labels"] != weft.IGNORE_INDEX, 0)
        kinds = {f"{kind}_rows": torch.tensor([row[f"is_{kind}"] for row in rows]) for kind in (CAUSAL, DIFFUSION)}
        return {**batch, **kinds}
