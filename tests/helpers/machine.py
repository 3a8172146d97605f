"""A machine that is as fast as a test says, for runs with a budget of time."""

from collections.abc import Callable

import pytest

from weft.recipes.common import pace, trial
from weft.recipes.common.budget import Costs
from weft.recipes.common.run_setup import RunSetup
from weft.recipes.common.trainer import WeftTrainer

STEP, OTHER = 3000.0, 10.0  # seconds of a step as it is measured, and of a checkpoint or report


class Machine:
    """Its clock moves with each step of training and each evaluation, and nowhere else."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        seconds: Callable[[int], float] = lambda step: STEP,
        evaluation: float = OTHER,
    ) -> None:
        """`seconds`: what the step takes that so many steps come before; `evaluation`: what an evaluation takes."""
        self.now, self.lengths = 0.0, []
        measure, change = trial.measure_costs, RunSetup.change_length
        train, evaluate = WeftTrainer.training_step, WeftTrainer.evaluate

        def measured(*arguments: object) -> Costs:
            assert isinstance(measure(*arguments), Costs)
            self.now = 0.0
            return Costs(setup=0, step=STEP, evaluation=evaluation, checkpoint=OTHER, report=OTHER)

        def trained(trainer: WeftTrainer, *arguments: object, **fields: object) -> object:
            self.now += seconds(trainer.state.global_step) / trainer.args.gradient_accumulation_steps
            return train(trainer, *arguments, **fields)

        def evaluated(trainer: WeftTrainer, *arguments: object, **fields: object) -> object:
            self.now += evaluation
            return evaluate(trainer, *arguments, **fields)

        def changed(run: RunSetup, steps: int, done: int) -> None:
            self.lengths.append(steps)
            change(run, steps, done)

        monkeypatch.setattr(trial, "measure_costs", measured)
        monkeypatch.setattr(WeftTrainer, "training_step", trained)
        monkeypatch.setattr(WeftTrainer, "evaluate", evaluated)
        monkeypatch.setattr(pace, "clock", lambda: self.now)
        monkeypatch.setattr(RunSetup, "change_length", changed)
