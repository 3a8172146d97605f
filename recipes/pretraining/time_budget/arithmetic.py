"""Choose the model size and the number of steps that fit a given time.

Everything here is arithmetic on measured seconds; `measurement` measures them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

# Tokens for each parameter with which a given compute is used best (https://huggingface.co/papers/2203.15556), and
# passes over a text beyond which more of them add little (https://huggingface.co/papers/2305.16264).
TOKENS_PER_PARAMETER, PASSES = 20, 4
TIMES = 10  # evaluations and checkpoints of a run
EVALUATION_SHARE = 0.05  # of a run, for all its evaluations


@dataclass(frozen=True)
class Speed:
    """The speed of training a model of a preset; preset None: the shape is given."""

    preset: str | None
    parameters: int
    tokens_per_second: float

    def tokens_per_parameter(self, seconds: float, tokens_per_epoch: int | None) -> float:
        """Tokens that can be learned from in a time, for each parameter. Those of more than four passes over the text
        do not count. tokens_per_epoch None: the text has no end."""
        tokens = self.tokens_per_second * seconds
        return min(tokens, PASSES * tokens_per_epoch if tokens_per_epoch else tokens) / self.parameters

    def is_small(self, seconds: float, tokens_per_epoch: int | None) -> bool:
        """Whether a larger model may use the time better."""
        return self.tokens_per_parameter(seconds, tokens_per_epoch) > TOKENS_PER_PARAMETER


def choose(speeds: Sequence[Speed], seconds: float, tokens_per_epoch: int | None) -> Speed:
    """The size whose tokens for each parameter, in that time, are nearest to twenty, as a ratio."""

    def distance(speed: Speed) -> float:
        return abs(math.log(speed.tokens_per_parameter(seconds, tokens_per_epoch) / TOKENS_PER_PARAMETER))

    return min(speeds, key=distance)


def alike(steps: int, first: int = 0, last: int | None = None) -> int:
    """What the steps from `first` to before `last` (None: the end) of a run of so many cost, where each costs one."""
    return (steps if last is None else last) - first


@dataclass(frozen=True)
class Costs:
    """Measured seconds of the parts of a run; `evaluations`: their number where the interval is not given."""

    setup: float
    step: float
    evaluation: float
    checkpoint: float
    report: float
    evaluations: int = TIMES

    def with_few_evaluations(self, seconds: float) -> "Costs":
        """The same with as many evaluations as a twentieth of the time has room for, at least the one at the end."""
        room = int(EVALUATION_SHARE * seconds / self.evaluation)
        return replace(self, evaluations=max(1, min(TIMES, room)))

    def on_machine_with(self, step: float) -> "Costs":
        """The same on a machine with this time of a step; all other parts scale with it."""
        factor = step / self.step
        names = ("setup", "step", "evaluation", "checkpoint", "report")
        return replace(self, **{name: factor * getattr(self, name) for name in names})

    def seconds(
        self,
        steps: int,
        eval_steps: float | None,
        save_steps: float | None,
        done: int = 0,
        work: Callable[..., float] = alike,
    ) -> float:
        """Seconds of a run of `steps` steps, or of what is left after the first `done`, which needs no setup.

        Args:
            eval_steps: steps between evaluations, below 1 as a share of all; None: `evaluations` in the whole run. The
                end is evaluated in any case.
            save_steps: the same of checkpoints; None: ten of them.
            work: what the steps behind the first `done` of a run of so many cost, in measured steps, as `alike`.
        """
        evaluations = _times(steps, eval_steps, self.evaluations, done)
        checkpoints = _times(steps, save_steps, TIMES, done)
        repeated = evaluations * self.evaluation + checkpoints * self.checkpoint
        return (0 if done else self.setup) + work(steps, done) * self.step + repeated + self.report

    def steps_within(
        self,
        seconds: float,
        eval_steps: float | None,
        save_steps: float | None,
        done: int = 0,
        work: Callable[..., float] = alike,
    ) -> int:
        """The most steps, the first `done` among them, that take no longer; `done` where none more fits."""

        def fits(steps: int) -> bool:
            return self.seconds(steps, eval_steps, save_steps, done, work) <= seconds

        low, high = done, done + max(1, int(seconds / self.step)) + 1
        while fits(high):  # where what is left costs less than what was measured
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low


def _times(steps: int, every: float | None, times: int, done: int) -> int:
    """Count what happens every `every` steps and at the end, after the first `done` steps."""
    if every is None:
        every = -(-steps // times)
    every = math.ceil(every * steps) if every < 1 else every
    return math.ceil(steps / every) - int(done // every)
