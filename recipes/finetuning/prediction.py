"""Predictions and scores of a whole split, the same for any number of processes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from weft.recipes.finetuning.collation import EncodedExample, PackingCollator
from weft.recipes.finetuning.task import ScoredTask
from weft.recipes.training.trainer import WeftTrainer


class TaskEvaluator:
    """Scores a labelled split; results are the same for any number of processes."""

    def __init__(
        self, task: ScoredTask, split: str, items: Sequence[EncodedExample], collator: PackingCollator, batch_size: int
    ) -> None:
        self.task, self.split, self.rows, self.collator, self.batch_size = task, split, items, collator, batch_size

    def __call__(self, trainer: WeftTrainer) -> dict[str, float]:
        arguments = trainer.args
        results = predict(
            *(self.task, trainer.model, self.rows, self.collator, self.batch_size),
            *(arguments.process_index, arguments.world_size, trainer.obey_stop),
        )
        return self.task.score(self.split, self.rows, results)


@torch.no_grad()
def predict(
    task: ScoredTask,
    model: nn.Module,
    items: Sequence[EncodedExample],
    collator: PackingCollator,
    batch_size: int,
    process: int = 0,
    processes: int = 1,
    before_batch: Callable[[], None] = lambda: None,
) -> list[Any]:
    """What a model says of items, in their order; each process does its share and gets the results of all.

    Args:
        batch_size: items of a forward pass; those of like length go together.
        before_batch: is called before each batch, as often in every process.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(items)), key=lambda index: -items[index].tokens)
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    was_training = model.training
    model.eval()
    found: dict[int, Any] = {}
    for first in range(0, len(batches), processes):
        before_batch()
        batch = batches[first + process] if first + process < len(batches) else []
        if not batch:
            break
        number_of = {id(items[index]): index for index in batch}
        inputs, layout = collator.lay_out([items[index] for index in batch])
        answers = task.predict(model, {name: tensor.to(device) for name, tensor in inputs.items()}, layout)
        for item, result in zip(layout.items, answers, strict=True):
            found[number_of[id(item)]] = result
    model.train(was_training)
    if processes > 1:
        shares: list[Any] = [None] * processes
        torch.distributed.all_gather_object(shares, found)
        found = {index: result for share in shares for index, result in share.items()}
    return [found[index] for index in range(len(items))]
