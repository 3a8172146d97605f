"""The Trainer of all recipes: transformers' own, with checkpoints that are whole or absent and only finite losses."""

import contextlib
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints

from weft.recipes.common.averaging import WeightAverage
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import move_folder, remove_folder
from weft.recipes.common.loss_parts import LossParts
from weft.recipes.common.optimizers import make_optimizer
from weft.recipes.common.packing import IGNORE_INDEX
from weft.recipes.common.run_arguments import RunArguments
from weft.recipes.common.sharding import ShardingTrainer
from weft.recipes.common.steps import CollateSome, StepBatches
from weft.recipes.common.throughput import Throughput
from weft.recipes.common.zero import norm_of_gradient

UNFINISHED_PREFIX = ".unfinished-"


class Evaluator(Protocol):
    """Computes the metrics of the held-out rows with a trainer's model, the same in all processes."""

    rows: Dataset

    def __call__(self, trainer: "WeftTrainer") -> dict[str, float]: ...


class WeftTrainer(ShardingTrainer):
    """Trainer with atomic checkpoints, a guard against losses that are not finite, and the recipes' evaluation."""

    def __init__(
        self,
        *args: Any,
        evaluator: Evaluator,
        throughput: Throughput,
        epochs_before: Callable[[int], float],
        batches: StepBatches | None = None,
        run: RunArguments | None = None,
        **kwargs: Any,
    ) -> None:
        """Args:
        evaluator: computes the metrics of the validation text; they get the prefix "eval_".
        throughput: adds tokens_seen, tokens_per_second and mfu to each training log.
        epochs_before: how often the text is seen in so many steps (the Trainer sees the whole run as one epoch).
        batches: which rows the micro-batches take; None: all as many, in the order of the Trainer's sampler.
        run: the fields that Trainer does not know: optimizer, cautious_weight_decay, average_decay, z_loss; None: what
            Trainer itself does.
        """
        super().__init__(*args, eval_dataset=evaluator.rows, **kwargs)
        self.evaluator = evaluator
        self.throughput = throughput
        self.epochs_before, self.batches = epochs_before, batches
        run = run or RunArguments(optimizer="adamw")
        self.optimizer_kind, self.is_cautious = run.optimizer, run.cautious_weight_decay
        self.average = None if run.average_decay is None else WeightAverage(self.model, run.average_decay)
        self.loss_fields = {"z_loss": run.z_loss} if run.z_loss else {}
        self.parts = LossParts()
        self._other_counts: dict[str, torch.Tensor] = {}
        self.idle_seconds = 0.0  # spent on evaluating and saving; throughput leaves it out
        self.add_callback(StopAtNonFinite())
        self.add_callback(Cadence())
        if self.average is not None:
            self.add_callback(self.average)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The config allows the cache, so that every checkpoint does; training has no use for it, nor for logits.

        Where weights are sharded, those of the head are whole only while it computes logits.
        """
        options = {**self._other_counts, **self.loss_fields, "return_logits": self.is_fsdp_enabled}
        inputs = {**inputs, **options, "use_cache": False}
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        self.parts.add(inputs, outputs)
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        """What the losses of a step divide by: the targets, or their weights, and the sentence pairs."""
        batch_samples = [batch for batch in batch_samples if batch]
        if not batch_samples or "predict_from" not in batch_samples[0]:
            return super()._get_num_items_in_batch(batch_samples, device)
        labels = [batch["next_sentence_label"] for batch in batch_samples if "next_sentence_label" in batch]
        counts = torch.zeros(2, device=device)
        counts[0] = sum(_weight_of_targets(batch) for batch in batch_samples)
        counts[1] = sum((label != IGNORE_INDEX).sum() for label in labels)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, "sum")
        counts = counts.clamp(min=1)
        self._other_counts = {"num_pairs_in_batch": counts[1]} if labels else {}
        return counts[0]

    def get_train_dataloader(self) -> DataLoader:
        """The rows as `batches` has them, in their own order."""
        if self.batches is None:
            return super().get_train_dataloader()
        args = self.args
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=CollateSome(self.data_collator),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
        )
        return self.accelerator.prepare(loader)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward, of an empty micro-batch neither."""
        if not inputs:
            return torch.zeros((), device=self.args.device)
        return super().training_step(model, inputs, *args, **kwargs)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """The Trainer warns of a batch without tokens."""
        if inputs:
            super()._track_num_input_tokens(inputs)

    def get_decay_parameter_names(self, model: PreTrainedModel) -> list[str]:
        """Decay the matrices of linear maps, not norms, biases and embeddings (nor a head that is tied to one)."""
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim >= 2 and id(parameter) not in embeddings
        ]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Muon or cautious decay where it is asked for, else the Trainer's own."""
        if self.optimizer is None and (self.optimizer_kind != "adamw" or self.is_cautious):
            rates = (self.args.learning_rate, self.args.weight_decay, (self.args.adam_beta1, self.args.adam_beta2))
            decayed = self.get_decay_parameter_names(self.model)
            self.optimizer = make_optimizer(self.model, decayed, self.optimizer_kind, *rates, self.is_cautious)
        return super().create_optimizer(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the Trainer does, with the clock of the throughput started at the first step."""
        self.throughput.start()
        return super().train(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add rates to training logs, and count epochs of the text."""
        self.state.epoch = self.epochs_before(self.state.global_step)
        if "loss" in logs:
            logs.update(self.parts.take(self.accelerator))
            logs.update(self.throughput.rates(self.state.global_step, self.idle_seconds))
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Run the recipe's evaluator, log what it returns and tell the callbacks."""
        began = time.perf_counter()
        with self.averaged():
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.evaluator(self).items()}
        self.idle_seconds += time.perf_counter() - began
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts the model has the averaged weights, where there are such."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)
        if self.average is not None:
            self.average.load(Path(resume_from_checkpoint))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """A weight that is tied to another is not missing."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(type(load_result)(missing, load_result.unexpected_keys))

    def _get_output_dir(self, trial: Any) -> str:
        """The run's folder, or, while a checkpoint is being written, a hidden folder inside of it."""
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / self._unfinished) if self._unfinished else folder

    _unfinished: str | None = None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint under a hidden name, flush it to disk, then give it its own name."""
        began = time.perf_counter()
        run = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if not (run / name).exists():
            self._unfinished = f"{UNFINISHED_PREFIX}{name}"
            try:
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    if self.average is not None:
                        self.average.save(run / self._unfinished / name)
                    move_folder(run / self._unfinished / name, run / name)
                    (run / self._unfinished).rmdir()
            finally:
                self._unfinished = None
            if self.args.should_save:
                self._drop_old_checkpoints(run)
            self.accelerator.wait_for_everyone()
        self.idle_seconds += time.perf_counter() - began

    def _drop_old_checkpoints(self, run: Path) -> None:
        limit = self.args.save_total_limit
        if limit:
            for checkpoint in sort_checkpoints(output_dir=str(run))[:-limit]:
                remove_folder(Path(checkpoint))


def _weight_of_targets(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    if "loss_weights" in batch:
        return batch["loss_weights"].sum()
    return (batch["labels"] != IGNORE_INDEX).sum().float()


def remove_unfinished(run: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for leftover in (*run.glob(f"{UNFINISHED_PREFIX}*"), *run.glob(f".{PREFIX_CHECKPOINT_DIR}-*.removed")):
        shutil.rmtree(leftover, ignore_errors=True)


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
