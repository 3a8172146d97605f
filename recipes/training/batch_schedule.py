"""How the rows of a pretraining run fall into optimizer steps and micro-batches, with or without a batch-size ramp."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Steps:
    """The rows of each step, numbered from 0: `rows_per_step`, or, where there is a ramp, `initial_rows` at first,
    doubled at equal distances in the first `ramp_steps` steps until they are `rows_per_step`.

    A small batch costs nothing while the loss falls fast (https://huggingface.co/papers/2505.23971, which doubles too).
    """

    rows_per_step: int
    number: int
    initial_rows: int | None = None
    ramp_steps: int = 0

    @property
    def sizes(self) -> list[int]:
        """The rows of a step in each stage."""
        sizes = [self.initial_rows or self.rows_per_step]
        while sizes[-1] < self.rows_per_step:
            sizes.append(2 * sizes[-1])
        return sizes

    @cached_property
    def _stages(self) -> list[tuple[int, int, int]]:
        """(first step, first row, rows of a step) of each stage, the last without end."""
        sizes = self.sizes
        firsts = [round(index * self.ramp_steps / max(1, len(sizes) - 1)) for index in range(len(sizes))]
        stages, row = [], 0
        for index, (first, size) in enumerate(zip(firsts, sizes)):
            stages.append((first, row, size))
            row += size * (firsts[index + 1] - first) if index + 1 < len(sizes) else 0
        return stages

    def rows(self, step: int) -> int:
        """How many rows a step takes."""
        return self._stages[bisect_right(self._stages, step, key=lambda stage: stage[0]) - 1][2]

    def before(self, step: int) -> int:
        """How many rows the steps before this one take together."""
        first, row, size = self._stages[bisect_right(self._stages, step, key=lambda stage: stage[0]) - 1]
        return row + (step - first) * size

    def of(self, index: int) -> int:
        """The step that row `index` of the run belongs to."""
        first, row, size = self._stages[bisect_right(self._stages, index, key=lambda stage: stage[1]) - 1]
        return first + (index - row) // size


class StepBatches:
    """Micro-batches of row numbers, the same number of them in each step, as the Trainer counts them.

    Each process takes every `processes`-th. A step of few rows fills its last micro-batches; those before are empty.
    """

    def __init__(self, steps: Steps, micro_batch: int, accumulation: int, processes: int) -> None:
        self.steps, self.micro_batch, self.accumulation, self.processes = steps, micro_batch, accumulation, processes

    def __len__(self) -> int:
        return self.steps.number * self.accumulation * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps.number):
            row = self.steps.before(step)
            sizes = self._cut(self.steps.rows(step))
            for size in [0] * (self.accumulation - len(sizes)) + sizes:
                for _ in range(self.processes):
                    yield list(range(row, row + size))
                    row += size

    def sizes(self) -> set[int]:
        """How many rows a micro-batch may have that is not empty."""
        return {size for rows in self.steps.sizes for size in self._cut(rows)}

    def _cut(self, rows: int) -> list[int]:
        whole, rest = divmod(rows // self.processes, self.micro_batch)
        return [rest] * bool(rest) + [self.micro_batch] * whole


@dataclass(frozen=True)
class CollateSome:
    """A collator that makes an empty micro-batch of no rows."""

    collate: Callable[[list[Any]], dict[str, Any]]

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        return self.collate(list(rows)) if rows else {}


def steps_of(given: float, max_steps: int) -> int:
    return round(given * max_steps) if given < 1 else int(given)
