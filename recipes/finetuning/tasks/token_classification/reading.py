"""Tagged examples out of files: columns (CoNLL), CoNLL-U, lists of tokens, and entities given by their characters."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.json_values import refuse_halves
from weft.recipes.data.tables import Record, check_table, read_records, text_of, value_of
from weft.recipes.data.text_files import file_format, read_lines
from weft.recipes.finetuning.tasks.token_classification.columns import read_columns
from weft.recipes.finetuning.tasks.token_classification.conllu import is_word_line, read_conllu
from weft.recipes.finetuning.tasks.token_classification.exports import (
    EXPORTS,
    export_of,
    is_pairs,
    read_pairs,
    rows_of_export,
)
from weft.recipes.finetuning.tasks.token_classification.passages import (
    EntitySpan,
    Sentence,
    SpanText,
    without_places,
)

FORMATS = ("conll", "conllu", "tokens", "spans", "cluener", *EXPORTS)
TABLES = (".jsonl", ".json", ".parquet")
TOKEN_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags", "labels", "upos", "pos_tags", "chunk_tags")
SPAN_COLUMNS = ("entities", "spans", "label", "labels")
SPAN_KEYS = (("start", "start_offset"), ("end", "end_offset"), ("label", "type", "entity_group", "entity"))

Examples = list[Sentence] | list[SpanText]


@dataclass
class Reader:
    """How files with tags are read.

    Attributes:
        format: one of FORMATS; None: as the file looks.
        word_column: number of the column (from 0), or its name in tables; None: the first, or the usual name.
        tag_column: the same of the tags; None: the last, or the usual name; of CoNLL-U one of its columns or a key of
            FEATS or MISC; None: upos.
        text_column: name of the text of spans.
        labels: names of tags that are numbers, in order.
        notes: counts what was left out on the way, in words.
    """

    format: str | None = None
    word_column: str | None = None
    tag_column: str | None = None
    text_column: str = "text"
    labels: Sequence[str] = ()
    notes: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path, labelled: bool = True) -> Examples:
        """The examples of a file, in order.

        Args:
            labelled: tags are needed; otherwise they are left out.

        Raises:
            RecipeError: the file is missing or broken, or a row makes no sense; names the row.
        """
        kind = file_format(path)
        check_table(path, (kind,))  # columns may have any ending, or none
        if is_pairs(path):
            return self.read_rows(read_pairs(path), "spacy", labelled)
        form = self.format or _look(path, kind)
        if form == "conll":
            return self._without_places(read_columns(path, self.word_column, self.tag_column, labelled))
        if form == "conllu":
            return read_conllu(path, self.tag_column, self.notes, labelled)
        return self.read_rows(read_records(path), form, labelled)

    def read_rows(self, records: Iterable[Record], form: str | None = None, labelled: bool = True) -> Examples:
        """Examples of rows; `form` None: as the first of them looks."""
        records = list(records)
        if form is None and records:
            form = _form_of(records[0])
        if form == "cluener":
            return [self._cluener(record, labelled) for record in records]
        if form in EXPORTS:
            rows = rows_of_export(records, form, self.text_column, self.notes, labelled)
            return [self._spans(row, labelled, "text", "entities") for row in rows]
        if form == "spans":
            return [self._spans(record, labelled) for record in records]
        return self._without_places([self._tokens(record, labelled) for record in records])

    def _without_places(self, sentences: list[Sentence]) -> list[Sentence]:
        sentences, are_numbered = without_places(sentences)
        if are_numbered:
            self.notes["files whose signs bear their place in a word (as 口0 腔1), which was left out"] += 1
        return sentences

    def _tokens(self, record: Record, labelled: bool) -> Sentence:
        column = self._name_of(record, self.word_column, TOKEN_COLUMNS, "word_column")
        words = _list_in(record, column, "words")
        for number, word in enumerate(words, start=1):
            if not isinstance(word, str):
                raise RecipeError(
                    f"{record.where}: word {number} of column {column!r} is {_kind(word)}, where text is needed: mend "
                    "or drop the row."
                )
        if not labelled:
            return Sentence(list(words), None, record.where)
        column = self._name_of(record, self.tag_column, TAG_COLUMNS, "tag_column")
        tags = _list_in(record, column, "tags")
        if len(tags) != len(words):
            raise RecipeError(
                f"{record.where}: {counted(len(words), 'word')} and {counted(len(tags), 'tag')} ({column!r}): "
                "each word needs one tag."
            )
        return Sentence(list(words), [self._tag(tag, n, record, column) for n, tag in enumerate(tags)], record.where)

    def _tag(self, tag: Any, number: int, record: Record, column: str) -> str:
        """The name of a tag."""
        if isinstance(tag, str) and tag.strip():
            return tag.strip()
        where = f"{record.where}: tag {number + 1} of column {column!r}"
        if not isinstance(tag, int) or isinstance(tag, bool):
            raise RecipeError(f"{where} is {_kind(tag)}, where a name or a number is needed: mend or drop the row.")
        if not self.labels:
            raise RecipeError(
                f"{where} is the number {tag}: give the names of the numbers in order with --label_names."
            )
        if not 0 <= tag < len(self.labels):
            raise RecipeError(
                f"{where} is {tag}, but label_names has {counted(len(self.labels), 'name')} (the first is 0)."
            )
        return self.labels[tag]

    def _cluener(self, record: Record, labelled: bool) -> SpanText:
        """Entities as {type: {mention: [[first, last], ...]}}, ends included. Of nested ones the longest is kept."""
        text = text_of(record, self.text_column, "text_column")
        if not labelled:
            return SpanText(text, None, record.where)
        column = self.tag_column or "label"
        types = value_of(record, column, "tag_column")
        spans = []
        try:
            for kind, mentions in types.items():
                for mention, places in (mentions or {}).items():  # of parquet, every row has all keys
                    spans += [self._span(text, first, last + 1, kind, record, mention) for first, last in places or ()]
        except (AttributeError, TypeError, ValueError):
            raise RecipeError(
                f"{record.where}: column {column!r} is not of the form {{type: {{mention: [[first, last], ...]}}}}: "
                "mend the row."
            ) from None
        kept: list[EntitySpan] = []
        for span in sorted(set(spans), key=lambda span: (span.start - span.end, span)):
            if any(span.start < other.end and other.start < span.end for other in kept):
                self.notes["entities inside of or over longer ones, which no tag can hold"] += 1
            else:
                kept.append(span)
        return SpanText(text, sorted(kept), record.where)

    def _spans(self, record: Record, labelled: bool, text: str | None = None, tags: str | None = None) -> SpanText:
        """Entities as [{start, end, label}, ...] or [[start, end, label], ...], ends not included.

        Args:
            text, tags: the columns; None: those that the user named, or the usual ones.
        """
        text = text_of(record, text or self.text_column, "text_column")
        if not labelled:
            return SpanText(text, None, record.where)
        column = tags or self._name_of(record, self.tag_column, SPAN_COLUMNS, "tag_column")
        spans = []
        for number, entry in enumerate(_list_in(record, column, "entities"), start=1):
            if isinstance(entry, dict):
                parts = [next((entry[key] for key in keys if key in entry), None) for keys in SPAN_KEYS]
            else:
                parts = list(entry) if isinstance(entry, list | tuple) else []
            if len(parts) != len(SPAN_KEYS) or None in parts:
                raise RecipeError(
                    f"{record.where}: entity {number} needs start, end and label, as "
                    '{"start": 0, "end": 5, "label": "PER"}: mend the row.'
                )
            spans.append(self._span(text, *parts, record))
        spans = sorted(set(spans))
        for one, other in pairwise(spans):
            if other.start < one.end:
                raise RecipeError(
                    f"{record.where}: the entities {text[one.start : one.end]!r} ({one.label}) and "
                    f"{text[other.start : other.end]!r} ({other.label}) overlap, which tags cannot say: keep one."
                )
        return SpanText(text, spans, record.where)

    def _span(
        self, text: str, start: Any, end: Any, label: Any, record: Record, mention: str | None = None
    ) -> EntitySpan:
        """An entity after all checks, without blanks at its ends."""
        if any(not isinstance(place, int) or isinstance(place, bool) for place in (start, end)):
            raise RecipeError(f"{record.where}: the ends {start!r} and {end!r} of an entity must be whole numbers.")
        if not isinstance(label, str) or not label.strip():
            raise RecipeError(f"{record.where}: the type of an entity is {label!r}, where a name is needed.")
        if not 0 <= start < end <= len(text):
            raise RecipeError(
                f"{record.where}: an entity from {start} to {end}, but the text has {counted(len(text), 'character')} "
                "(the first is 0, the end is not included): mend the row."
            )
        inside = text[start:end]
        if mention is not None and inside != mention:
            raise RecipeError(
                f"{record.where}: the text from {start} to {end - 1} is {inside!r}, not the mention {mention!r}: mend "
                "the row."
            )
        if not inside.strip():
            raise RecipeError(f"{record.where}: the entity from {start} to {end} is blank: mend the row.")
        if inside != inside.strip():
            self.notes["entities with blanks at their ends, which were cut off"] += 1
        return EntitySpan(start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip()), label)

    def _name_of(self, record: Record, given: str | None, usual: Sequence[str], option: str) -> str:
        """The column that was named, or the first usual one that there is."""
        if given is not None:
            value_of(record, given, option)
            return given
        found = next((name for name in usual if name in record.values), None)
        if found is None:
            value_of(record, usual[0], option)
        return str(found)


def read_texts(path: Path) -> list[SpanText]:
    """A text a line, without labels."""
    return [
        SpanText(text.rstrip("\r\n"), None, f"{path}, line {number}")
        for number, text in read_lines(path)
        if text.strip()
    ]


def label_names(given: Sequence[str]) -> list[str]:
    """The names of tags that are numbers: as they are given, or the lines of the one file that is."""
    if len(given) == 1 and Path(given[0]).is_file():
        return [text.strip() for _, text in read_lines(Path(given[0])) if text.strip()]
    return list(given)


def _look(path: Path, kind: str) -> str:
    """The format of a file."""
    if kind in TABLES:
        first = next(iter(read_records(path)), None)
        if first is None:
            raise RecipeError(f"{path} holds no examples: give a file with rows.")
        return _form_of(first)
    if kind == ".conllu":
        return "conllu"
    for _, text in read_lines(path):
        if text.strip() and not text.startswith("#"):
            row = text.rstrip("\r\n").split("\t")
            return "conllu" if is_word_line(row) else "conll"
    return "conll"


def _form_of(record: Record) -> str:
    """The form of a table's rows."""
    values = record.values
    if (export := export_of(record)) is not None:
        return export
    if "text" in values and not any(isinstance(values.get(name), list) for name in TOKEN_COLUMNS):
        return "cluener" if isinstance(values.get("label"), dict) else "spans"
    return "tokens"


def _list_in(record: Record, column: str, what: str) -> list[Any]:
    value = record.values.get(column)
    if not isinstance(value, list | tuple):
        raise RecipeError(
            f"{record.where}: column {column!r} holds {_kind(value)}, where a list of {what} is needed: mend or drop "
            "the row."
        )
    refuse_halves(value, f"{record.where}: column {column!r}")
    return list(value)


def _kind(value: Any) -> str:
    if value is None:
        return "null (None)"
    if isinstance(value, str) and not value.strip():
        return "empty"
    return (
        f"{value!r} ({type(value).__name__})" if isinstance(value, bool | int | float) else f"a {type(value).__name__}"
    )
