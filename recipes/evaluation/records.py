"""Examples of evaluation tasks: files of JSON lines, each line one object, checked before any work is done."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.data import tables
from weft.recipes.data.text_files import file_format

SUFFIXES = (".jsonl", ".json")


def read_records(path: Path, limit: int | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with where it stands ("file, line n") for messages.

    Args:
        path: .jsonl or .json (one object a line, or an array of them), also .gz or .zst.
        limit: the first so many only.

    Raises:
        RecipeError: the file is missing, empty or of another format, or a line is no object; names file and line.
    """
    tables.check_table(path)
    if file_format(path) not in SUFFIXES:
        raise RecipeError(f"{path} is not a file of JSON lines (.jsonl): its task needs one object a line.")
    found = False
    for record in islice(tables.read_records(path), limit):
        found = True
        yield record.where, record.values
    if not found:
        raise RecipeError(f"{path} holds no object: write one on each line.")


def value_of(record: dict[str, Any], names: tuple[str, ...], kind: type, where: str) -> Any:
    """The first field of these names that there is.

    Raises:
        RecipeError: there is none, it is not of this kind, or it is an empty text.
    """
    name = next((name for name in names if name in record), None)
    if name is None:
        raise RecipeError(
            f"{where}: no field {' or '.join(map(repr, names))}: there are {', '.join(map(str, record)) or 'none'}."
        )
    value = record[name]
    if not isinstance(value, kind):
        raise RecipeError(f"{where}: field {name!r} holds {type(value).__name__}, where {kind.__name__} is needed.")
    if value == "":
        raise RecipeError(f"{where}: field {name!r} is empty.")
    return value
