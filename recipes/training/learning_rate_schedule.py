"""The learning-rate schedule of every training: linear, cosine, constant or warmup-stable-decay, after a warmup."""

from typing import Any, Protocol

from weft.recipes.common.errors import RecipeError
from weft.recipes.training.batch_schedule import steps_of


class ScheduleArguments(Protocol):
    """The fields that every schedule has; pretraining adds min_lr_ratio, decay_steps and decay_type."""

    learning_rate: float
    lr_scheduler_type: str
    warmup_steps: float


def schedule_fields(arguments: ScheduleArguments, max_steps: int) -> dict[str, Any]:
    """The schedule as fields of TrainingArguments; it counts optimizer steps, whatever the number of processes.

    Raises:
        RecipeError: the warmup is longer than the run.
    """
    warmup = steps_of(arguments.warmup_steps, max_steps)
    if warmup > max_steps:
        raise RecipeError(f"warmup_steps={warmup} is longer than the whole run of {max_steps} steps: give fewer.")
    name = {"constant": "constant_with_warmup"}.get(arguments.lr_scheduler_type, arguments.lr_scheduler_type)
    fields = {"warmup_steps": warmup, "learning_rate": arguments.learning_rate, "lr_scheduler_type": name}
    lowest = getattr(arguments, "min_lr_ratio", None)
    if name == "cosine" and lowest is not None:
        fields |= {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": lowest}}
    if name == "warmup_stable_decay":
        decay = min(steps_of(arguments.decay_steps, max_steps), max_steps - warmup)
        options = {"num_decay_steps": decay, "decay_type": arguments.decay_type, "min_lr_ratio": lowest}
        fields["lr_scheduler_kwargs"] = options
    return fields
