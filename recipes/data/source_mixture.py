"""Several sources in one corpus: the files that form each, and the passes of an epoch over its text."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.schedule import Schedule, number_or_stages, read_schedule
from weft.recipes.common.wording import some_of

ALL, REST = "all", "rest"
MOST_SOURCES = 1 << 16  # a corpus keeps the source of a document in two bytes


@dataclass(frozen=True)
class Source:
    """A part of the training text.

    Attributes:
        name: the pattern that its files match, "rest" for the files of none, "all" without patterns.
        weight: number of passes of an epoch over its text: 2 twice, 0.5 over half of it; or the text of stages of a
            run in which it changes (`read_schedule`).
    """

    name: str
    weight: float | str = 1.0


@dataclass(frozen=True)
class SourceMixture:
    """How often an epoch passes over each source, by the step of a run.

    What an epoch takes of the sources may be flattened by a temperature: parts of n tokens become proportional to
    n ** temperature, so that 1 leaves them as they are and 0 makes them equal (mBERT; XLM-R,
    https://huggingface.co/papers/1911.02116; in stages mmBERT, https://huggingface.co/papers/2509.06888). Epochs are
    equally long in all stages.

    Attributes:
        weights: of each source.
        temperature: constant in each stage, as the weights are.
    """

    weights: tuple[Schedule, ...]
    temperature: Schedule

    @classmethod
    def of(cls, sources: Sequence[Source], temperature: float | str = 1.0) -> Self:
        """The mixture of sources with their weights."""
        return cls(tuple(read_schedule(source.weight) for source in sources), read_schedule(temperature))

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """All that may change."""
        return (*self.weights, self.temperature)

    @property
    def is_constant(self) -> bool:
        return all(schedule.is_constant for schedule in self.schedules)

    def min_steps(self) -> int:
        """The shortest run that reaches the last stage."""
        return max(schedule.min_steps() for schedule in self.schedules)

    def starts(self, steps: int) -> list[int]:
        """The first step of each stage of a run of so many."""
        return sorted({begin for schedule in self.schedules for _, begin, _ in schedule.spans(steps)})

    def passes(self, sizes: Sequence[int], step: int | None = None, steps: int = 1) -> list[float]:
        """Passes of an epoch over sources of these sizes at a step of a run of so many (None: in the first stage)."""
        tokens = np.array(sizes, dtype=np.float64)
        first = self._flatten(tokens, [schedule.values[0] for schedule in self.schedules])
        if step is None:
            return first
        passes = self._flatten(tokens, [schedule.at(step, steps) for schedule in self.schedules])
        longer = (tokens @ passes) / (tokens @ first) if tokens @ first else 0
        return [_rounded(each / longer) if longer else 0.0 for each in passes]

    @staticmethod
    def _flatten(tokens: np.ndarray, values: Sequence[float]) -> list[float]:
        """The passes for the weights and the temperature of a stage."""
        *weights, temperature = values
        parts = tokens * weights
        if temperature == 1 or not parts.any():
            return weights
        flat = np.where(parts > 0, parts**temperature, 0)
        return [_rounded(each) for each in flat * (parts.sum() / flat.sum()) / np.maximum(tokens, 1)]


def _rounded(passes: float) -> float:
    """The same on every machine, whose powers differ in the last digit."""
    return float(f"{passes:.12g}")


def assign_sources(paths: Sequence[str], weights: Sequence[str]) -> tuple[list[Source], list[int]]:
    """Divide a list of files into sources.

    Args:
        paths: the files, as given.
        weights: PATTERN=WEIGHT each; a pattern is a part of a path, or a glob that matches the whole of it. The files
            of one pattern form one source. Files without a pattern form the source "rest" with weight 1. Without any
            weights, all files form the source "all". A weight may be stages (`read_schedule`).

    Returns:
        The sources, in the order of the patterns and the rest last, and the source of each file, as its index.

    Raises:
        RecipeError: not PATTERN=WEIGHT, a weight that is never a positive number, a pattern that matches no file, a
            file that two patterns match, or more sources than a corpus can hold.
    """
    if not weights:
        return [Source(ALL)], [0] * len(paths)
    sources = [_parse(entry) for entry in weights]
    if len(sources) >= MOST_SOURCES:
        raise RecipeError(f"source_weights names {len(sources):,} sources: a corpus holds fewer than {MOST_SOURCES:,}.")
    source_of = []
    for path in paths:
        matching = [index for index, source in enumerate(sources) if _matches(path, source.name)]
        if len(matching) > 1:
            names = " and ".join(repr(sources[index].name) for index in matching[:2])
            raise RecipeError(f"source_weights: {path} matches {names}: make the patterns exclude each other.")
        source_of.append(matching[0] if matching else len(sources))
    for index, source in enumerate(sources):
        if index not in source_of:
            raise RecipeError(f"source_weights: {source.name!r} matches none of train_files: {some_of(paths)}.")
    return ([*sources, Source(REST)] if len(sources) in source_of else sources), source_of


def number_of_validation_file(place: int) -> int:
    """The number that a corpus keeps for documents of the validation file in this place; beyond its two bytes, one."""
    return min(place, MOST_SOURCES - 1)


def with_weights(sources: Sequence[Source], weights: Sequence[str], folder: Path) -> list[Source]:
    """The sources of a prepared folder with other weights, given as NAME=WEIGHT for some of them.

    Raises:
        RecipeError: there is no source of that name.
    """
    given = {source.name: source for source in map(_parse, weights)}
    names = [source.name for source in sources]
    for name in given:
        if name not in names:
            raise RecipeError(f"source_weights: {folder} has no source {name!r}: give weights for {some_of(names)}.")
    return [given.get(source.name, source) for source in sources]


def _parse(entry: str) -> Source:
    pattern, _, text = entry.rpartition("=")
    try:
        weight = number_or_stages(text)
        schedule = read_schedule(weight)
        is_right = not schedule.has_lines and all(0 <= value < float("inf") for value in schedule.values)
        is_right = is_right and any(schedule.values)
    except ValueError:
        is_right = False
    if not pattern or not is_right:
        raise RecipeError(
            f"source_weights: {entry!r} is not PATTERN=WEIGHT with a weight above 0: give for example books=2, "
            "'data/wiki*=0.5', or stages, as books=0@0.9,2."
        )
    return Source(pattern, weight)


def _matches(path: str, pattern: str) -> bool:
    return pattern in path or fnmatch.fnmatchcase(path, pattern)
