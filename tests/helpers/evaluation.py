"""A trainer as evaluators see it, alone or as one of several processes."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import nn


class StandInTrainer:
    """What an evaluator reads of a trainer, as one of several processes that add up their sums."""

    def __init__(self, model: nn.Module, batch_size: int, world_size: int = 1, process_index: int = 0) -> None:
        self.model = model
        self.args = SimpleNamespace(
            world_size=world_size,
            process_index=process_index,
            per_device_eval_batch_size=batch_size,
            device=torch.device("cpu"),
        )
        self.accelerator = SimpleNamespace(reduce=self.reduce)
        self.others: list[list[torch.Tensor]] = []  # what each of the others gave to be added up, call by call
        self.own: list[torch.Tensor] = []

    def obey_stop(self) -> None:
        """No signal comes."""

    def reduce(self, sums: torch.Tensor, how: str) -> torch.Tensor:
        """The sum over all processes, as far as the others have given theirs."""
        assert how == "sum" and sums.dtype == torch.float64
        self.own.append(sums.clone())
        return sums + sum(other[len(self.own) - 1] for other in self.others)


def evaluate_on(
    processes: int, evaluator: Callable[[StandInTrainer], dict[str, float]], model: nn.Module, batch_size: int
) -> dict[str, float]:
    """The metrics that the first of several processes gets."""
    members = [StandInTrainer(model, batch_size, processes, i) for i in range(processes)]
    for member in members[1:]:
        member.others = [[torch.ones(1, dtype=torch.float64)] * 3]  # no one's, but it must not divide by zero targets
        evaluator(member)
    members[0].others = [member.own for member in members[1:]]
    return evaluator(members[0])
