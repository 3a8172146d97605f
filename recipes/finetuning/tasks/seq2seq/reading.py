"""Pairs of a source and its target texts, out of parallel lines or of columns, each with where it stands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.tables import Record, read_records, text_of, value_of
from weft.recipes.data.text_files import file_format, read_lines
from weft.recipes.finetuning.tasks.seq2seq.arguments import Seq2SeqArguments, check_lines
from weft.recipes.finetuning.validation_split import squeezed


@dataclass(frozen=True)
class TextPair:
    """A text and what is to be written for it.

    Attributes:
        targets: one reference or more; none where it is not known.
        where: its place in words.
    """

    source: str
    targets: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class PairColumns:
    """Where the texts of a record are; a list of targets is several references, or the sentences of one."""

    source: str = "source"
    target: str = "target"
    target_lists: str = "references"


def source_of(pair: TextPair) -> str:
    """The source of a pair, by which equal ones are told."""
    return squeezed(pair.source)


def read_parallel(sources: Path, targets: Path) -> list[TextPair]:
    """Two files in which the same lines belong together.

    Raises:
        RecipeError: they are not of the same length, or a line is empty.
    """
    given, wanted = _lines(sources), _lines(targets)
    if len(given) != len(wanted):
        raise RecipeError(
            f"{sources} has {counted(len(given), 'line')} and {targets} {len(wanted):,}: each line of one needs its "
            "line in the other."
        )
    for path, lines in ((sources, given), (targets, wanted)):
        _refuse_empty(path, lines)
    return [
        TextPair(source, (target,), f"{sources}, line {number}")
        for number, (source, target) in enumerate(zip(given, wanted), start=1)
    ]


def read_pairs(path: Path, columns: PairColumns, header: Sequence[str] | None = None) -> list[TextPair]:
    """The pairs of a file with columns; `header` names them where its first line does not."""
    return pairs_of_records(read_records(path, header), columns)


def pairs_of_records(records: Iterable[Record], columns: PairColumns) -> list[TextPair]:
    """The pairs of rows (raises RecipeError: a column is missing, or a text in it)."""
    pairs = []
    for record in records:
        targets = _texts(record, columns.target, "target_column")
        if columns.target_lists == "sentences":
            targets = [" ".join(targets)]
        pairs.append(TextPair(_source_of(record, columns.source), tuple(targets), record.where))
    return pairs


def read_sources(path: Path, column: str) -> list[TextPair]:
    """Texts without targets: a column of a file that has columns, or the lines of any other.

    Raises:
        RecipeError: there is none, or one is empty.
    """
    if file_format(path) in Seq2SeqArguments.formats():
        pairs = [TextPair(_source_of(record, column), (), record.where) for record in read_records(path)]
    else:
        check_lines(path)
        lines = _lines(path)
        _refuse_empty(path, lines)
        pairs = [TextPair(text, (), f"{path}, line {number}") for number, text in enumerate(lines, start=1)]
    if not pairs:
        raise RecipeError(f"{path} holds no text: give a file with one in a line or row.")
    return pairs


def _lines(path: Path) -> list[str]:
    return [text.strip() for _, text in read_lines(path)]


def _refuse_empty(path: Path, lines: list[str]) -> None:
    if "" in lines:
        raise RecipeError(
            f"{path}, line {lines.index('') + 1} is empty: write its text, or drop the line from every file it is in."
        )


def _source_of(record: Record, column: str) -> str:
    return " ".join(_texts(record, column, "source_column"))


def _texts(record: Record, column: str, option: str) -> list[str]:
    """The text of a column, or the texts of a list in it but for blank ones, which say nothing."""
    value = value_of(record, column, option)
    if not isinstance(value, list):
        return [text_of(record, column, option).strip()]
    texts = [
        text_of(Record({column: text}, f"{record.where}, text {number}"), column, option).strip()
        for number, text in enumerate(value, start=1)
        if not isinstance(text, str) or text.strip()
    ]
    if not texts:
        raise RecipeError(f"{record.where}: the list in column {column!r} holds no text: mend or drop the row.")
    return texts
