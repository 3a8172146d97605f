"""A machine that is as fast as a test says, for runs with a budget of time."""

from collections.abc import Callable

import pytest

from weft.recipes.pretraining.setup import PretrainingRun
from weft.recipes.pretraining.time_budget import measurement, monitor
from weft.recipes.pretraining.time_budget.arithmetic import Costs
from weft.recipes.pretraining.trainer import PretrainingTrainer

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
        measure, change = measurement.measure_costs, PretrainingRun.change_length
        train, evaluate = PretrainingTrainer.training_step, PretrainingTrainer.evaluate

        def measured(*arguments: object) -> Costs:
            assert isinstance(measure(*arguments), Costs)
            self.now = 0.0
            return Costs(setup=0, step=STEP, evaluation=evaluation, checkpoint=OTHER, report=OTHER)

        def trained(trainer: PretrainingTrainer, *arguments: object, **fields: object) -> object:
            self.now += seconds(trainer.state.global_step) / trainer.args.gradient_accumulation_steps
            return train(trainer, *arguments, **fields)

        def evaluated(trainer: PretrainingTrainer, *arguments: object, **fields: object) -> object:
            self.now += evaluation
            return evaluate(trainer, *arguments, **fields)

        def changed(run: PretrainingRun, steps: int, done: int) -> None:
            self.lengths.append(steps)
            change(run, steps, done)

        monkeypatch.setattr(measurement, "measure_costs", measured)
        monkeypatch.setattr(PretrainingTrainer, "training_step", trained)
        monkeypatch.setattr(PretrainingTrainer, "evaluate", evaluated)
        monkeypatch.setattr(monitor, "clock", lambda: self.now)
        monkeypatch.setattr(PretrainingRun, "change_length", changed)
