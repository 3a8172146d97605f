"""The Trainer of pretraining: rows in the order of the plan, losses as the objective counts them, averaged weights."""

import contextlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader

from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.distillation.teacher import Teacher
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.stream_dataset import StreamRows
from weft.recipes.training.batch_schedule import CollateSome, StepBatches
from weft.recipes.training.checkpoint_folders import TRAINING_ONLY
from weft.recipes.training.disk_space import weight_bytes
from weft.recipes.training.optimizers import make_optimizer
from weft.recipes.training.trainer import WeftTrainer
from weft.recipes.training.weight_average import WeightAverage


class LossParts:
    """Nats and targets (or their weights) of each part of the loss, summed on the device until they are taken."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def add(self, parts: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Add the parts of a forward pass, as `Objective.loss_parts` gives them."""
        for name, (nats, is_target) in parts.items():
            found = torch.stack(((nats * is_target).sum().float(), is_target.sum().float()))
            self.sums[name] = self.sums[name] + found if name in self.sums else found

    def take(self, accelerator: Any) -> dict[str, float]:
        """Nats per target of each part since the last call, over all processes, as loss_PART."""
        if not self.sums:
            return {}
        names = sorted(self.sums)  # the same in all processes, for every batch adds all parts
        sums = torch.stack([self.sums[name] for name in names])
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, "sum")
        self.sums = {}
        return {f"loss_{name}": nats / count for name, (nats, count) in zip(names, sums.tolist()) if count}


class PretrainingTrainer(WeftTrainer):
    """Trainer of one pretraining run."""

    def __init__(
        self,
        *args: Any,
        batches: StepBatches,
        objective: Objective,
        run: RunArguments,
        teacher: Teacher | None = None,
        **kwargs: Any,
    ) -> None:
        """Args:
        batches: which rows the micro-batches take.
        objective: says what the losses of a step divide by and which parts are logged.
        run: the fields that Trainer does not know: optimizer, cautious_weight_decay, average_decay, z_loss.
        teacher: is asked about each batch, where there is one.
        """
        super().__init__(*args, data_collator=objective.collate, **kwargs)
        self.batches, self.objective, self.teacher = batches, objective, teacher
        self.optimizer_kind, self.is_cautious = run.optimizer, run.cautious_weight_decay
        self.loss_fields = {"z_loss": run.z_loss} if run.z_loss else {}
        self.parts = LossParts()
        self._other_divisors: dict[str, torch.Tensor] = {}
        self.average = None if run.average_decay is None else WeightAverage(self.model, run.average_decay)
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
        options = {**self._other_divisors, **self.loss_fields, "return_logits": self.is_fsdp_enabled}
        given = {name: value for name, value in inputs.items() if name not in self.objective.kept_back}
        if self.teacher is not None:
            options["teach"] = self.teacher.lesson(given)
        given |= {**options, "use_cache": False}
        loss, outputs = super().compute_loss(model, given, True, num_items_in_batch)
        self.parts.add(self.objective.loss_parts(inputs, outputs))
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """Add the divisors of a step up, over its micro-batches and processes, as the objective counts them."""
        counted = [self.objective.loss_divisors(batch) for batch in batch_samples if batch]
        if not counted:
            return None
        sums = torch.stack([sum(each[name].float() for each in counted) for name in counted[0]]).to(device)
        if self.args.world_size > 1:
            sums = self.accelerator.reduce(sums, "sum")
        divisors = dict(zip(counted[0], sums.clamp(min=1)))
        count = divisors.pop("num_items_in_batch")
        self._other_divisors = divisors
        return count

    def get_train_dataloader(self) -> DataLoader:
        """The rows as `batches` has them, in their own order."""
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

    def state_bytes(self) -> int:
        """Muon keeps one number for each of its weights, and an average is one more for each."""
        if self.optimizer_kind == "muon":
            decayed = set(self.get_decay_parameter_names(self.model))
            each = ((4 if name in decayed else 8) * weight.numel() for name, weight in self.model.named_parameters())
            state = sum(each)
        else:
            state = super().state_bytes()
        return state + (0 if self.average is None else weight_bytes(self))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Muon or cautious decay where it is asked for, else the Trainer's own."""
        if self.optimizer is None and (self.optimizer_kind != "adamw" or self.is_cautious):
            rates = (self.args.learning_rate, self.args.weight_decay, (self.args.adam_beta1, self.args.adam_beta2))
            decayed = self.get_decay_parameter_names(self.model)
            self.optimizer = make_optimizer(self.model, decayed, self.optimizer_kind, *rates, self.is_cautious)
        return super().create_optimizer(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the parts of the loss to training logs, and the pass over a stream."""
        if "loss" in logs:
            logs.update(self.parts.take(self.accelerator))
            if isinstance(self.train_dataset, StreamRows):
                last_row = self.batches.steps.before(self.state.global_step) - 1
                logs["stream_pass"] = self.train_dataset.pass_of(last_row)
        super().log(logs, *args, **kwargs)

    def published_weights(self) -> contextlib.AbstractContextManager[None]:
        """Give the model the averaged weights for a while, where the run averages them."""
        return super().published_weights() if self.average is None else self.average.in_place()

    def save_beside(self, checkpoint: Path) -> None:
        """Write the weights that only training needs, and the averaged ones, where the run has such."""
        if kept := self.objective.training_only(self.model):
            save_file({name: weight.detach().contiguous() for name, weight in kept.items()}, checkpoint / TRAINING_ONLY)
        if self.average is not None:
            self.average.save(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoint, trained = Path(resume_from_checkpoint), self.model if model is None else model
        super()._load_from_checkpoint(resume_from_checkpoint, self.objective.published(trained))
        if kept := self.objective.training_only(self.model):
            found = load_file(checkpoint / TRAINING_ONLY)
            for name, weight in kept.items():
                weight.detach().copy_(found[name])
        if self.average is not None:
            self.average.load(checkpoint)
