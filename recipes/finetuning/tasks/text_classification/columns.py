"""Which columns of a table hold the texts and the label of an example, and how the label is written there."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.tables import Record, value_of, value_or_none
from weft.recipes.finetuning.tasks.text_classification.arguments import TextClassificationArguments
from weft.recipes.finetuning.tasks.text_classification.known_task import KnownTextTask
from weft.recipes.finetuning.tasks.text_classification.labels import is_missing, name_of, number_in

PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text_a", "text_b")),
    *(("question", "sentence"), ("text1", "text2"), ("text", "text_pair")),
)
TEXTS = ("text", "sentence", "review", "content")
LABELS = ("label", "labels")
_BITS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class Columns:
    """Where an example's texts and its label stand.

    Attributes:
        labels: the column of the label, or several of 0 and 1.
        separator: between several labels in a text.
        task, official: a known task, whose labels get their official names, which are these.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    separator: str | None = None
    task: KnownTextTask | None = None
    official: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        return self.separator is not None or len(self.labels) > 1

    def value(self, record: Record) -> Any:
        """The label as it is written; several as a list."""
        if len(self.labels) > 1:
            return [column for column in self.labels if _bit(record, column)]
        value = value_of(record, self.labels[0], "label_column")
        if self.separator is not None and not isinstance(value, list):
            if value is not None and not isinstance(value, str):
                value = name_of(value)
            value = [part.strip() for part in (value or "").split(self.separator) if part.strip()]
        if self.task is None:
            return value
        return [self._official(v) for v in value] if isinstance(value, list) else self._official(value)

    def _official(self, value: Any) -> Any:
        """The official name of a task's label."""
        number, name = number_in(value), name_of(value)
        if name in self.official or not self.official:
            return value
        if name in self.task.spelled:
            return self.task.spelled[name]
        return self.official[int(number)] if number is not None and number in range(len(self.official)) else value


def _bit(record: Record, column: str) -> bool:
    value = value_of(record, column, "label_column")
    number = number_in(value)
    text = name_of(value if number is None or not number.is_integer() else int(number)).lower()
    if text not in _BITS:
        raise RecipeError(f"{record.where}: column {column!r} holds {value!r}, where 0 or 1 is needed.")
    return _BITS[text]


def find_columns(arguments: TextClassificationArguments, records: Sequence[Record]) -> Columns:
    """The columns that the user names, or that can only be meant; raises RecipeError with those that there are."""
    there = list(dict.fromkeys(column for record in records for column in record.values))  # rows may lack some
    first = Record({**dict.fromkeys(there), **records[0].values}, records[0].where)
    labels = _given(arguments.label_column, there)
    if labels is None:
        found = [column for column in LABELS if column in there]
        if len(found) != 1:
            raise RecipeError(_choose(first, "label", found, "label_column"))
        labels = (found[0],)
    texts = _given(arguments.text_columns, there)
    if texts is None:
        texts = _guess_texts(first, labels)
    for option, columns in (("text_columns", texts), ("label_column", labels)):
        for column in columns:
            value_of(first, column, option)
    if len(texts) > 2:
        raise RecipeError(f"text_columns names {counted(len(texts), 'column')}: give one, or two for a pair of texts.")
    repeated = [column for column, times in Counter((*texts, *labels)).items() if times > 1]
    if repeated:
        raise RecipeError(f"text_columns and label_column name {repeated[0]!r} twice: name each column once.")
    return Columns(texts, labels, arguments.label_separator)


def _given(columns: str | None, there: Sequence[str]) -> tuple[str, ...] | None:
    if columns is None:
        return None
    return (columns,) if columns in there else tuple(name.strip() for name in columns.split(","))


def _guess_texts(first: Record, labels: Sequence[str]) -> tuple[str, ...]:
    there = [column for column in first.values if column not in labels]
    pairs = [pair for pair in PAIRS if set(pair) <= set(there)]
    in_pairs = {column for pair in pairs for column in pair}
    guesses = [*pairs, *((column,) for column in TEXTS if column in there and column not in in_pairs)]
    if not guesses and len(there) == 1:
        guesses = [(there[0],)]
    if len(guesses) != 1:
        raise RecipeError(_choose(first, "text", [",".join(guess) for guess in guesses], "text_columns"))
    return guesses[0]


def _choose(first: Record, what: str, found: Sequence[str], option: str) -> str:
    which = f"{' and '.join(found)} could hold the {what}" if found else f"no column is known to hold the {what}"
    return f"{first.where}: {which}: name it with --{option} (there are {', '.join(map(str, first.values))})."


def has_labels(records: Sequence[Record], columns: Sequence[str]) -> bool:
    """Whether any row has a label; -1 stands for one that is kept secret."""
    values = [value_or_none(record, column) for record in records for column in columns]
    return any(not is_missing(value) and number_in(value) != -1 for value in values)
