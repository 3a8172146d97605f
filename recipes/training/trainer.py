"""The Trainer of all recipes: transformers' own, with checkpoints that are whole or absent and only finite losses.

It and its subclasses override these private methods of Trainer (tried with transformers 5.17 to 5.23):

_get_output_dir, _save_checkpoint                               a checkpoint has its name only when it is whole
_save_optimizer_and_scheduler, _load_optimizer_and_scheduler    checkpoints of sharded weights are those of whole ones
_load_from_checkpoint, _prepare_for_training, _prepare_input    the same, and averaged weights are read
_maybe_log_save_evaluate                                        a step is saved before it is evaluated
_issue_warnings_after_load                                      a tied weight is not missing
_get_num_items_in_batch                                         what the losses of a step divide by
_track_num_input_tokens                                         an empty micro-batch has no tokens

They also call Trainer._save. `fsdp2` overrides create_accelerator_and_postprocess and writes
PartialState._shared_state (accelerate 1.15), `zero3` reads _global_grad_norm and writes ops.__compatible_ops__
(DeepSpeed 0.19).
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK, PrinterCallback

from weft.recipes.training.disk_space import check_space
from weft.recipes.training.evaluation_order import SavesFirst
from weft.recipes.training.evaluator import Evaluator
from weft.recipes.training.fsdp2 import ShardingTrainer
from weft.recipes.training.safeguards import Cadence, StopAtNonFinite
from weft.recipes.training.throughput import Throughput


class WeftTrainer(SavesFirst, ShardingTrainer):
    """Trainer with atomic checkpoints, a guard against losses that are not finite, and the recipes' evaluation."""

    def __init__(
        self,
        *args: Any,
        evaluator: Evaluator,
        throughput: Throughput,
        epochs_before: Callable[[int], float],
        **kwargs: Any,
    ) -> None:
        """Args:
        evaluator: computes the metrics of the validation text; they get the prefix "eval_".
        throughput: adds tokens_seen, tokens_per_second and mfu to each training log.
        epochs_before: how often the text is seen in so many steps (the Trainer sees the whole run as one epoch).
        """
        super().__init__(*args, eval_dataset=evaluator.rows, **kwargs)
        self.evaluator = evaluator
        self.throughput = throughput
        self.epochs_before = epochs_before
        self.idle_seconds = 0.0  # spent on evaluating and saving; throughput leaves it out
        for stock in (DEFAULT_PROGRESS_CALLBACK, PrinterCallback):  # in a notebook the first is a table
            self.remove_callback(stock)
        self.add_callback(StopAtNonFinite())
        self.add_callback(Cadence())

    def get_decay_parameter_names(self, model: PreTrainedModel) -> list[str]:
        """Decay the matrices of linear maps, not norms, biases and embeddings (nor a head that is tied to one)."""
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim >= 2 and id(parameter) not in embeddings
        ]

    # How often the weights are written besides checkpoints.
    kept_beside = 1

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the Trainer does, with the clock of the throughput started at the first step.

        Raises:
            RecipeError: the checkpoints have no room on the disk.
        """
        check_space(self, self.state_bytes(), self.kept_beside)
        self.throughput.start()
        return super().train(*args, **kwargs)

    def state_bytes(self) -> int:
        """Bytes of the optimizer's state in a checkpoint, at least: two numbers for each of AdamW."""
        if "adamw" not in self.args.optim:
            return 0
        return 8 * sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add rates to training logs, and count epochs of the text."""
        self.state.epoch = self.epochs_before(self.state.global_step)
        if "loss" in logs:
            logs.update(self.throughput.rates(self.state.global_step, self.idle_seconds))
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Run the recipe's evaluator, log what it returns and tell the callbacks."""
        began = time.perf_counter()
        with self.published_weights():
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.evaluator(self).items()}
        self.idle_seconds += time.perf_counter() - began
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def published_weights(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts the model has the weights that are evaluated and published: those of training."""
        return contextlib.nullcontext()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        began = time.perf_counter()
        super()._save_checkpoint(model, trial)
        self.idle_seconds += time.perf_counter() - began

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """A weight that is tied to another is not missing."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(type(load_result)(missing, load_result.unexpected_keys))
