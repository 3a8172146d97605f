"""Callbacks that keep a run honest: no step with a gradient that is not finite, logs up to the last step."""

import math
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainingArguments

from weft.recipes.common.errors import RecipeError
from weft.recipes.training.zero3 import norm_of_gradient


class Cadence(TrainerCallback):
    """Logs the last step too, and lets a resumed run log, evaluate and save as often as it is asked to now."""

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """A resumed state brings the old intervals along."""
        state.compute_steps(args, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """The curve ends where training does."""
        control.should_log = control.should_log or state.global_step >= state.max_steps


class NotFiniteError(RecipeError):
    """A loss or gradient is infinite or not a number."""


class StopAtNonFinite(TrainerCallback):
    """Stops a run whose gradients are not finite before the optimizer spoils the weights with them.

    A loss that is infinite or not a number makes such gradients, and every process sees the same ones.
    """

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: Any,
        control: Any,
        model: nn.Module | None = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Raises NotFiniteError where the norm of all gradients is not finite."""
        norm = norm_of_gradient(list(model.parameters()), optimizer)
        if norm is None:
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
        if not math.isfinite(norm.full_tensor() if isinstance(norm, DTensor) else norm):
            raise NotFiniteError(
                f"the loss or its gradient is not finite at step {state.global_step + 1}: training stopped, and the "
                f"last checkpoint in {args.output_dir} is kept. Look at the text of that step, or lower learning_rate "
                "in a run with another --output_dir."
            )
