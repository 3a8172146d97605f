"""Validation while training: every held-out row once, on any number of processes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import weft
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.training.evaluator import EvaluatingTrainer
from weft.recipes.training.jackknife import jackknife_error

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch import nn
    from torch.utils.data import Dataset

FEWEST_BATCHES = 4  # for the spread of their losses to say something


class RowEvaluator(ABC):
    """Adds the scores of all rows up; `metrics` makes the result of the sums."""

    def __init__(self, rows: "Dataset", collate: Callable[[Sequence[Any]], Batch]) -> None:
        self.rows, self.collate = rows, collate
        self.of_batches: list[torch.Tensor] = []  # what each batch of this process added, when it was called last

    def __call__(self, trainer: EvaluatingTrainer) -> dict[str, float]:
        return self.metrics(*self.sums(trainer).tolist())

    def sums(self, trainer: EvaluatingTrainer, number: int | None = None) -> "torch.Tensor":
        """The scores of the first `number` rows (None: of all) added up, in float64."""
        import torch
        from torch.utils.data import DataLoader, Subset

        arguments, model = trainer.args, trainer.model
        number = len(self.rows) if number is None else number
        share = -(-number // arguments.world_size)  # the same number of rows for every process
        first = arguments.process_index * share
        loader = DataLoader(
            Subset(self.rows, range(first, first + share)),
            batch_size=arguments.per_device_eval_batch_size,
            collate_fn=self.collate,
            generator=torch.Generator(),  # leaves the global one as it is
        )
        was_training = model.training
        model.eval()
        self.of_batches = []
        with torch.no_grad():
            for batch in loader:
                trainer.obey_stop()
                on_device = {name: tensor.to(arguments.device) for name, tensor in batch.items()}
                self.of_batches.append(self.score(model, on_device))  # on the CPU: not every device has float64
        sums = sum(self.of_batches, torch.zeros(()))
        model.train(was_training)
        if arguments.world_size > 1:
            sums = trainer.accelerator.reduce(sums.to(arguments.device), "sum")
        return sums.cpu()

    def loss_error(self, processes: int) -> float | None:
        """The standard error of the last loss over the held-out text, from the loss without each batch
        (`jackknife_error`). None where there are too few batches to say.

        Args:
            processes: how many scored a share as large as this one's.
        """
        if len(self.of_batches) < FEWEST_BATCHES:
            return None
        total = sum(self.of_batches)
        without = [self.metrics(*(total - part).tolist())["loss"] for part in self.of_batches]
        return jackknife_error(without) / math.sqrt(processes)

    @abstractmethod
    def score(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        """What a batch adds to the sums, in float64 on the CPU."""

    @abstractmethod
    def metrics(self, *sums: float) -> dict[str, float]:
        """The metrics that follow from the sums over all rows."""


def token_nats(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Cross-entropy of each token [batch, tokens], in float64 on the CPU; 0 where there is no target."""
    from torch.nn.functional import cross_entropy

    flat = cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=weft.IGNORE_INDEX, reduction="none"
    )
    return flat.view_as(labels).cpu().double()
