"""Plain text in: which files can be read at all, lines out of compressed files, and documents out of .txt files."""

import codecs
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.files import GIT_LFS_ADVICE, is_git_lfs_pointer
from weft.recipes.data.compression import BROKEN, COMPRESSIONS, open_bytes

UTF_8, MARK_BYTES = "utf-8", "weft.mark_bytes"
_MARK = 0xDC00  # plus a byte: as Python's "surrogateescape", which encodings of several bytes do not obey
_SURROGATE = re.compile("[\ud800-\udfff]")
DOCUMENTS = ("blank-line", "line", "file")


def check_file(path: Path, formats: Sequence[str], kind: str = "text", content: str = "text") -> None:
    """Refuse a file that cannot be read, before any work is done.

    Args:
        kind: what to call such a file in messages.
        content: what to call its content.

    Raises:
        RecipeError: no such file, a folder, an empty file, a pointer of Git LFS, or an unknown format.
    """
    if not path.is_file():
        raise RecipeError(f"{path} is {'a folder' if path.is_dir() else 'missing'}: give the path of a {kind} file.")
    if path.stat().st_size == 0:
        raise RecipeError(f"{path} is empty: give a file with {content}, or leave it out.")
    if is_git_lfs_pointer(path):
        raise RecipeError(f"{path} is {GIT_LFS_ADVICE}.")
    if file_format(path) not in formats:
        raise RecipeError(
            f"{path} ends in {path.suffix!r}: files must end in {', '.join(formats)}, where all but .parquet may be "
            f"compressed ({' or '.join(COMPRESSIONS)})."
        )


def file_format(path: Path) -> str:
    """Return the ending that tells the format, without that of a compression."""
    return (Path(path.stem).suffix if path.suffix.lower() in COMPRESSIONS else path.suffix).lower()


def check_encoding(encoding: str | None) -> None:
    """Raise RecipeError if Python does not know an encoding of characters by that name."""
    what = f"encoding is {encoding!r}, which is no encoding of text"
    with refusing(what, LookupError, UnicodeError, advice="give for example gb18030, latin-1 or utf-16."):
        io.TextIOWrapper(io.BytesIO(), encoding=encoding or UTF_8).read()


def read_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield numbered lines with their line ends (\\r\\n becomes \\n), one by one, so that an error has a line.

    Args:
        encoding: how characters are written, as Python names it; None: UTF-8. A byte order mark is no part of the text.

    Raises:
        RecipeError: the file has bytes that are no characters, or is not a whole compressed file.
    """
    try:
        with io.TextIOWrapper(open_bytes(path), encoding or UTF_8, MARK_BYTES, newline="\n") as handle:
            for number, text in enumerate(handle, start=1):
                if number == 1:
                    text = text.removeprefix("\ufeff")
                if not text.isascii():
                    _refuse_marked(path, number, text, encoding)
                yield number, text[:-2] + "\n" if text.endswith("\r\n") else text
    except UnicodeError as error:
        raise RecipeError(f"{path} is not written in {encoding} ({error}): name another encoding.") from error
    except BROKEN as error:
        if path.suffix.lower() not in COMPRESSIONS:
            raise
        raise RecipeError(
            f"{path} is not a whole {path.suffix} file ({error}): compress it again, or rename it if it is no archive."
        ) from error


def _mark_byte(error: UnicodeError) -> tuple[str, int]:
    """Put half a surrogate pair, which no encoding gives, in the place of a byte that is part of no character."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return chr(_MARK + error.object[error.start]), error.start + 1


codecs.register_error(MARK_BYTES, _mark_byte)


def _refuse_marked(path: Path, line: int, text: str, encoding: str | None) -> None:
    """Raise RecipeError where a line has a byte that `_mark_byte` marked, or half a surrogate pair of its own."""
    found = _SURROGATE.search(text)
    if found is None:
        return
    code = ord(found.group()) - _MARK
    what = f"byte 0x{code:02x}" if 0 <= code < 256 else "half a surrogate pair"
    advice = "convert the file to UTF-8 (for example with iconv), or name its encoding where there is --encoding"
    if encoding is not None:
        advice = "name another encoding, or mend the file"
    elif line == 1 and found.start() == 0 and code in codecs.BOM_UTF16:
        advice = f"it begins as UTF-16 does; {advice}"
    raise RecipeError(
        f"{path}, line {line}: {what} at column {found.start() + 1} is not valid {encoding or 'UTF-8'}: {advice}."
    )


def read_text(path: Path, documents: str, encoding: str | None = None) -> Iterator[str]:
    """Yield the documents of a plain text file.

    Args:
        documents: "blank-line" (blank lines separate documents), "line" (each line that is not blank is one) or "file"
            (the file is one document).
        encoding: as `read_lines` takes it.

    Raises:
        RecipeError: as `read_lines`.
    """
    if documents == "file":
        yield "".join(text for _, text in read_lines(path, encoding))
        return
    if documents == "line":
        yield from (text.rstrip("\n") for _, text in read_lines(path, encoding) if text.strip())
        return
    lines: list[str] = []
    for _, text in read_lines(path, encoding):
        if text.strip():
            lines.append(text)
        elif lines:
            yield "".join(lines).rstrip("\n")
            lines = []
    if lines:
        yield "".join(lines).rstrip("\n")
