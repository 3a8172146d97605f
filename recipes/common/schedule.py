"""A number that depends on the step of a run: constant, in stages, or in straight lines."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from weft.recipes.common.errors import RecipeError

FORM = "VALUE@LENGTH,...,VALUE with lengths in steps (below 1: as shares of all), such as 0.3@0.5,0.15@0.4,0.05"


@dataclass(frozen=True)
class Stage:
    """Steps in which a value goes from `first` to `last` in a straight line.

    Attributes:
        length: how many; below 1: a share of all steps; None: those that are left.
    """

    first: float
    last: float
    length: float | None = None

    def at(self, place: int | np.ndarray, steps: int) -> float | np.ndarray:
        """The value at a step of the stage, or at several, where it has `steps` of them."""
        return self.first + (self.last - self.first) * place / max(steps - 1, 1)


@dataclass(frozen=True)
class Schedule:
    """Stages one after another; only the last has no length of its own.

    Raises:
        ValueError: the lengths leave nothing for the last one.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if self._lengths()[0] >= 1:
            raise ValueError("the stages before the last take all steps: give shares that sum to less than 1")

    @classmethod
    def line(cls, first: float, last: float) -> "Schedule":
        """From one value at the first step to the other at the last."""
        return cls((Stage(first, last),))

    def after(self, value: float, length: float) -> "Schedule":
        """The same behind a stage of one value; of no length, there is none."""
        return Schedule((Stage(value, value, length), *self.stages)) if length else self

    @property
    def values(self) -> list[float]:
        """The values at both ends of each stage."""
        return [value for stage in self.stages for value in (stage.first, stage.last)]

    @property
    def final(self) -> float:
        """The value at the last step."""
        return self.stages[-1].last

    @property
    def is_constant(self) -> bool:
        return len(set(self.values)) == 1

    @property
    def has_lines(self) -> bool:
        """Whether a value changes within a stage."""
        return any(stage.first != stage.last for stage in self.stages)

    def spans(self, steps: int) -> list[tuple[Stage, int, int]]:
        """The stages that have a step in a run of `steps`, each with its first step and the one behind its last."""
        ends = [0]
        for number in range(1, len(self.stages)):
            share, count = self._lengths(number)
            ends.append(min(steps, round(share * steps) + count))
        return [each for each in zip(self.stages, ends, [*ends[1:], steps]) if each[1] < each[2]]

    def at(self, step: int, steps: int) -> float:
        """The value at a step, counted from 0, of a run of `steps`; beyond its end the last one."""
        step = min(step, steps - 1)
        stage, begin, end = next(span for span in self.spans(steps) if step < span[2])
        return stage.at(step - begin, end - begin)

    def at_all(self, places: np.ndarray, steps: int) -> np.ndarray:
        """The values at these steps of a run of `steps` [places]."""
        values = np.empty(len(places))
        for stage, begin, end in self.spans(steps):
            inside = (places >= begin) & (places < end)
            values[inside] = stage.at(places[inside] - begin, end - begin)
        return values

    def edges(self, steps: int) -> set[int]:
        """The first and the last step of each stage of a run."""
        return {step for _, begin, end in self.spans(steps) for step in (begin, end - 1)}

    def min_steps(self) -> int:
        """The shortest run that reaches the last stage, as far as lengths are numbers of steps."""
        share, number = self._lengths()
        return math.ceil((number + 1) / (1 - share)) if number else 1

    def check_length(self, name: str, steps: int) -> None:
        """Refuse a run that ends before the last stage (raises RecipeError); `name`: the field's."""
        if steps < self.min_steps():
            raise RecipeError(
                f"{name} has stages before its last that are as long as the whole run of {steps} steps: give shorter "
                "ones, or shares of all steps (below 1)."
            )

    def describe(self, say: Callable[[float], str], steps: int) -> str:
        """The stages of a run in words."""
        said = []
        for stage, _, end in self.spans(steps):
            values = dict.fromkeys((say(stage.first), say(stage.last)))
            said.append(" to ".join(values) + (f" until step {end:,}" if end < steps else ""))
        return ", then ".join(said)

    def _lengths(self, number: int | None = None) -> tuple[float, int]:
        """The lengths of the first stages (None: of all but the last) added up: shares, and numbers of steps."""
        lengths = [stage.length for stage in self.stages[:-1]][:number]
        return sum(each for each in lengths if each < 1), sum(int(each) for each in lengths if each >= 1)


@lru_cache(maxsize=1024)
def read_schedule(given: float | str) -> Schedule:
    """Read a number, or stages as `FORM` has them, where A..B is a straight line from A to B.

    Raises:
        ValueError: it is neither; says what is wrong with it.
    """
    if not isinstance(given, str):
        return Schedule.line(given, given)
    stages, words = [], [word for word in re.split(r"[,\s]+", given) if word]
    for word in words:
        values, at, length = word.partition("@")
        first, line, last = values.partition("..")
        try:
            stage = Stage(float(first), float(last if line else first), float(length) if at else None)
        except ValueError:
            raise ValueError(f"{word!r} is no stage: give {FORM}") from None
        is_length = stage.length is None or 0 < stage.length < 1 or stage.length % 1 == 0 < stage.length < math.inf
        if not is_length:
            raise ValueError(f"{word!r} has no length of a stage: give {FORM}")
        stages.append(stage)
    if not stages or [stage.length is None for stage in stages] != [False] * (len(stages) - 1) + [True]:
        raise ValueError(f"every stage but the last needs a length: give {FORM}")
    return Schedule(tuple(stages))


def number_or_stages(text: str) -> float | str:
    """Read a word of a command line: a number, or the text of stages as it is."""
    try:
        return float(text)
    except ValueError:
        return text
