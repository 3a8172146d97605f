"""Plain text in: which files can be read at all, lines out of compressed files, and documents out of .txt files."""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.compression import BROKEN, COMPRESSIONS, open_bytes

DOCUMENTS = ("blank-line", "line", "file")


def check_file(path: Path, formats: Sequence[str], kind: str = "text", content: str = "text") -> None:
    """Refuse a file that cannot be read, before any work is done.

    Args:
        kind: what to call such a file in messages.
        content: what to call its content.

    Raises:
        RecipeError: no such file, a folder, an empty file, or an unknown format.
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
    """Return the ending that tells the format, without that of a compression."""
    return (Path(path.stem).suffix if path.suffix.lower() in COMPRESSIONS else path.suffix).lower()


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines with their line ends (\\r\\n becomes \\n), one by one, so that an error has a line.

    Raises:
        RecipeError: the file is not UTF-8, or not a whole compressed file.
    """
    try:
        with open_bytes(path) as handle:
            for number, line in enumerate(handle, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise RecipeError(
                        f"{path}, line {number}: byte 0x{line[error.start]:02x} at column {error.start + 1} is not "
                        "valid UTF-8: convert the file to UTF-8 (for example with iconv)."
                    ) from error
                yield number, text[:-2] + "\n" if text.endswith("\r\n") else text
    except BROKEN as error:
        if path.suffix.lower() not in COMPRESSIONS:
            raise
        raise RecipeError(
            f"{path} is not a whole {path.suffix} file ({error}): compress it again, or rename it if it is no archive."
        ) from error


def read_text(path: Path, documents: str) -> Iterator[str]:
    """Yield the documents of a plain text file.

    Args:
        documents: "blank-line" (blank lines separate documents), "line" (each line that is not blank is one) or "file"
            (the file is one document).

    Raises:
        RecipeError: as `read_lines`.
    """
    if documents == "file":
        yield "".join(text for _, text in read_lines(path))
        return
    if documents == "line":
        yield from (text.rstrip("\n") for _, text in read_lines(path) if text.strip())
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
