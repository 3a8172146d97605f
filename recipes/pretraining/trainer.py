"""The Trainer of pretraining: rows in the order of the plan, losses in parts, Muon, and averaged weights."""

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.objectives.loss_parts import LossParts
from weft.recipes.training.batch_schedule import CollateSome, StepBatches
from weft.recipes.training.optimizers import make_optimizer
from weft.recipes.training.trainer import WeftTrainer
from weft.recipes.training.weight_average import WeightAverage


class PretrainingTrainer(WeftTrainer):
    """Trainer of one pretraining run."""

    def __init__(self, *args: Any, batches: StepBatches, run: RunArguments, **kwargs: Any) -> None:
        """Args:
        batches: which rows the micro-batches take.
        run: the fields that Trainer does not know: optimizer, cautious_weight_decay, average_decay, z_loss.
        """
        super().__init__(*args, **kwargs)
        self.batches = batches
        self.optimizer_kind, self.is_cautious = run.optimizer, run.cautious_weight_decay
        self.loss_fields = {"z_loss": run.z_loss} if run.z_loss else {}
        self.parts = LossParts()
        self._other_counts: dict[str, torch.Tensor] = {}
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

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Muon or cautious decay where it is asked for, else the Trainer's own."""
        if self.optimizer is None and (self.optimizer_kind != "adamw" or self.is_cautious):
            rates = (self.args.learning_rate, self.args.weight_decay, (self.args.adam_beta1, self.args.adam_beta2))
            decayed = self.get_decay_parameter_names(self.model)
            self.optimizer = make_optimizer(self.model, decayed, self.optimizer_kind, *rates, self.is_cautious)
        return super().create_optimizer(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the parts of the loss to training logs."""
        if "loss" in logs:
            logs.update(self.parts.take(self.accelerator))
        super().log(logs, *args, **kwargs)

    def published_weights(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts the model has the averaged weights, where there are such."""
        return super().published_weights() if self.average is None else self.average.in_place()

    def save_beside(self, checkpoint: Path) -> None:
        """Write the averaged weights, where there are such."""
        if self.average is not None:
            self.average.save(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, *args, **kwargs)
        if self.average is not None:
            self.average.load(Path(resume_from_checkpoint))


def _weight_of_targets(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    if "loss_weights" in batch:
        return batch["loss_weights"].sum()
    return (batch["labels"] != IGNORE_INDEX).sum().float()
