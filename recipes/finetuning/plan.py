"""How long a fine-tuning run is and how its batches are cut."""

import math
from dataclasses import dataclass
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.training.batch_schedule import steps_of

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


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
    """Derive the number of steps.

    Raises:
        RecipeError: there is nothing to learn from.
    """
    if not items:
        raise RecipeError("no training example is left: look at what the plan says was dropped.")
    batch, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    steps = arguments.max_steps
    if steps is None:
        steps = math.ceil(arguments.num_train_epochs * items / (batch * accumulation * processes))
    return FineTuningPlan(items, batch, accumulation, processes, max(1, steps))


def schedule_fields(arguments: FineTuningArguments, max_steps: int) -> dict[str, Any]:
    """The schedule as fields of TrainingArguments."""
    warmup = steps_of(arguments.warmup_steps, max_steps)
    if warmup > max_steps:
        raise RecipeError(f"warmup_steps={warmup} is longer than the whole run of {max_steps} steps: give fewer.")
    return {
        "learning_rate": arguments.learning_rate,
        "lr_scheduler_type": _SCHEDULES[arguments.lr_scheduler_type],
        "warmup_steps": warmup,
        "weight_decay": arguments.weight_decay,
    }
