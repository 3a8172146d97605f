"""Tables in: rows of CSV, TSV, JSON, JSON Lines and Parquet files, each with its place."""

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.wording import counted
from weft.recipes.data.class_names import classes_only, features_of, with_class_names
from weft.recipes.data.json_values import parse_json, refuse_halves
from weft.recipes.data.text_files import check_file, file_format, read_lines

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")
BROKEN = (pyarrow.ArrowException, OSError, UnicodeDecodeError)  # what reading a Parquet file raises
ROWS_AT_ONCE, BYTES_AT_ONCE = 1024, 1 << 20  # of a Parquet file; by default pyarrow keeps all of it in memory


class Record(NamedTuple):
    """A row: its values by column, and its place in words, such as "train.csv, line 7"."""

    values: dict[str, Any]
    where: str


def read_records(
    path: Path,
    header: Sequence[str] | None = None,
    broken: list[str] | None = None,
    text_column: str | None = None,
    encoding: str | None = None,
) -> Iterator[Record]:
    """Yield the rows of one file in order, without holding the file in memory (but for a JSON array).

    Args:
        path: .csv (with quotes), .tsv or .txt (between tabs, no quotes, as GLUE has it), .jsonl, .json (an array of
            objects, an object with one such array, or an object a line) or .parquet; all but .parquet may be
            compressed (.gz, .zst).
        header: for .csv, .tsv and .txt: the names of the columns, if the file's first line does not have them.
        broken: for .csv, .tsv and .txt: a list to which the faults of lines with too many or too few fields are added;
            such lines are left out. None: they are an error.
        text_column: for .parquet: the only column to read. None: all of them.
        encoding: of all but .parquet. None: UTF-8.

    Raises:
        RecipeError: the file is missing, empty, of another format, or broken; names the file and the line.
    """
    check_table(path)
    kind = file_format(path)
    if kind == ".parquet":
        yield from _read_parquet(path, text_column)
    elif kind in (".json", ".jsonl"):
        yield from _read_json(path, encoding)
    else:
        rows = (_csv_fields if kind == ".csv" else _tsv_fields)(path, encoding)
        yield from _read_fields(path, rows, header, broken, "" if kind == ".csv" else " between tabs")


def check_table(path: Path, formats: Sequence[str] = FORMATS) -> None:
    """Refuse a file that cannot be read, before any work is done.

    Raises:
        RecipeError: no such file, a folder, an empty file, or an unknown format.
    """
    check_file(path, formats, "data", "examples")


def _read_fields(
    path: Path,
    rows: Iterable[tuple[int, list[str]]],
    header: Sequence[str] | None,
    broken: list[str] | None,
    between: str,
) -> Iterator[Record]:
    """Yield rows of fields as records; the first row names the columns unless `header` does."""
    names = None if header is None else list(header)
    for line, values in rows:
        if names is None:
            names = values
            _refuse_repeated(names, f"{path}, line 1")
        elif len(values) == len(names):
            yield Record(dict(zip(names, values)), f"{path}, line {line}")
        else:
            fault = (
                f"{path}, line {line}: {counted(len(values), 'field')}{between}, where {len(names)} are "
                f"needed ({', '.join(names)}): mend the line."
            )
            if broken is None:
                raise RecipeError(fault)
            broken.append(fault)


def _csv_fields(path: Path, encoding: str | None) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(sys.maxsize)
    reader, line = csv.reader((text for _, text in read_lines(path, encoding)), strict=True), 0
    try:
        for values in reader:
            line = reader.line_num
            if values:
                yield line, values
    except csv.Error as error:
        raise RecipeError(f"{path}, line {line + 1}: not CSV from here on ({error}).") from error


def _tsv_fields(path: Path, encoding: str | None) -> Iterator[tuple[int, list[str]]]:
    return ((number, text.rstrip("\n").split("\t")) for number, text in read_lines(path, encoding) if text.strip())


def _read_json(path: Path, encoding: str | None) -> Iterator[Record]:
    """Yield an object a line, or the objects of an array that the whole file holds, which is kept in memory."""
    lines = ((number, text) for number, text in read_lines(path, encoding) if text.strip())
    first = list(itertools.islice(lines, 2))
    if first and (first[0][1].lstrip().startswith("[") or (len(first) == 2 and _opens_object(path, first[0][1]))):
        where = f"{path}, line {first[0][0]}" if len(first) == 1 else str(path)
        yield from _entries(path, parse_json("".join(text for _, text in read_lines(path, encoding)), where))
        return
    for number, text in itertools.chain(first, lines):
        where = f"{path}, line {number}"
        values = parse_json(text, where)
        if len(first) == 1 and _is_around_array(values):
            yield from _entries(path, values)
        else:
            yield Record(_checked_object(values, where), where)


def _entries(path: Path, content: Any) -> Iterator[Record]:
    """Yield the objects of an array, or of the one array within an object, or an object without any."""
    arrays = [content] if isinstance(content, list) else _arrays_of_objects(content)
    if not arrays:
        yield Record(content, str(path))
        return
    if len(arrays) > 1:
        raise RecipeError(f"{path} holds {counted(len(arrays), 'array')}, where one array of objects is needed.")
    for number, values in enumerate(arrays[0], start=1):
        where = f"{path}, entry {number}"
        yield Record(_checked_object(values, where), where)


def _opens_object(path: Path, line: str) -> bool:
    """Tell whether the first line of a file begins an object that goes on in the next one."""
    if line.strip() == "{":
        return True
    if file_format(path) != ".json" or not line.lstrip().startswith("{"):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _is_around_array(content: Any) -> bool:
    """Tell whether a value is an object that holds an array of objects and nothing else."""
    return isinstance(content, dict) and len(content) == len(_arrays_of_objects(content)) == 1


def _arrays_of_objects(content: dict[str, Any]) -> list[list[Any]]:
    lists = [value for value in content.values() if isinstance(value, list) and value]
    return [entries for entries in lists if all(isinstance(entry, dict) for entry in entries)]


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RecipeError(f"{where}: the column {repeated[0]!r} is there more than once: name each once.")


def _checked_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: a {type(value).__name__}, where an object is needed.")
    return value


def _read_parquet(path: Path, text_column: str | None) -> Iterator[Record]:
    with refusing(f"{path} is not a parquet file", *BROKEN, advice="write it again."):
        table = pyarrow.parquet.ParquetFile(path, buffer_size=BYTES_AT_ONCE, pre_buffer=False)
    _refuse_repeated(table.schema_arrow.names, str(path))
    if text_column is not None:
        value_of(Record(_columns_of(table.schema_arrow), str(path)), text_column, "text_column")
    features = classes_only(features_of(table.schema_arrow))
    batches = table.iter_batches(ROWS_AT_ONCE, columns=None if text_column is None else [text_column])
    row, batch = 0, True
    while batch is not None:
        with refusing(f"{path} is broken after row {row}", *BROKEN, advice="write it again."):
            batch = next(batches, None)
            rows = [] if batch is None else batch.to_pylist()
        for number, values in enumerate(rows, start=row):
            where = f"{path}, row {number}"
            yield Record(with_class_names(values, features, where) if features else values, where)
        row += len(rows)


def _columns_of(fields: Iterable[pyarrow.Field]) -> dict[str, Any]:
    """Map the columns of a Parquet file to None, those with columns of their own to such a mapping."""
    return {f.name: _columns_of(f.type) if isinstance(f.type, pyarrow.StructType) else None for f in fields}


def value_of(record: Record, column: str, option: str) -> Any:
    """Return a record's value in a column; raises RecipeError, with the columns that there are, if it has no such one.

    Args:
        column: its name; outer.inner names the value `inner` of the object in column `outer`, None where that is null.
        option: the field with which the user names the column.
    """
    outer, _, inner = column.partition(".")
    within = record.values.get(outer) if column not in record.values and inner else None
    if isinstance(within, dict):
        return value_of(Record(within, f"{record.where}, column {outer!r}"), inner, option)
    if column not in record.values and not (inner and outer in record.values and within is None):
        columns = ", ".join(map(str, record.values))
        raise RecipeError(f"{record.where}: no column {column!r}: there are {columns}; name it with --{option}.")
    value = record.values.get(column)
    refuse_halves(value, f"{record.where}: column {column!r}")
    return value


def value_or_none(record: Record, column: str) -> Any:
    """Return what `value_of` does, or None if the record has no such column."""
    try:
        return value_of(record, column, column)
    except RecipeError:
        return None


def text_of(record: Record, column: str, option: str, may_be_blank: bool = False) -> str:
    """Return a record's text in a column; raises RecipeError if it is no text, or a blank one that may not be."""
    text = value_of(record, column, option)
    if not isinstance(text, str):
        kind = "null (None)" if text is None else type(text).__name__
        raise RecipeError(
            f"{record.where}: column {column!r} holds {kind}, where text is needed: mend or drop the row."
        )
    if not may_be_blank and not text.strip():
        raise RecipeError(f"{record.where}: the text in column {column!r} is empty: mend or drop the row.")
    return text
