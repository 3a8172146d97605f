"""What a side of the road is: it prepares, trains for a number of steps, and loads what it has trained."""

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter as clock
from typing import Any, ClassVar

from weft import WeftConfig
from weft.recipes.common.errors import RecipeError
from weft.recipes.training.model_arguments import PRESETS

RECIPES = Path(__file__).resolve().parents[2]
LENGTH, VOCABULARY = 256, 8192  # tokens of a row, and of the tokenizer: the recipes' own defaults
CACHE = "cache"  # of transformers and datasets, in the folder of a run
FEW_STEPS, MORE_STEPS = 10, 50  # whose difference tells the seconds of a step


@dataclass(frozen=True)
class RoadShape:
    """The shape of all models: that of a preset of Weft's."""

    layers: int
    width: int
    heads: int
    key_value_heads: int
    inner: int

    @classmethod
    def of_preset(cls, name: str) -> "RoadShape":
        """The shape of `pretrain_clm.py --preset NAME`."""
        config = WeftConfig(vocab_size=VOCABULARY, **PRESETS[name])
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.intermediate_size,
        )


@dataclass(frozen=True)
class RoadRun:
    """One run of a side: its text, its places and its settings.

    Attributes:
        text: documents to train on, one JSON object a line.
        work: an empty folder for whatever the side writes.
        log: file that the output of its commands is added to.
        seed, threads: of this run.
        shape, preset: of the model.
        peers: folder with the other projects; None: there are none.
    """

    text: Path
    work: Path
    log: Path
    seed: int
    threads: int
    preset: str
    peers: Path | None = None

    @property
    def shape(self) -> RoadShape:
        return RoadShape.of_preset(self.preset)

    def command(self, what: str, words: Sequence[str], folder: Path | None = None, **environment: str) -> None:
        """Run a Python program in a fresh process, offline and with this run's threads.

        Args:
            what: the command, for messages.
            words: behind the name of the interpreter.
            folder: to run it in.

        Raises:
            RecipeError: it failed; says what it wrote last and where all of it is.
        """
        number = str(self.threads)
        settings = {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "RAYON_NUM_THREADS": number}
        settings |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.work / CACHE), "WANDB_MODE": "disabled"}
        settings |= {"TOKENIZERS_PARALLELISM": "true"}
        with self.log.open("ab") as handle:
            done = subprocess.run(
                [sys.executable, *words],
                cwd=folder,
                env={**os.environ, **settings, **environment},
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
            raise RecipeError(f"{what} ended with status {done.returncode} ({lines[-1].strip()}): see {self.log}.")


@dataclass(frozen=True)
class Pace:
    """Seconds of a side's training: before and after its steps, and of each of them."""

    start: float
    step: float

    def steps_within(self, seconds: float) -> int:
        """The steps that end in time, at least one."""
        return max(1, int((seconds - self.start) / self.step))

    def after(self, seconds: float, steps: int) -> "Pace | None":
        """The pace at which so many steps took so long; None: the side counts none in advance."""
        return Pace(self.start, max(1e-3, (seconds - self.start) / steps)) if self.step else None


class Side(ABC):
    """One project's way from text to weights."""

    NAME: ClassVar[str]

    def missing(self, peers: Path | None) -> str | None:
        """Say what is not there that the side needs; None: it can run."""
        return None

    @abstractmethod
    def prepare(self, run: RoadRun) -> None:
        """Make the tokenizer and the data that training reads."""

    @abstractmethod
    def train(self, run: RoadRun, steps: int) -> None:
        """Train with a schedule of so many steps, and write the weights."""

    @abstractmethod
    def load(self, work: Path, peers: Path | None) -> tuple[Any, Any]:
        """Load the weights in a process of their own: a model and a tokenizer as `likelihood.Scorer` takes them."""

    def surroundings(self, work: Path, peers: Path | None) -> tuple[Path | None, dict[str, str]]:
        """The folder in which the side's own modules are found, and the environment that they need."""
        return None, {}

    def measure_pace(self, run: RoadRun) -> Pace:
        """Train for a few steps and for some more, once a first run has compiled what it compiles; its time is free."""
        self.prepare(run)
        seconds = []
        for steps in (FEW_STEPS, FEW_STEPS, MORE_STEPS):
            began = clock()
            self.train(run, steps)
            seconds.append(clock() - began)
        step = max(1e-3, (seconds[2] - seconds[1]) / (MORE_STEPS - FEW_STEPS))
        return Pace(max(0.0, seconds[1] - FEW_STEPS * step), step)

    def go(self, run: RoadRun, pace: Pace, seconds: float) -> dict[str, Any]:
        """Go from the text to the weights in a time; what is worth noting of it."""
        began = clock()
        self.prepare(run)
        prepared = clock() - began
        steps = pace.steps_within(seconds - prepared)
        self.train(run, steps)
        return {"preparation": prepared, "steps": steps}
