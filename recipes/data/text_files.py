"""Text in: documents out of files of any of the usual formats, out of a Hub data set, or out of Python itself."""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import zstandard

from weft.recipes.common.errors import RecipeError, first_line

if TYPE_CHECKING:  # it takes long to import, and only data sets need it
    import datasets

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
BROKEN_COMPRESSION = (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError)


def read_documents(path: Path, text_column: str, documents: str) -> Iterator[str]:
    """The documents of one file, in order.

    Args:
        path: .txt, .jsonl, .json (one object per line too), .csv or .parquet; all but parquet may end in .gz or .zst.
        text_column: the field that holds the text, in all formats but .txt.
        documents: for .txt: "blank-line" (documents are separated by blank lines) or "file" (one per file).

    Raises:
        RecipeError: the file is missing, empty, of another format, or broken; names the file and the line.
    """
    check_file(path)
    kind = file_format(path)
    try:
        if kind == ".parquet":
            yield from _read_parquet(path, text_column)
        elif kind == ".csv":
            yield from _read_csv(path, text_column)
        elif kind == ".txt":
            yield from _read_text(path, documents)
        else:
            yield from _read_json_lines(path, text_column)
    except BROKEN_COMPRESSION as error:
        raise RecipeError(
            f"{path} is not a whole {path.suffix} file ({error}): compress it again, or rename it if it is no archive."
        ) from error


def check_file(path: Path, formats: Sequence[str] = FORMATS, kind: str = "text", content: str = "text") -> None:
    """Refuse what cannot be read, before any work is done.

    Args:
        formats: the endings that can be read.
        kind, content: what such a file is called, and what it holds, for messages.

    Raises:
        RecipeError: no such file, a folder, an empty file, or a format that is not known.
    """
    if not path.is_file():
        raise RecipeError(f"{path} is {'a folder' if path.is_dir() else 'missing'}: give the path of a {kind} file.")
    if path.stat().st_size == 0:
        raise RecipeError(f"{path} is empty: give a file with {content}, or leave it out.")
    if file_format(path) not in formats:
        raise RecipeError(
            f"{path} ends in {path.suffix!r}: files must end in {', '.join(formats)}, where all but .parquet may be "
            f"compressed ({' or '.join(COMPRESSIONS)})."
        )


def file_format(path: Path) -> str:
    """The ending that tells the format, without that of a compression."""
    return (Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix).lower()


def read_dataset(name: str, config_name: str | None, split: str, text_column: str) -> Iterator[str]:
    """The documents of a data set of the Hub (or of a folder that `datasets.load_dataset` can load), streamed.

    Raises:
        RecipeError: it cannot be loaded, or has no such column.
    """
    yield from read_examples(open_dataset(name, config_name, split), name, text_column)


def open_dataset(name: str, config_name: str | None, split: str) -> "datasets.IterableDataset":
    """A data set to be streamed; raises RecipeError where it cannot be loaded."""
    import datasets

    try:
        return datasets.load_dataset(name, config_name, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise RecipeError(f"data set {name!r} (split {split!r}) cannot be loaded ({reason}).") from error


def read_examples(
    dataset: "datasets.IterableDataset", name: str, text_column: str, first_row: int = 0
) -> Iterator[str]:
    """The documents of a data set from where it stands.

    Args:
        dataset: to be streamed.
        name: for messages.
        text_column: the field that holds the text.
        first_row: how many examples are behind.

    Raises:
        RecipeError: it cannot be read, or has no such column.
    """
    examples, row = iter(dataset), first_row
    while True:
        try:
            example = next(examples)
        except StopIteration:
            return
        except (OSError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            raise RecipeError(f"data set {name!r} cannot be read after {row} examples ({reason}).") from error
        yield _text_of(example, text_column, f"data set {name!r}, example {row}")
        row += 1


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstdStream(path), buffer_size=1 << 17)
    return path.open("rb")


class _ZstdStream(io.RawIOBase):
    """What a .zst file holds, over all its frames; zstandard's own stream takes a torn file for a whole one."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.frame: Any = None  # the frame that is being read
        self.compressed = b""
        self.plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Raises EOFError where the file ends inside a frame."""
        while not self.plain:
            chunk = self.compressed or self.file.read(1 << 14)
            if not chunk:
                if self.frame is not None:
                    raise EOFError("it ends in the middle")
                return 0
            self.frame = self.frame or zstandard.ZstdDecompressor().decompressobj()
            self.plain, self.compressed = memoryview(self.frame.decompress(chunk)), b""
            if self.frame.eof:
                self.compressed, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.plain))
        buffer[:count], self.plain = self.plain[:count], self.plain[count:]
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with their line ends (\\r\\n becomes \\n), decoded one by one so that an error has a line."""
    with _open(path) as handle:
        for number, line in enumerate(handle, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise RecipeError(
                    f"{path}, line {number}: byte 0x{line[error.start]:02x} at column {error.start + 1} is not valid "
                    "UTF-8: convert the file to UTF-8 (for example with iconv)."
                ) from error
            yield number, text[:-2] + "\n" if text.endswith("\r\n") else text


def _read_text(path: Path, documents: str) -> Iterator[str]:
    if documents == "file":
        yield "".join(text for _, text in read_lines(path))
        return
    lines: list[str] = []
    for _, text in read_lines(path):
        if text.strip():
            lines.append(text)
        elif lines:
            yield "".join(lines).rstrip("\n")
            lines = []
    if lines:
        yield "".join(lines).rstrip("\n")


def _read_json_lines(path: Path, text_column: str) -> Iterator[str]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecipeError(
                f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}): each line must be one object."
            ) from error
        except RecursionError as error:
            raise RecipeError(f"{path}, line {number}: nested too deeply.") from error
        if not isinstance(record, dict):
            raise RecipeError(f"{path}, line {number}: a {type(record).__name__}, where an object is needed.")
        yield _text_of(record, text_column, f"{path}, line {number}")


def _read_csv(path: Path, text_column: str) -> Iterator[str]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader((text for _, text in read_lines(path)), strict=True)
    try:
        for record in reader:
            yield _text_of(record, text_column, f"{path}, line {reader.line_num}")
    except csv.Error as error:
        raise RecipeError(f"{path}, line {reader.line_num + 1}: not CSV from here on ({error}).") from error


def _read_parquet(path: Path, text_column: str) -> Iterator[str]:
    try:
        table = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise RecipeError(f"{path} is not a parquet file ({first_line(error)}).") from error
    names = table.schema_arrow.names
    if text_column not in names:
        _text_of(dict.fromkeys(names), text_column, str(path))
    batches, row = table.iter_batches(batch_size=1024, columns=[text_column]), 0
    while True:
        try:
            texts = next(batches).column(0).to_pylist()
        except StopIteration:
            return
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = first_line(error)
            raise RecipeError(f"{path} is broken after row {row} ({reason}): write it again.") from error
        for text in texts:
            yield _text_of({text_column: text}, text_column, f"{path}, row {row}")
            row += 1


def _text_of(record: dict[str, Any], text_column: str, where: str) -> str:
    if text_column not in record:
        columns = ", ".join(str(name) for name in record)
        raise RecipeError(f"{where}: no column {text_column!r}: there are {columns}; name one with --text_column.")
    text = record[text_column]
    if not isinstance(text, str):
        raise RecipeError(f"{where}: column {text_column!r} holds {type(text).__name__}, where text is needed.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecipeError(
            f"{where}: column {text_column!r} holds half of a surrogate pair (U+{ord(text[error.start]):04X}), which "
            "UTF-8 cannot: write the whole pair."
        ) from error
    return text
