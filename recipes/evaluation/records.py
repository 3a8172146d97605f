"""Examples of evaluation tasks: the objects of a JSON file, and their fields, checked before any work is done."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.file_names import check_name
from weft.recipes.data.json_values import refuse_halves
from weft.recipes.data.tables import Record, check_table, read_records, text_of
from weft.recipes.data.text_files import file_format

RECORD_FORMATS = (".jsonl", ".json")
PHENOMENON_FIELDS = ("linguistics_term", "phenomenon", "field")


def read_examples(path: Path, limit: int | None = None) -> Iterator[Record]:
    """Yield the objects of a .jsonl or .json file, or the first `limit` of them.

    Raises:
        RecipeError: the file is broken, of another format, or holds no object; names file and line.
    """
    check_name(str(path), RECORD_FORMATS)
    check_table(path)
    if file_format(path) not in RECORD_FORMATS:
        raise RecipeError(f"{path} is not a file of JSON lines (.jsonl): its task needs one object a line.")
    record = None
    for record in islice(read_records(path), limit):
        refuse_halves(record.values, f"{record.where}: the object")
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


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences, and the paradigm and phenomenon that they test."""

    good: str
    bad: str
    paradigm: str
    phenomenon: str | None
    where: str


def read_pairs(paths: Sequence[Path], limit: int | None = None) -> list[MinimalPair]:
    """Read the pairs of all files, or the first `limit` of each (raises RecipeError: a broken file or line, named)."""
    pairs = []
    for path in paths:
        for record in read_examples(path, limit):
            values = record.values
            pairs.append(
                MinimalPair(
                    good=field_of(record, "sentence_good"),
                    bad=field_of(record, "sentence_bad"),
                    paradigm=str(values.get("UID") or path.name.split(".")[0]),
                    phenomenon=next((str(values[name]) for name in PHENOMENON_FIELDS if values.get(name)), None),
                    where=record.where,
                )
            )
    return pairs


def read_passages(paths: Sequence[Path], text_column: str, limit: int | None = None) -> list[tuple[str, str]]:
    """Read passages as (context, last word) out of JSON lines with a text, the form of LAMBADA
    (https://huggingface.co/papers/1606.06031). The last word follows the last blank.

    Raises:
        RecipeError: a broken file or line, or a text without a blank, named.
    """
    passages = []
    for path in paths:
        for record in read_examples(path, limit):
            parts = re.fullmatch(r"(.*\S)(\s+\S+)", text_of(record, text_column, "text_column").rstrip(), re.DOTALL)
            if parts is None:
                raise RecipeError(
                    f"{record.where}: the text has no blank before its last word: give two words at least."
                )
            passages.append((parts.group(1), parts.group(2)))
    return passages


@dataclass(frozen=True)
class ChoiceQuestion:
    """A query, its choices, and the index of the right one."""

    query: str
    choices: list[str]
    label: int
    where: str


def read_questions(paths: Sequence[Path], limit: int | None = None) -> list[ChoiceQuestion]:
    """Read JSON lines with `query` or `context`, `choices` (a list of texts), and `label` or `answer` (index from 0).

    Raises:
        RecipeError: a broken file or line, named.
    """
    questions = []
    for path in paths:
        for record in read_examples(path, limit):
            values, where = record
            choices = field_of(record, "choices", kind=list)
            if len(choices) < 2 or not all(isinstance(choice, str) and choice.strip() for choice in choices):
                raise RecipeError(f"{where}: field 'choices' must hold two texts at least, none of them empty.")
            label = field_of(record, "label", "answer", kind=object)
            if isinstance(label, bool) or str(label) not in map(str, range(len(choices))):
                raise RecipeError(
                    f"{where}: the label is {label!r}: give the index of a choice, 0 to {len(choices) - 1}."
                )
            query = values.get("query", values.get("context"))
            if not isinstance(query, str):
                raise RecipeError(f"{where}: no field 'query' or 'context' with a text.")
            questions.append(ChoiceQuestion(query, choices, int(label), where))
    return questions
