"""Examples of text classification: which columns hold texts and labels, what the labels are, which split has which."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.tables import Record, read_records, text_of, value_of
from weft.recipes.finetuning.known_tasks import read_hub_splits
from weft.recipes.finetuning.tasks.text_classification.arguments import TextClassificationArguments
from weft.recipes.finetuning.tasks.text_classification.builtin_task import docstring_records
from weft.recipes.finetuning.tasks.text_classification.columns import Columns, find_columns, has_labels
from weft.recipes.finetuning.tasks.text_classification.known_task import MULTI, REGRESSION, SINGLE, KnownTextTask
from weft.recipes.finetuning.tasks.text_classification.known_tasks import BUILTIN, find_task
from weft.recipes.finetuning.tasks.text_classification.labels import (
    LabelNames,
    check_value,
    collect_names,
    is_missing,
    number_in,
)
from weft.recipes.finetuning.tasks.text_classification.official_files import read_file, read_task
from weft.recipes.finetuning.validation_split import hold_out, squeezed


@dataclass(frozen=True)
class Example:
    """A text or a pair, and its label: the name, the names of several, a number for a regression, or None."""

    texts: tuple[str, ...]
    label: Any = None
    index: str = ""  # as the official test set numbers it


def input_of(example: Example) -> tuple[str, ...]:
    """The text or pair of an example, by which equal ones are told."""
    return tuple(map(squeezed, example.texts))


@dataclass
class ClassificationData:
    """All examples, checked.

    Attributes:
        name: of the task, or of the file or data set.
        splits: "train", "validation", maybe "test" and others with labels, and submissions without.
        names: of the labels; none for a regression.
        notes: what was left out or held out, for the plan.
    """

    name: str
    problem_type: str
    text_columns: tuple[str, ...]
    names: LabelNames
    splits: dict[str, list[Example]]
    task: KnownTextTask | None = None
    notes: list[tuple[str, str]] = field(default_factory=list)


def read_classification(arguments: TextClassificationArguments) -> ClassificationData:
    """Read and check everything; raises RecipeError with a sentence that names the row."""
    arguments.check_files()
    name = arguments.task
    if name is None and arguments.train_file is None and arguments.dataset_name is None:
        name = arguments.task = BUILTIN  # the run is named after it
    if name == BUILTIN:
        if arguments.data is not None or arguments.glue_submission:
            raise RecipeError(f"task {BUILTIN} needs no data and has no test set of GLUE: leave these out.")
        return _finish(arguments, BUILTIN, docstring_records(), Columns(("text",), ("label",)), None, [])
    if name is not None:
        return _read_known(arguments, name)
    if arguments.glue_submission:
        raise RecipeError("glue_submission is given without task: name a GLUE task.")
    if arguments.train_file:
        splits = _read_files(arguments)
    else:
        splits = read_hub_splits(arguments.dataset_name, arguments.dataset_config_name, ("train", "validation", "test"))
    columns = find_columns(arguments, splits["train"])
    source = arguments.dataset_name or Path(arguments.train_file).name
    return _finish(arguments, source, splits, columns, arguments.problem_type, [])


def read_texts(path: Path, data: ClassificationData) -> list[Example]:
    """Examples of a file without labels, in the columns of the training data; raises RecipeError."""
    records = _filled(path, data.task)
    return [Example(_texts(record, data.text_columns)) for record in records]


def _read_known(arguments: TextClassificationArguments, name: str) -> ClassificationData:
    task = find_task(name)
    if arguments.glue_submission and not task.submissions:
        raise RecipeError(f"glue_submission is given, but {name} is no task of GLUE: leave it out.")
    read = read_task(task, name, Path(arguments.data) if arguments.data else None, arguments.glue_submission)
    notes = [("broken lines", f"{len(read.broken):,} left out, with a wrong number of fields")] if read.broken else []
    splits = {}
    for split, records in read.splits.items():
        kept = [record for record in records if record.values.get(task.label_column) not in task.dropped]
        if len(kept) < len(records):
            marks = " or ".join(map(repr, task.dropped))
            notes.append(
                (f"left out of {split}", f"{counted(len(records) - len(kept), 'example')} with the label {marks}")
            )
        splits[split] = kept
    if "test" in splits and not has_labels(splits["test"], (task.label_column,)):
        del splits["test"]
        notes.append(("test", "the test set has no labels, and is not scored"))
    columns = Columns(task.text_columns, (task.label_column,), task.separator, task, read.labels)
    return _finish(arguments, name, splits, columns, task.problem_type, notes)


def _read_files(arguments: TextClassificationArguments) -> dict[str, list[Record]]:
    paths = {split: getattr(arguments, f"{split}_file") for split in ("train", "validation", "test")}
    return {split: _filled(Path(path)) for split, path in paths.items() if path is not None}


def _filled(path: Path, task: KnownTextTask | None = None) -> list[Record]:
    records = list(read_records(path) if task is None else read_file(task, path))
    if not records:
        raise RecipeError(f"{path} holds no examples: give a file with rows.")
    return records


def _finish(
    arguments: TextClassificationArguments,
    name: str,
    splits: dict[str, list[Record]],
    columns: Columns,
    problem_type: str | None,
    notes: list[tuple[str, str]],
) -> ClassificationData:
    task = columns.task
    submissions = {s: splits.pop(s) for s in list(splits) if task is not None and s in task.submissions}
    for split, records in splits.items():
        if not records:
            raise RecipeError(f"the {split} split of {name} holds no examples.")
        if columns.task is None and split != "train" and not has_labels(records, columns.labels):
            value_of(records[0], columns.labels[0], "label_column")
            raise RecipeError(
                f"{records[0].where}: no {split} example has a label in column {columns.labels[0]!r}: give labelled "
                "examples, or the file as predict_file."
            )
    values = {split: [(columns.value(record), record.where) for record in records] for split, records in splits.items()}
    problem_type = _problem_type(problem_type, columns, values["train"])
    official = LabelNames(columns.official, f"task {name}'s") if columns.official else None
    names = official or _names(problem_type, columns, values["train"])
    examples: dict[str, list[Example]] = {}
    for split, records in splits.items():
        labels = [_label(problem_type, names, value, where, split) for value, where in values[split]]
        examples[split] = [
            Example(_texts(r, columns.texts, task is not None), label) for r, label in zip(records, labels)
        ]
        if split == "train":
            _check_variety(problem_type, labels)
    for split, records in submissions.items():
        examples[split] = [Example(_texts(r, columns.texts, True), None, _index(r, n)) for n, r in enumerate(records)]
    if "validation" not in examples:
        train = examples["train"]
        learn, held_out = hold_out([input_of(one) for one in train], arguments, _strata(problem_type, train))
        examples |= {"train": [train[i] for i in learn], "validation": [train[i] for i in held_out]}
        notes.append(("validation", f"{counted(len(held_out), 'example')} held out of the training examples"))
    if arguments.max_train_examples is not None:
        examples["train"] = examples["train"][: arguments.max_train_examples]
        _check_variety(problem_type, [example.label for example in examples["train"]])
    return ClassificationData(name, problem_type, columns.texts, names, examples, task, notes)


def _texts(record: Record, columns: Sequence[str], official: bool = False) -> tuple[str, ...]:
    """Texts of a row; official data may hold empty ones, which count like any other."""
    return tuple(
        "" if official and record.values.get(column) == "" else text_of(record, column, "text_columns")
        for column in columns
    )


def _index(record: Record, number: int) -> str:
    return str(next((record.values[name] for name in ("index", "idx", "id") if name in record.values), number))


def _problem_type(given: str | None, columns: Columns, values: Iterable[tuple[Any, str]]) -> str:
    lists = columns.several or any(isinstance(value, list) for value, _ in values)
    if given is not None:
        if columns.task is None and lists != (given == MULTI):
            raise RecipeError(
                f"problem_type is {given}, but "
                + (
                    "the labels are lists."
                    if lists
                    else "the labels are no lists: give label_separator, or columns of 0 and 1."
                )
            )
        return given
    if lists:
        return MULTI
    numbers = [number_in(value) for value, _ in values if not is_missing(value)]
    if numbers and None not in numbers and any(not number.is_integer() for number in numbers):
        return REGRESSION
    return SINGLE


def _names(problem_type: str, columns: Columns, values: list[tuple[Any, str]]) -> LabelNames:
    if problem_type == REGRESSION:
        return LabelNames(())
    if len(columns.labels) > 1:
        return LabelNames(columns.labels)
    if problem_type == MULTI:
        values = [(label, where) for labels, where in values for label in _list(labels, where)]
    return collect_names(values)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RecipeError(f"{where}: the label is {value!r}, where a list of labels is needed as in the other rows.")
    return value


def _label(problem_type: str, names: LabelNames, value: Any, where: str, split: str) -> Any:
    if problem_type == REGRESSION:
        if is_missing(value):
            raise RecipeError(f"{where}: the label is missing ({value!r}): give a number, or drop the row.")
        number = number_in(value)
        if number is None or number in (float("inf"), float("-inf")):
            raise RecipeError(f"{where}: the label is {value!r}, where a regression needs a finite number.")
        return number
    several = _list(value, where) if problem_type == MULTI else [value]
    found = []
    for one in several:
        check_value(one, where)
        found.append(names.check(one, where, split))
    if len(set(found)) < len(found):
        raise RecipeError(
            f"{where}: the labels {value!r} name one twice: name each once (labels of 0 and 1 need a column each)."
        )
    return tuple(sorted(found, key=names.find)) if problem_type == MULTI else found[0]


def _check_variety(problem_type: str, labels: Sequence[Any]) -> None:
    different = {name for label in labels for name in label} if problem_type == MULTI else set(labels)
    if problem_type == MULTI and not different:
        raise RecipeError("no training example has any label: there is nothing to learn.")
    if problem_type != MULTI and len(different) == 1:
        raise RecipeError(
            f"all {len(labels):,} training examples have the label {next(iter(different))!r}: two labels are needed."
        )


def _strata(problem_type: str, examples: Sequence[Example]) -> list[Any] | None:
    """What each example's share is kept by: its label; of several labels the rarest."""
    if problem_type == REGRESSION:
        return None
    if problem_type == SINGLE:
        return [example.label for example in examples]
    times = Counter(name for example in examples for name in example.label)
    return [min(example.label, key=lambda name: (times[name], name), default="") for example in examples]
