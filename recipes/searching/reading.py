"""Texts in: what a search reads, in stretches that know where in their source they stand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from weft.recipes.data import builtin_text
from weft.recipes.data.file_names import check_name
from weft.recipes.data.tables import Record, read_records
from weft.recipes.data.text_columns import documents_of_column
from weft.recipes.data.text_files import check_file, file_format, read_lines
from weft.recipes.data.text_source import FORMATS as OF_RECIPES
from weft.recipes.data.text_source import BuiltinText, SourceArguments, TextFile, TextSource, expand_names

PLAIN = (".txt", ".md", ".rst")
FORMATS = (*PLAIN, *(ending for ending in OF_RECIPES if ending not in PLAIN))
ENOUGH, MOST = 20_000, 200_000  # characters of a stretch: it ends at the next blank line, or at the next line
PAGE_END = "\f"


class Stretch(NamedTuple):
    """A part of a source, which passages are cut from.

    Attributes:
        title: what it is about, where its source has a name for that; it becomes a part of every passage.
        line: number of its first line; 0: its source has no lines.
        page: number of its page in a file with form feeds, as `pdftotext` writes them; 1 in any other.
        record: its place in a source of records, in words such as "row 7".
    """

    text: str
    title: str = ""
    line: int = 0
    page: int = 1
    record: str = ""


def open_sources(names: Sequence[str], index: Path, text_column: str, encoding: str | None) -> list[TextSource]:
    """Return the sources that names stand for; none: the text that Python itself carries.

    Empty files of folders and patterns are left out, as are the index's own.

    Raises:
        RecipeError: one cannot be read; says why.
    """
    if not names:
        return SourceArguments(text_column=text_column, encoding=encoding).sources()
    found = [
        name
        for name in dict.fromkeys(expand_names("texts", names, FORMATS))
        if name in names or not _is_passed_over(Path(name), index)
    ]
    arguments = SourceArguments(found or list(names), text_column=text_column, encoding=encoding)
    arguments.check()
    for source in (sources := arguments.sources()):
        if isinstance(source, TextFile):
            check_name(source.name, FORMATS)
            check_file(Path(source.name), FORMATS)
        else:
            source.check()
    return sources


def _is_passed_over(path: Path, index: Path) -> bool:
    return path.is_file() and (path.stat().st_size == 0 or index.resolve() in path.resolve().parents)


def read_stretches(source: TextSource) -> Iterator[Stretch]:
    """Yield the text of a source in order (raises RecipeError: it is broken; names the place)."""
    if isinstance(source, BuiltinText):
        yield from _read_builtin()
    elif not isinstance(source, TextFile):
        yield from (Stretch(text, record=f"document {number}") for number, text in enumerate(source.read(), start=1))
    elif file_format(Path(source.name)) in PLAIN:
        yield from _read_plain(Path(source.name), source.encoding)
    else:
        yield from _read_table(source)


def _read_builtin() -> Iterator[Stretch]:
    for name in sorted(builtin_text.topics):
        yield Stretch(builtin_text.topics[name], title=f"topic {name}", record=f"topic {name}")
    for each in builtin_text.embedded_definitions():
        title = f"{each.name.rpartition('.')[0]}.{each.call}" if each.call else each.name
        yield Stretch(each.docstring, title=title, record=each.name)


def _read_plain(path: Path, encoding: str | None) -> Iterator[Stretch]:
    lines: list[str] = []
    size, first, page = 0, 1, 1
    for number, text in read_lines(path, encoding):
        pages = text.count(PAGE_END)
        if pages or size >= MOST or (size >= ENOUGH and not text.strip()):
            yield Stretch("".join(lines), line=first, page=page)
            lines, size, first, page = [], 0, number, page + pages
        lines.append(text.replace(PAGE_END, ""))
        size += len(text)
    yield Stretch("".join(lines), line=first, page=page)


def _read_table(source: TextSource) -> Iterator[Stretch]:
    path, places = Path(source.name), [""]

    def followed() -> Iterator[Record]:
        for record in read_records(path, text_column=source.text_column, encoding=source.encoding):
            places[0] = record.where.removeprefix(source.name).lstrip(", ")
            yield record

    for text in documents_of_column(followed(), source.text_column, source.name):
        yield Stretch(text.replace("\r\n", "\n"), record=places[0])
