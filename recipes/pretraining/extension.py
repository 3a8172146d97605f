"""A run made longer: `max_steps`, `tokens` or `num_train_epochs` raised on one that is begun or finished.

As long as its learning rate did not depend on its length, a run is the beginning of any longer one. So it goes on from
the last checkpoint of that part, with its hyperparameters and its warmup, and equals a run of the new length that was
started with these. What else depends on the length (a masking rate that changes, causal rows given as a share) follows
the new one from there on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import remove_folder, write_json
from weft.recipes.pretraining.arguments import DEFAULT_RAMP
from weft.recipes.training.batch_schedule import steps_of
from weft.recipes.training.checkpoint_folders import checkpoints_of, step_of
from weft.recipes.training.run_folder import (
    METRICS,
    SETTINGS,
    RunState,
    free_fields,
    note_plan,
    noted_plan,
    noted_settings,
    open_run,
)

LENGTH = ("tokens", "num_train_epochs", "max_steps")


@dataclass(frozen=True)
class Extension:
    """How a run becomes a longer one.

    Attributes:
        steps: of the run as it was.
        checkpoint: the last one that a longer run has too.
        kept: fields that stay what followed from the old length.
    """

    folder: Path
    steps: int
    checkpoint: Path
    kept: dict[str, Any]

    def check(self, steps: int) -> None:
        """Refuse a new length that is none (raises RecipeError)."""
        if steps <= self.steps:
            raise RecipeError(
                f"{self.folder} holds a run of {self.steps:,} steps, and this one would have {steps:,}: a run can only "
                "be made longer. Give more, the same length as before, or another --output_dir."
            )

    def line(self, steps: int) -> str:
        """What the run does, in words."""
        return (
            f"{self.folder} was a run of {self.steps:,} steps: it goes on from {self.checkpoint.name}, the last before "
            f"its learning rate depended on that length, as one of {steps:,} steps"
        )

    def apply(self, settings: dict[str, Any], plan: dict[str, Any]) -> None:
        """Make the folder that of the longer run. Interrupted, it is a begun run of one length or of the other."""
        (self.folder / METRICS).unlink(missing_ok=True)
        for checkpoint in checkpoints_of(self.folder):
            if step_of(checkpoint) > step_of(self.checkpoint):
                remove_folder(checkpoint)
        note_plan(self.folder, plan)
        write_json(self.folder / SETTINGS, settings)


def look_at(folder: Path, settings: dict[str, Any], defaults: dict[str, Any]) -> RunState:
    """See `open_run`; a run of another length has only begun, if it can be made one of this length."""
    before = noted_settings(folder, defaults)
    if not _has_other_length(before, settings):
        return open_run(folder, settings, defaults)
    same = {**settings, **{name: before.get(name) for name in LENGTH}}
    if open_run(folder, same, defaults, free_fields(settings)) is RunState.NEW:
        return open_run(folder, settings, defaults)
    find_extension(folder, settings, defaults)
    return RunState.STARTED


def find_extension(folder: Path, settings: dict[str, Any], defaults: dict[str, Any]) -> Extension | None:
    """How the run of a folder becomes one of another length; None where it has this length, or has not begun.

    Raises:
        RecipeError: it cannot; says why, and what to do.
    """
    checkpoints, before = checkpoints_of(folder), noted_settings(folder, defaults)
    if not checkpoints or not _has_other_length(before, settings):
        return None
    old = ", ".join(f"{name} {before[name]}" for name in LENGTH if before.get(name) is not None) or "its default length"
    start = f"{folder} holds a run of another length ({old}), which cannot be made longer: "
    instead = f"Give another --output_dir; with --model_name_or_path {folder} a new run begins with its weights."
    if before.get("stream") and (folder / METRICS).is_file():
        raise RecipeError(f"{start}the blocks of its stream were removed when it was finished. {instead}")
    kind = before.get("lr_scheduler_type")
    if kind not in ("constant", "warmup_stable_decay"):
        raise RecipeError(f"{start}its learning rate ({kind}) depends on the length from the beginning. {instead}")
    steps = TrainerState.load_from_json(checkpoints[-1] / TRAINER_STATE_NAME).max_steps
    noted = noted_plan(folder)
    warmup = noted.get("warmup_steps", steps_of(before["warmup_steps"], steps))
    decay = min(steps_of(before["decay_steps"], steps), steps - warmup) if kind == "warmup_stable_decay" else 0
    usable = [checkpoint for checkpoint in checkpoints if step_of(checkpoint) <= steps - decay]
    if not usable:
        raise RecipeError(
            f"{start}its learning rate began to fall after step {steps - decay:,}, and no checkpoint of before is left "
            f"(the last one is kept where save_total_limit is not given). {instead}"
        )
    kept: dict[str, Any] = {"warmup_steps": warmup}
    if before.get("initial_tokens_per_step") is not None:
        ramp = before.get("batch_ramp_steps")
        kept["batch_ramp_steps"] = noted.get(
            "batch_ramp_steps", steps_of(DEFAULT_RAMP if ramp is None else ramp, steps)
        )
    return Extension(folder, steps, usable[-1], kept)


def _has_other_length(before: dict[str, Any], settings: dict[str, Any]) -> bool:
    return bool(before) and any(before.get(name) != settings.get(name) for name in LENGTH)
