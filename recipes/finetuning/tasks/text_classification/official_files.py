"""Read the official files of text classification tasks as records with the task's own columns."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.hub_sets import read_hub_records
from weft.recipes.data.tables import Record, check_table, read_records
from weft.recipes.data.text_files import file_format, read_lines
from weft.recipes.finetuning.known_tasks import find_file, find_files
from weft.recipes.finetuning.tasks.text_classification.known_task import KnownTextTask


@dataclass
class TaskRecords:
    """Rows of each split that there is, the names of the labels, and how many lines were left out as broken."""

    splits: dict[str, list[Record]]
    labels: tuple[str, ...]
    broken: list[str] = field(default_factory=list)


def read_task(known: KnownTextTask, name: str, folder: Path | None, with_submissions: bool) -> TaskRecords:
    """All splits of a known task, from a folder or from the Hub.

    Args:
        with_submissions: read the unlabelled test sets of its submission too.

    Raises:
        RecipeError: no training file, or no file for the submission; names what was looked for.
    """
    if folder is None:
        return _read_from_hub(known, with_submissions)
    found = TaskRecords({}, _label_names(known, folder))
    paths = find_files(known, name, folder, _find_folder if known.layout == "folders" else find_file)
    for split, submission in known.submissions.items() if with_submissions else ():
        path = find_file(folder, submission.files)
        if path is None:
            raise RecipeError(f"{folder} has no test file of task {name!r}: looked for {', '.join(submission.files)}.")
        paths[split] = path
    for split, path in paths.items():
        found.splits[split] = list(read_file(known, path, found.broken))
    return found


def _find_folder(folder: Path, names: Sequence[str]) -> Path | None:
    """The first folder of these names, or else the first file."""
    return next((folder / name for name in names if (folder / name).is_dir()), None) or find_file(folder, names)


def _read_from_hub(known: KnownTextTask, with_submissions: bool) -> TaskRecords:
    # GLUE's own test sets have no labels
    splits = {split: theirs for split, theirs in known.hub_splits.items() if split != "test" or not known.submissions}
    if with_submissions:
        splits |= {split: submission.split for split, submission in known.submissions.items()}
    records = {split: read_hub_records(known.hub, known.hub_config, theirs) for split, theirs in splits.items()}
    return TaskRecords({s: [_renamed(known, record) for record in rows] for s, rows in records.items()}, known.labels)


def _label_names(known: KnownTextTask, folder: Path) -> tuple[str, ...]:
    path = folder / known.label_file if known.label_file else None
    if path is None or not path.is_file():
        return known.labels
    return tuple(text.strip() for _, text in read_lines(path) if text.strip())


def read_file(known: KnownTextTask, path: Path, broken: list[str] | None = None) -> Iterator[Record]:
    """Rows of one of a task's files (of IMDB also a folder), with the task's own columns.

    Args:
        broken: lines with a wrong number of fields are left out and told here; None: they are an error.
    """
    if known.layout == "folders" and path.is_dir():
        yield from _read_folders(path, known.labels)
    elif known.layout == "trec" and path.suffix == ".label":
        yield from _read_trec(path)
    else:
        for record in read_table(path, known.header, (*known.text_columns, *known.columns), broken):
            yield _renamed(known, record)


def read_table(path: Path, header: Sequence[str], known: Sequence[str], broken: list[str] | None) -> Iterator[Record]:
    """Rows of a file that may lack its first line.

    Args:
        header: the official columns.
        known: columns of which any in the first line shows that it names the columns.
        broken: as in `read_records`.

    Raises:
        RecipeError: the first line names no known column and has another number of fields than the header.
    """
    if not header or file_format(path) not in (".csv", ".tsv", ".txt"):
        yield from read_records(path, broken=broken)
        return
    check_table(path)
    values = _first_fields(path)
    if set(values) & set(known):
        yield from read_records(path, broken=broken)
    elif len(values) == len(header):
        yield from read_records(path, header=header, broken=broken)
    else:
        raise RecipeError(
            f"{path}, line 1: {len(values)} fields that name no column, where the {len(header)} of the official file "
            f"are needed ({', '.join(header)})."
        )


def _first_fields(path: Path) -> list[str]:
    lines = (text for _, text in read_lines(path) if text.strip())
    if file_format(path) == ".csv":
        return next(csv.reader(lines), [])
    return next(lines, "").rstrip("\n").split("\t")


def _renamed(known: KnownTextTask, record: Record) -> Record:
    values = record.values | {
        ours: record.values[theirs] for theirs, ours in known.columns.items() if theirs in record.values
    }
    if known.layout == "ag_news" and "text" not in values and {"class", "title", "description"} <= set(values):
        values |= {"text": f"{values['title']} {values['description']}"}
        number = str(values["class"]).strip()  # 1 to 4
        is_one = number in map(str, range(1, len(known.labels) + 1))
        values["label"] = known.labels[int(number) - 1] if is_one else f"class {number}"
    return Record(values, record.where)


def _read_folders(path: Path, labels: Sequence[str]) -> Iterator[Record]:
    """A text in each .txt file of a folder that is named after its label."""
    for label in labels:
        files = sorted((path / label).glob("*.txt"))
        if not files:
            raise RecipeError(f"{path / label} holds no .txt files: {path} must hold the folders {', '.join(labels)}.")
        for file in files:
            yield Record({"text": "".join(text for _, text in read_lines(file)), "label": label}, str(file))


def _read_trec(path: Path) -> Iterator[Record]:
    """Lines such as "DESC:manner How did serfdom develop ?", in Latin-1."""
    for number, line in enumerate(path.read_text(encoding="latin-1").split("\n"), start=1):
        if not line.strip():
            continue
        label, blank, text = line.strip().partition(" ")
        coarse, colon, _ = label.partition(":")
        if not blank or not colon:
            raise RecipeError(f"{path}, line {number}: not COARSE:fine question: mend the line.")
        yield Record({"text": text, "label": coarse}, f"{path}, line {number}")
