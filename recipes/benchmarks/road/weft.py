"""Weft's own way: `recipes/pretrain_clm.py --budget`, from the text on, in one command."""

import time
from pathlib import Path
from typing import Any

from weft.recipes.benchmarks.road.side import RECIPES, Pace, RoadRun, Side
from weft.recipes.common.files import read_json
from weft.recipes.evaluation.model_loading import load_model

RUN = "run"


class Weft(Side):
    """The recipe with a budget, which chooses the number of steps by itself."""

    NAME = "weft"

    def prepare(self, run: RoadRun) -> None:
        """Nothing: the command prepares the text."""

    def train(self, run: RoadRun, steps: int) -> None:
        """Train for so many steps."""
        self._run(run, RUN, "--max_steps", str(steps))

    def load(self, work: Path, peers: Path | None) -> tuple[Any, Any]:
        """Load the run's folder."""
        return load_model(str(work / RUN), "causal", "cpu")[:2]

    def measure_pace(self, run: RoadRun) -> Pace:
        """Measure what is before a budget begins: the command up to its plan. The budget itself measures the steps."""
        began = time.perf_counter()
        self._run(run, "plan", "--max_steps", "1", "--plan", "true")
        return Pace(time.perf_counter() - began, 0.0)

    def go(self, run: RoadRun, pace: Pace, seconds: float) -> dict[str, Any]:
        """Spend on the budget what the preparation leaves of the time."""
        self._run(run, RUN, "--budget", f"{max(1.0, seconds - pace.start):.1f}s")
        plan = read_json(run.work / RUN / "plan.json")
        return {"preparation": pace.start, "steps": plan["max_steps"]}

    def _run(self, run: RoadRun, name: str, *words: str) -> None:
        fields = {
            "train_files": str(run.text),
            "output_dir": str(run.work / name),
            "preset": run.preset,
            "cpu_threads": str(run.threads),
            "seed": str(run.seed),
            "use_cpu": "true",
        }
        given = [word for field, value in fields.items() for word in (f"--{field}", value)]
        run.command("pretrain_clm.py", [str(RECIPES / "pretrain_clm.py"), *given, *words])
