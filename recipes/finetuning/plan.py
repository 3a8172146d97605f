"""How long a fine-tuning run is and how its batches are cut."""

import math
from dataclasses import dataclass

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments


@dataclass(frozen=True)
class FineTuningPlan:
    """One seed's training in numbers: a step takes `batch_size` x `accumulation` x `processes` items."""

    items: int
    batch_size: int
    accumulation: int
    processes: int
    max_steps: int

    @property
    def items_per_step(self) -> int:
        return self.batch_size * self.accumulation * self.processes

    @property
    def epochs(self) -> float:
        return self.max_steps * self.items_per_step / self.items

    def line(self) -> str:
        """The length in words."""
        return (
            f"{self.max_steps:,} steps of {self.items_per_step} = {self.processes} processes x {self.accumulation} "
            f"micro-batches x {self.batch_size}, {self.epochs:.2f} epochs"
        )


def make_plan(arguments: FineTuningArguments, items: int, processes: int) -> FineTuningPlan:
    """Derive the number of steps (raises RecipeError: there is nothing to learn from)."""
    if not items:
        raise RecipeError("no training example is left: look at what the plan says was dropped.")
    batch, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    steps = arguments.max_steps
    if steps is None:
        steps = math.ceil(arguments.num_train_epochs * items / (batch * accumulation * processes))
    return FineTuningPlan(items, batch, accumulation, processes, max(1, steps))
