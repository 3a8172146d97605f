"""Several sources in one corpus: the files that form each, and the passes of an epoch over its text."""

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import some_of

ALL, REST = "all", "rest"
MOST_SOURCES = 1 << 16  # a corpus keeps the source of a document in two bytes


@dataclass(frozen=True)
class Source:
    """A part of the training text.

    Attributes:
        name: the pattern that its files match, "rest" for the files of none, "all" without patterns.
        weight: number of passes of an epoch over its text: 2 twice, 0.5 over half of it.
    """

    name: str
    weight: float = 1.0


def assign_sources(paths: Sequence[str], weights: Sequence[str]) -> tuple[list[Source], list[int]]:
    """Divide a list of files into sources.

    Args:
        paths: the files, as given.
        weights: PATTERN=WEIGHT each; a pattern is a part of a path, or a glob that matches the whole of it. The files
            of one pattern form one source. Files without a pattern form the source "rest" with weight 1. Without any
            weights, all files form the source "all".

    Returns:
        The sources, in the order of the patterns and the rest last, and the source of each file, as its index.

    Raises:
        RecipeError: not PATTERN=WEIGHT, a weight that is not a positive number, a pattern that matches no file, a
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


def _parse(entry: str) -> Source:
    pattern, _, number = entry.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not pattern or not 0 < weight < math.inf:
        raise RecipeError(
            f"source_weights: {entry!r} is not PATTERN=WEIGHT with a weight above 0: give for example books=2 or "
            "'data/wiki*=0.5'."
        )
    return Source(pattern, weight)


def _matches(path: str, pattern: str) -> bool:
    return pattern in path or fnmatch.fnmatchcase(path, pattern)
