"""One training with one seed: the order of examples, the Trainer, evaluation, and the best weights."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from weft.recipes.common.files import write_json
from weft.recipes.finetuning.adapters import parameter_groups
from weft.recipes.finetuning.best_weights import RESULT
from weft.recipes.finetuning.task import Task
from weft.recipes.training.trainer import WeftTrainer


class FineTuningTrainer(WeftTrainer):
    """Computes the loss from logits, for models of every family alike.

    The task's `loss` divides a sum (`weft.losses`) by the targets of the whole step, which are counted here, so that it
    does not depend on how a step is cut into forward passes and processes.
    """

    kept_beside = 3  # the best weights, the next better ones, and the finished model

    def __init__(self, *args: Any, task: Task, layer_decay: float, **kwargs: Any) -> None:
        # a loss function is given so that the Trainer does not divide the loss by the accumulation steps
        super().__init__(*args, compute_loss_func=task.loss, **kwargs)
        self.task, self.layer_decay = task, layer_decay

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The sum over this batch's targets, divided by those of the step; processes average their gradients, so each
        one's loss is multiplied by their number."""
        targets = {name: inputs[name] for name in self.task.target_names}
        given = {name: value for name, value in inputs.items() if name not in targets}
        outputs = self.task.forward(model, given)
        loss = self.task.loss(outputs, targets, num_items_in_batch)
        if num_items_in_batch is not None:
            loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        if not batch_samples:
            return None
        count = sum(
            self.task.count({name: batch[name] for name in self.task.target_names}).to(device).float()
            for batch in batch_samples
        )
        if self.args.world_size > 1:
            count = self.accelerator.reduce(count, "sum")
        return torch.where(count == 0, 1, count)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, or one in which each layer has its own learning rate."""
        if self.optimizer is not None or self.layer_decay == 1:
            return super().create_optimizer()
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        decayed = set(self.get_decay_parameter_names(self.model))
        rate, decay = self.args.learning_rate, self.args.weight_decay
        groups = parameter_groups(self.model, decayed, rate, decay, self.layer_decay)
        self.optimizer = optimizer_class(groups, **options)
        return self.optimizer


@dataclass
class SeedResult:
    """What one seed came to.

    Attributes:
        metrics: validation scores of the kept weights.
        step: at which they were reached; `steps` were trained.
        seconds: of training and evaluation, of the last uninterrupted part.
        examples_per_second: median over the logs.
    """

    seed: int
    metrics: dict[str, float]
    step: int
    steps: int
    seconds: float
    examples_per_second: float | None
    history: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Note the result; its presence means that the seed is done."""
        write_json(folder / RESULT, asdict(self))
