"""Records in: rows of CSV, TSV, JSON, JSON-lines and Parquet files or of a Hub data set, each with where it stands."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from weft.recipes.common.errors import RecipeError, first_line
from weft.recipes.data.text_files import BROKEN_COMPRESSION, check_file, file_format, read_lines

FORMATS = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")


class Record(NamedTuple):
    """A row: its values by column, and its place in words, such as "train.csv, line 7"."""

    values: dict[str, Any]
    where: str


def read_records(path: Path, header: Sequence[str] | None = None, broken: list[str] | None = None) -> Iterator[Record]:
    """The rows of one file, in order.

    Args:
        path: .csv (with quotes), .tsv or .txt (between tabs, no quotes, as GLUE has it), .jsonl, .json (an array of
            objects, an object with one such array, or an object a line) or .parquet; all but .parquet may be
            compressed (.gz, .zst).
        header: for .csv, .tsv and .txt: the names of the columns where the file's first line does not have them.
        broken: for .csv, .tsv and .txt: lines with too many or too few fields are left out, and what is wrong with
            them is added to this list; None: they are an error.

    Raises:
        RecipeError: the file is missing, empty, of another format, or broken; names the file and the line.
    """
    check_table(path)
    kind = file_format(path)
    try:
        if kind == ".parquet":
            yield from _read_parquet(path)
        elif kind == ".csv":
            yield from _read_csv(path, header, broken)
        elif kind in (".tsv", ".txt"):
            yield from _read_tsv(path, header, broken)
        else:
            yield from _read_json(path)
    except BROKEN_COMPRESSION as error:
        raise RecipeError(
            f"{path} is not a whole {path.suffix} file ({error}): compress it again, or rename it if it is no archive."
        ) from error


def check_table(path: Path, formats: Sequence[str] = FORMATS) -> None:
    """Refuse what cannot be read, before any work is done.

    Raises:
        RecipeError: no such file, a folder, an empty file, or a format that is not known.
    """
    check_file(path, formats, "data", "examples")


def read_hub_records(name: str, config_name: str | None, split: str) -> list[Record]:
    """The rows of a data set of the Hub, or of a folder that `datasets` can load; labels become their names.

    Raises:
        RecipeError: it cannot be loaded.
    """
    import datasets  # it takes long to import, and only data sets need it

    try:
        dataset = datasets.load_dataset(name, config_name, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise RecipeError(
            f"data set {name!r} (split {split!r}) cannot be loaded ({reason}): check its name and the network, or give "
            "local files."
        ) from error
    named = {column: feature for column, feature in dataset.features.items() if _label_feature(feature) is not None}

    def value_of(column: str, value: Any) -> Any:
        if column not in named or value is None:
            return value
        names = _label_feature(named[column])
        # -1 stands for a label that is kept secret
        return (
            [names.int2str(v) for v in value]
            if isinstance(value, list)
            else names.int2str(value)
            if value >= 0
            else None
        )

    return [
        Record({column: value_of(column, value) for column, value in row.items()}, f"{name}, {split}, row {number}")
        for number, row in enumerate(dataset)
    ]


def _label_feature(feature: Any) -> Any:
    """The ClassLabel of a column of labels, or of lists of labels; None for any other."""
    import datasets

    inner = getattr(feature, "feature", feature)
    return inner if isinstance(inner, datasets.ClassLabel) else None


def _read_csv(path: Path, header: Sequence[str] | None, broken: list[str] | None) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader((text for _, text in read_lines(path)), strict=True)
    names = list(header) if header is not None else None
    try:
        for values in reader:
            if not values:
                continue
            if names is None:
                names = _checked_header(path, values)
            else:
                yield from _records(path, reader.line_num, names, values, "fields", broken)
    except csv.Error as error:
        raise RecipeError(f"{path}, line {reader.line_num + 1}: not CSV from here on ({error}).") from error


def _read_tsv(path: Path, header: Sequence[str] | None, broken: list[str] | None) -> Iterator[Record]:
    names = list(header) if header is not None else None
    for number, text in read_lines(path):
        if not text.strip():
            continue
        values = text.rstrip("\n").split("\t")
        if names is None:
            names = _checked_header(path, values)
        else:
            yield from _records(path, number, names, values, "fields between tabs", broken)


def _checked_header(path: Path, names: list[str]) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RecipeError(f"{path}, line 1: the column {repeated[0]!r} is there more than once: name each once.")
    return names


def _records(
    path: Path, line: int, names: list[str], values: list[str], what: str, broken: list[str] | None
) -> Iterator[Record]:
    if len(values) == len(names):
        yield Record(dict(zip(names, values)), f"{path}, line {line}")
        return
    sentence = (
        f"{path}, line {line}: {len(values)} {what}, where {len(names)} are needed ({', '.join(names)}): mend the line."
    )
    if broken is None:
        raise RecipeError(sentence)
    broken.append(sentence)


def _read_json(path: Path) -> Iterator[Record]:
    """An object a line, or one value: an array of objects, or an object that holds one such array."""
    lines = [(number, text) for number, text in read_lines(path) if text.strip()]
    first = lines[0][1].strip() if lines else ""
    if first.startswith("[") or (len(lines) > 1 and first == "{") or _holds_array(lines):
        content = parse_json("".join(text for _, text in lines), str(path))
        arrays = [content] if isinstance(content, list) else [v for v in content.values() if isinstance(v, list)]
        if len(arrays) != 1:
            raise RecipeError(f"{path} holds {len(arrays)} arrays, where one array of objects is needed.")
        for number, values in enumerate(arrays[0], start=1):
            yield Record(_checked_object(values, f"{path}, entry {number}"), f"{path}, entry {number}")
        return
    for number, text in lines:
        where = f"{path}, line {number}"
        yield Record(_checked_object(parse_json(text, where), where), where)


def _holds_array(lines: list[tuple[int, str]]) -> bool:
    """Whether a file of one line is an object around an array of objects."""
    if len(lines) != 1:
        return False
    try:
        content = json.loads(lines[0][1])
    except (json.JSONDecodeError, RecursionError):
        return False
    arrays = [value for value in content.values() if isinstance(value, list)] if isinstance(content, dict) else []
    return len(arrays) == 1 and len(content) == 1 and all(isinstance(entry, dict) for entry in arrays[0])


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text; raises RecipeError that begins with `where`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise RecipeError(f"{where}: not JSON ({error.msg} at {place}).") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: nested too deeply.") from error


def _checked_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: a {type(value).__name__}, where an object is needed.")
    return value


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not a whole parquet file ({first_line(error)}).") from error
    for number, values in enumerate(rows):
        yield Record(values, f"{path}, row {number}")


def value_of(record: Record, column: str, option: str) -> Any:
    """A record's value in a column; raises RecipeError, with the columns that there are, where it has no such one.

    Args:
        option: the field with which the user names the column.
    """
    if column not in record.values:
        columns = ", ".join(map(str, record.values))
        raise RecipeError(f"{record.where}: no column {column!r}: there are {columns}; name it with --{option}.")
    return record.values[column]


def text_of(record: Record, column: str, option: str) -> str:
    """A record's text in a column; raises RecipeError where that is no text, or one of blanks only."""
    text = value_of(record, column, option)
    if not isinstance(text, str):
        kind = "null (None)" if text is None else type(text).__name__
        raise RecipeError(
            f"{record.where}: column {column!r} holds {kind}, where text is needed: mend or drop the row."
        )
    if not text.strip():
        raise RecipeError(f"{record.where}: the text in column {column!r} is empty: mend or drop the row.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"{record.where}: column {column!r} holds half of a surrogate pair (U+{ord(text[error.start]):04X}), which "
            "UTF-8 cannot: write the whole pair."
        ) from error
    return text
