"""What a training step costs by how its process was begun: with freed memory kept, and beside busy programs."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from weft.recipes.benchmarks.busy_programs import busy_programs
from weft.recipes.benchmarks.stock_models import Shape
from weft.recipes.common.errors import RecipeError

WORKER = Path(__file__).with_name("training_worker.py")
WARM_UP = 2  # steps that are not counted
# How long a thread that waits spins: the sides of `busy_sides`, and what they have in their environment.
SPINNING = {
    "weft": {"GOMP_SPINCOUNT": "10000"},  # as recipes/__init__.py
    "default": {},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 0": {"GOMP_SPINCOUNT": "0"},
    "passive": {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE"},
}
OF_THREADS = ("GOMP_", "OMP_", "KMP_")


@dataclass
class Worker:
    """A process that trains when it is told to, until this object or this process is gone."""

    shape: Shape
    threads: int | None
    keep: bool
    environment: dict[str, str]
    process: subprocess.Popen = field(init=False)

    def __post_init__(self) -> None:
        config = {"vocab_size": self.shape.vocabulary, "hidden_size": self.shape.width}
        config |= {"num_hidden_layers": self.shape.layers, "num_attention_heads": max(1, self.shape.width // 64)}
        settings: dict[str, Any] = {"config": config, "rows": self.shape.batch_size, "length": self.shape.length}
        words = [sys.executable, str(WORKER), json.dumps(settings | {"threads": self.threads, "keep": self.keep})]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(words, env=self.environment, text=True, **pipes)
        self.end = weakref.finalize(self, self.process.communicate)  # it waits for a line that does not come

    def seconds(self, steps: int) -> float:
        """Train for so many steps; raises RecipeError where the process has ended."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RecipeError(f"the process that trains ended with status {self.process.wait()}.")
        return float(line)


def allocator_sides(shape: Shape, steps: int, threads: int | None) -> dict[str, Callable[[], float]]:
    """The median seconds of a step in a fresh process, with freed memory kept as the recipes do ("weft") and with the
    C library's default."""

    def side(keep: bool) -> float:
        worker = Worker(shape, threads, keep, dict(os.environ))
        try:
            worker.seconds(WARM_UP)
            return statistics.median(worker.seconds(1) for _ in range(steps))
        finally:
            worker.end()

    return {"weft": partial(side, True), "default": partial(side, False)}


def busy_sides(shape: Shape, steps: int, threads: int | None, programs: int) -> dict[str, Callable[[], float]]:
    """The seconds of `steps` steps beside busy programs, by how long waiting threads spin, in a process each."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OF_THREADS)}
    workers = {name: Worker(shape, threads, False, clean | setting) for name, setting in SPINNING.items()}
    for worker in workers.values():
        worker.seconds(WARM_UP)

    def side(worker: Worker) -> float:
        with busy_programs(programs):
            return worker.seconds(steps)

    return {name: partial(side, worker) for name, worker in workers.items()}
