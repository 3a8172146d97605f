"""Examples of evaluation tasks: the objects of a JSON file, and their fields, checked before any work is done."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.tables import Record, check_table, read_records
from weft.recipes.data.text_files import file_format


def read_examples(path: Path, limit: int | None = None) -> Iterator[Record]:
    """Yield the objects of a .jsonl or .json file, or the first `limit` of them.

    Raises:
        RecipeError: the file is broken, of another format, or holds no object; names file and line.
    """
    check_table(path)
    if file_format(path) not in (".jsonl", ".json"):
        raise RecipeError(f"{path} is not a file of JSON lines (.jsonl): its task needs one object a line.")
    record = None
    for record in islice(read_records(path), limit):
        yield record
    if record is None:
        raise RecipeError(f"{path} holds no object: write one on each line.")


def field_of(record: Record, *names: str, kind: type = str) -> Any:
    """Return the first field of these names that the record has.

    Raises:
        RecipeError: it has none of them, or one that is of another kind or an empty text.
    """
    values, where = record
    name = next((name for name in names if name in values), None)
    if name is None:
        raise RecipeError(
            f"{where}: no field {' or '.join(map(repr, names))}: there are {', '.join(map(str, values)) or 'none'}."
        )
    value = values[name]
    if not isinstance(value, kind):
        raise RecipeError(f"{where}: field {name!r} holds {type(value).__name__}, where {kind.__name__} is needed.")
    if value == "":
        raise RecipeError(f"{where}: field {name!r} is empty.")
    return value
