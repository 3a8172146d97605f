"""Watch the clock of a run with a budget, and ask for another length where it would end too early or too late.

The machine may become busy or free while it trains. As long as the learning rate does not depend on the length of the
run, the run can go on from a checkpoint as one of another length. A causal run then equals one of that length exactly.
Whatever else depends on the length (a masking rate that changes, causal rows given as a share) follows the new length
from there on.
"""

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.recipes.common.processes import is_first_process, of_first_process
from weft.recipes.pretraining.time_budget.arithmetic import Costs, alike
from weft.recipes.training.throughput import synchronize

CHECKS = 20  # in a whole run
TOLERANCE = 0.04  # of the budget, that a run may end before or behind it

clock = time.perf_counter


class BudgetMonitor(TrainerCallback):
    """Stops the Trainer with a checkpoint where the run should have another length, and keeps that as `steps`."""

    def __init__(
        self,
        decided: dict[str, Any],
        seconds: float,
        intervals: dict[str, Any],
        work: Callable[..., float] = alike,
    ) -> None:
        """Args:
        decided: what `plan_within` returned, just now.
        seconds: the budget.
        intervals: eval_steps and save_steps, where they are given.
        work: see `Costs.seconds`.
        """
        self.work = work
        measured = decided["measured_seconds"] | {"evaluations": decided["evaluations"]}
        self.costs = Costs(**{field.name: measured[field.name] for field in fields(Costs)})
        self.seconds, self.ends = seconds, clock() + seconds - decided["measuring_seconds"]
        self.intervals = (intervals.get("eval_steps"), intervals.get("save_steps"))
        self.begin(0, 0, 1)

    def begin(self, since: int, until: int, least: int) -> None:
        """Watch a Trainer from step `since` to `until`, while its learning rate is the highest.

        Args:
            least: the fewest steps that the run may have.
        """
        self.since, self.until, self.least = since, until, least
        self.steps, self.is_late = None, None
        self.mark: tuple[int, float] | None = None  # a step, and the seconds of training at its end
        self.idle = self.ended = 0.0  # seconds of evaluating and saving, and when the last step ended

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the clock now and then."""
        step, self.ended = state.global_step, clock()
        if control.should_training_stop or not self.since <= step < self.until:
            return
        every = max(1, state.max_steps // CHECKS)
        if self.mark is not None and step - self.mark[0] < every:
            return
        synchronize(args.device)
        self.ended = clock()
        before, self.mark = self.mark, (step, self.ended - self.idle)
        if before is None:  # the first step of a Trainer also prepares what the others use
            return
        seconds_per_step = (self.mark[1] - before[1]) / self.work(state.max_steps, before[0], step)
        other = self._other_length(seconds_per_step, step, state.max_steps)
        was_late, self.is_late = self.is_late, None if other is None else other < state.max_steps
        # one look may see a moment only
        lasts = self.is_late is not None and (self.is_late == was_late or step + every >= self.until)
        self.steps = of_first_process(other if lasts else None)
        if self.steps is not None:
            if is_first_process():
                print(
                    f"a step takes {seconds_per_step:.3g} s, not the {self.costs.step:.3g} s that were measured: "
                    f"{other:,} steps instead of {state.max_steps:,}, to end in time",
                    flush=True,
                )
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Leave the time of evaluating out."""
        self._pause()

    def on_save(self, *_: Any, **__: Any) -> None:
        """Leave the time of saving out."""
        self._pause()

    def _pause(self) -> None:
        now = clock()
        self.idle, self.ended = self.idle + now - self.ended, now

    def _other_length(self, seconds_per_step: float, done: int, steps: int) -> int | None:
        """The steps of a run that ends in time if the machine stays as it is now; None: this one nearly does."""
        costs, left = self.costs.on_machine_with(seconds_per_step), self.ends - self.ended
        restart = costs.setup + costs.checkpoint
        needed = costs.seconds(steps, *self.intervals, done=done, work=self.work)
        if abs(needed - left) <= max(TOLERANCE * self.seconds, 2 * restart):
            return None
        fitting = costs.steps_within(left - restart, *self.intervals, done=done, work=self.work)
        other = max(done + 1, self.least, fitting)
        return None if other == steps else other
