"""What the reports of all tasks share: tables as CSV, and where a split's files are."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from weft.recipes.common.files import write_text


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
