"""Rows of texts in: what kind they are, and which columns hold them."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.builtin_text import embedded_documents
from weft.recipes.data.tables import Record, read_records, text_of, value_of
from weft.recipes.data.text_files import file_format, read_text
from weft.recipes.finetuning.embeddings.arguments import (
    ENTAILMENT,
    LABELLED,
    PAIRS,
    PYDOC,
    SCORED,
    TEXT,
    TRIPLETS,
    EmbeddingFiles,
)
from weft.recipes.finetuning.known_tasks import KnownTask, read_splits
from weft.recipes.finetuning.tasks.question_answering.known_tasks import KNOWN_TASKS as QUESTIONS
from weft.recipes.finetuning.tasks.question_answering.reading import questions_of_rows, read_questions
from weft.recipes.finetuning.tasks.text_classification.known_tasks_glue import GLUE_TASKS as GLUE
from weft.recipes.finetuning.tasks.text_classification.official_files import read_file
from weft.recipes.finetuning.validation_split import hold_out, squeezed

TITLES = ("title", "summary")
ALIKE = ("sentence1", "text1", "sentence_a", "text_a", "premise")  # the first of two texts of one sort
FIRST = ("anchor", "query", "question", *ALIKE, *TITLES)
SECOND = (
    *("positive", "pos", "answer", "passage", "context", "document", "response", "sentence2", "text2", "sentence_b"),
    *("text_b", "hypothesis", "entailment", "abstract", "body", "text"),
)
NEGATIVE = ("negative", "neg", "contradiction", "hard_negative")
SCORE = ("score", "similarity", "similarity_score", "relatedness", "relatedness_score", "label", "gold_label")
LABEL = ("label", "class", "category", "topic", "intent", "gold_label")
ALONE = ("text", "sentence", "content", "document")
KNOWN = {"stsb": GLUE["stsb"], **{name: QUESTIONS[name] for name in ("squad", "cmrc2018", "drcd")}}
FORMS = "two texts; three; two and a score or a relation; a text and its label; a text"
# What relations are called or numbered in data sets of entailment; of some rows nobody could say.
FOLLOWS, CONTRADICTS = ("entailment", "0"), ("contradiction", "2")
OTHERS = ("neutral", "not_entailment", "1", "-", "-1", "")


class Row(NamedTuple):
    """An example.

    Attributes:
        kind: one of `KINDS`.
        texts: the first; that which belongs to it; those that do not.
        target: the score or label.
    """

    kind: str
    texts: tuple[str, ...]
    target: float | str | None = None

    @property
    def input(self) -> str:
        """What rows that must not stand on both sides of a split have in common: the text that is found, or the only
        one."""
        return squeezed(self.texts[1] if self.kind in (PAIRS, TRIPLETS) else self.texts[0])


@dataclass(frozen=True)
class Columns:
    """Where a row's texts and its score or label are."""

    kind: str
    texts: tuple[str, ...]
    target: str | None = None
    is_guess: bool = False


def read_all(files: EmbeddingFiles) -> dict[str, list[Row]]:
    """The rows of each split, "train" and "validation" among them, and of each of `evaluation_files` by its name.

    Raises:
        RecipeError: what is missing or wrong, with file and row.
    """
    if files.task == PYDOC:
        splits = _builtin(files)
    else:
        known = KNOWN.get(str(files.task))
        from_file = functools.partial(_of_known, known, files)
        splits = read_splits(files, KNOWN, from_file, _of_hub(known, files), lambda row: row.input)
    for name in files.evaluation_files:
        rows = list(read_rows(Path(name), EmbeddingFiles(documents=files.documents)))
        if not rows:
            raise RecipeError(f"{name} holds no row: leave it out of evaluation_files.")
        splits[Path(name).stem] = rows
    return splits


def read_rows(path: Path, files: EmbeddingFiles) -> Iterator[Row]:
    """The rows of a file.

    Args:
        files: says what a document is, and kind and columns where the file does not tell.

    Raises:
        RecipeError: see `read_records` and `find_columns`.
    """
    if file_format(path) == ".txt":
        yield from (Row(TEXT, (text,)) for text in read_text(path, files.documents) if text.strip())
        return
    records = read_records(path)
    first = next(records, None)
    if first is not None and _is_squad(first.values):
        yield from (Row(PAIRS, (one.question, one.context)) for one in read_questions(path) if one.question.strip())
    elif first is not None:
        yield from rows_of(itertools.chain([first], records), find_columns(first, files))


def rows_of(records: Iterable[Record], columns: Columns) -> Iterator[Row]:
    """Rows of records; a list of texts in the second column makes a row for each.

    Raises:
        RecipeError: a record is broken, or what was taken for scores may as well be classes of entailment.
    """
    if columns.kind == ENTAILMENT:
        yield from _of_entailment(records, columns)
        return
    targets = set()
    for record in records:
        target: Any = None
        if columns.target is not None:
            target = (_number if columns.kind == SCORED else _label)(record, columns.target)
            targets.add(target)
        first = text_of(record, columns.texts[0], "columns")
        if len(columns.texts) == 1:
            yield Row(columns.kind, (first,), target)
            continue
        belonging, *others = [_texts(record, column) for column in columns.texts[1:]]
        for text in belonging:
            yield Row(columns.kind, (first, text, *itertools.chain(*others)), target)
    if columns.is_guess and {0, 1, 2} <= targets <= {-1, 0, 1, 2}:
        raise RecipeError(
            f"{record.where} and before: column {columns.target!r} holds 0, 1 and 2, which may be scores or classes of "
            f"entailment: say which with --kind {SCORED} or --kind {ENTAILMENT}, or call the column score."
        )


def _of_entailment(records: Iterable[Record], columns: Columns) -> Iterator[Row]:
    """Triplets of a text, what follows from it and what contradicts it; pairs where no text has both.

    As sentence-transformers' examples learn from such data (https://sbert.net/examples/sentence_transformer/training/nli/README.html).
    """
    found: dict[str, tuple[list[str], list[str]]] = {}
    for record in records:
        value = value_of(record, columns.target, "columns")
        relation = "" if value is None else str(value).strip().lower().removesuffix(".0")
        if relation in OTHERS:
            continue
        if relation not in (*FOLLOWS, *CONTRADICTS):
            raise RecipeError(
                f"{record.where}: column {columns.target!r} holds {relation!r}, where entailment, neutral or "
                f"contradiction (0, 1 or 2) is needed: mend the row, or give --kind {PAIRS} if all belong together."
            )
        first, second = (text_of(record, column, "columns") for column in columns.texts)
        found.setdefault(first, ([], []))[relation in CONTRADICTS].append(second)
    both = [(first, *each) for first, each in found.items() if all(each)]
    for first, following, against in both:
        yield from (Row(TRIPLETS, (first, text, *against)) for text in following)
    if not both:
        yield from (Row(PAIRS, (first, text)) for first, (following, _) in found.items() for text in following)


def find_columns(record: Record, files: EmbeddingFiles) -> Columns:
    """Tell from a record, or from what the user says, what kind the rows are and where their texts are.

    Raises:
        RecipeError: the columns tell nothing, or not what was asked for.
    """
    if files.columns:
        return _told(record, files)
    there = {str(name).lower(): str(name) for name in record.values}
    find = {
        part: next((there[name] for name in names if name in there), None)
        for part, names in (("first", FIRST), ("second", SECOND), ("score", SCORE), ("label", LABEL), ("alone", ALONE))
    }
    first, second = find["first"], find["second"]
    if first is not None and second is not None:
        negatives = [name for lower, name in there.items() if _is_negative(lower)]
        is_score = find["score"] is not None and _parsed(record.values[find["score"]]) is not None
        is_label = str(find["score"]).lower() in LABEL
        is_relation = is_label and first.lower() in ALIKE and (first.lower() == "premise" or not is_score)
        if find["score"] is not None and files.kind in (ENTAILMENT, None if is_relation else ENTAILMENT):
            return Columns(ENTAILMENT, (first, second), find["score"])
        if is_score and (files.kind == SCORED or (files.kind is None and not (is_label and first.lower() in TITLES))):
            return Columns(SCORED, (first, second), find["score"], is_label and files.kind is None)
        if files.kind in (None, TRIPLETS) and negatives:
            return Columns(TRIPLETS, (first, second, *negatives))
        if files.kind in (None, PAIRS):
            return Columns(PAIRS, (first, second))
    if find["alone"] is not None and find["label"] is not None and files.kind in (None, LABELLED):
        return Columns(LABELLED, (find["alone"],), find["label"])
    alone = find["alone"] or (next(iter(record.values)) if len(record.values) == 1 else None)
    if alone is not None and files.kind in (None, TEXT):
        return Columns(TEXT, (alone,))
    asked = f"no {files.kind} rows" if files.kind else "none of the kinds of rows"
    raise RecipeError(
        f"{record.where}: the columns {', '.join(there.values())} are {asked} that are known by their names: name them "
        f"with --columns ({FORMS}), and with --kind what they are."
    )


def _told(record: Record, files: EmbeddingFiles) -> Columns:
    """The columns that the user names, and their kind where it is not said."""
    names, kind = tuple(files.columns), files.kind
    last = value_of(record, names[-1], "columns")
    if kind is None:
        by_number = {1: TEXT, 2: LABELLED if names[-1].lower() in LABEL else PAIRS, 3: TRIPLETS}
        kind = by_number.get(len(names), TRIPLETS)
        if len(names) == 3 and names[-1].lower() in LABEL and (names[0].lower() == "premise" or _parsed(last) is None):
            kind = ENTAILMENT
        elif len(names) == 3 and _parsed(last) is not None:
            kind = SCORED
    needed = {PAIRS: (2, 2), TRIPLETS: (3, math.inf), LABELLED: (2, 2), TEXT: (1, 1)}.get(kind, (3, 3))
    if not needed[0] <= len(names) <= needed[1]:
        raise RecipeError(
            f"columns names {len(names)} ({', '.join(names)}), which does not fit {kind} rows: give {FORMS}."
        )
    if kind in (SCORED, LABELLED, ENTAILMENT):
        return Columns(kind, names[:-1], names[-1], files.kind is None and names[-1].lower() in LABEL)
    return Columns(kind, names)


def _builtin(files: EmbeddingFiles) -> dict[str, list[Row]]:
    """Documents that Python carries, a part of them held out."""
    rows = [Row(TEXT, (text,)) for text in dict.fromkeys(embedded_documents())]
    kept, held_out = hold_out([row.input for row in rows], files)
    return {"train": [rows[i] for i in kept][: files.max_train_examples], "validation": [rows[i] for i in held_out]}


def _of_known(known: KnownTask | None, files: EmbeddingFiles, path: Path) -> list[Row]:
    if known is GLUE["stsb"]:
        return list(rows_of(read_file(GLUE["stsb"], path), Columns(SCORED, ("sentence1", "sentence2"), "label")))
    return list(read_rows(path, files))


def _of_hub(known: KnownTask | None, files: EmbeddingFiles) -> Callable[[list[Record]], list[Row]]:
    def rows(records: list[Record]) -> list[Row]:
        if known is not None and known is not GLUE["stsb"]:
            return [Row(PAIRS, (one.question, one.context)) for one in questions_of_rows(records)]
        return list(rows_of(records, find_columns(records[0], files))) if records else []

    return rows


def _is_squad(values: dict[str, Any]) -> bool:
    """Whether an object holds SQuAD's articles, or is one of them."""
    articles = values.get("data", [values])
    return isinstance(articles, list) and any(isinstance(one, dict) and "paragraphs" in one for one in articles)


def _is_negative(name: str) -> bool:
    return name in NEGATIVE or name.rstrip("0123456789").rstrip("_") in NEGATIVE


def _texts(record: Record, column: str) -> list[str]:
    value = value_of(record, column, "columns")
    if not isinstance(value, list):
        return [text_of(record, column, "columns")]
    if not value:
        raise RecipeError(f"{record.where}: the list in column {column!r} is empty: mend or drop the row.")
    return [
        text_of(Record({column: text}, f"{record.where}, text {number}"), column, "columns")
        for number, text in enumerate(value, start=1)
    ]


def _number(record: Record, column: str) -> float:
    value = value_of(record, column, "columns")
    number = _parsed(value)
    if number is None:
        raise RecipeError(f"{record.where}: column {column!r} holds {value!r}, where a score is needed: mend the row.")
    return number


def _label(record: Record, column: str) -> str:
    value = value_of(record, column, "columns")
    if value is None or not str(value).strip():
        raise RecipeError(f"{record.where}: column {column!r} holds no label: mend or drop the row.")
    return str(value).strip()


def _parsed(value: Any) -> float | None:
    """The finite number that a value is or spells; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
