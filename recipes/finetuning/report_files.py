"""What the reports of all tasks share: tables as CSV, where a split's files are, and which examples are shown."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from weft.recipes.common.files import write_text

T = TypeVar("T")


def evenly(values: Sequence[T], number: int) -> list[T]:
    """So many of the values, at equal distances; all where there are no more."""
    number = min(number, len(values))
    return [values[place * len(values) // number] for place in range(number)]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whole."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def place_of(folder: Path, split: str) -> str:
    """What the card puts before the name of a split's file: its folder, if it has one of its own."""
    return f"{split}/" if folder.name == split else ""
