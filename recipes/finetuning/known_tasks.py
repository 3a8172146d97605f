"""Where the splits of a known task are, on the Hub or in a folder, and how examples of one's own are told apart."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.compression import COMPRESSIONS
from weft.recipes.data.hub_sets import read_hub_records, split_names
from weft.recipes.data.tables import Record
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.validation_split import hold_out

Example = TypeVar("Example")
WITH_TEST = {"train": "train", "validation": "validation", "test": "test"}  # names of splits on the Hub
HUB_NAMES = {
    "train": ("train", "train_sft"),
    "validation": ("validation", "dev", "valid", "val", "test_sft"),
    "test": ("test",),
}


@dataclass(frozen=True, kw_only=True)
class KnownTask:
    """A data set that `--task` names. Tasks that need to know more of theirs derive from it.

    Attributes:
        files: for each split the names that its file may bear, in the order in which they are looked for; a name may
            hold a folder.
        hub: id on the Hub, and `hub_config` the configuration; None where it is not there.
        hub_splits: names of the splits on the Hub.
        about: what it is, for --help.
        language: of the texts.
    """

    files: Mapping[str, Sequence[str]]
    hub: str | None = None
    hub_config: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "validation": "validation"})
    about: str = ""
    language: str | list[str] = "en"


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first file of these names, compressed or not; None where there is none."""
    for name in names:
        for path in (folder / name, *(folder / f"{name}{ending}" for ending in COMPRESSIONS)):
            if path.is_file():
                return path
    return None


def find_files(
    known: KnownTask, name: str, folder: Path, find: Callable[[Path, Sequence[str]], Path | None] = find_file
) -> dict[str, Path]:
    """The file of each split of a known task that is in a folder; raises RecipeError where it is not for training."""
    found = {split: path for split, names in known.files.items() if (path := find(folder, names)) is not None}
    if "train" not in found:
        raise RecipeError(
            f"{folder} has no training file of task {name!r}: looked for {', '.join(known.files['train'])}; give "
            "another folder, or train_file and validation_file."
        )
    return found


def read_hub_splits(name: str, config_name: str | None, wanted: Sequence[str]) -> dict[str, list[Record]]:
    """Rows of a data set that is no known task: of each wanted split that it has under one of its usual names.

    Raises:
        RecipeError: it cannot be loaded, or has no training split.
    """
    there = split_names(name, config_name)
    named = {split: next((other for other in HUB_NAMES[split] if other in there), None) for split in wanted}
    if named["train"] is None:
        raise RecipeError(f"data set {name!r} has no split 'train': there are {', '.join(there)}.")
    return {split: read_hub_records(name, config_name, theirs) for split, theirs in named.items() if theirs is not None}


def read_splits(
    files: FileArguments,
    tasks: Mapping[str, KnownTask],
    from_file: Callable[[Path], list[Example]],
    from_records: Callable[[list[Record]], list[Example]],
    input_of: Callable[[Example], Hashable],
) -> dict[str, list[Example]]:
    """Read "train", "validation" and, where it is given, "test"; a part of "train" is held out if there is no other.

    Args:
        tasks: the known ones, by name.
        from_file: reads the examples of a labelled file.
        from_records: makes examples of rows of the Hub.
        input_of: see `Task.input_of`; the split that is held out shares none with the rest.

    Raises:
        RecipeError: no source is given, an unknown task, a file that is missing, no example in a split.
    """
    if files.task is not None:
        if files.task not in tasks:
            raise RecipeError(f"task is {files.task!r}: choose one of {', '.join(tasks)}, or give files of your own.")
        splits = _of_task(files, tasks[files.task], from_file, from_records)
    elif files.train_file is not None:
        given = {"train": files.train_file, "validation": files.validation_file, "test": files.test_file}
        splits = {split: from_file(Path(name)) for split, name in given.items() if name is not None}
    elif files.dataset_name is not None:
        records = read_hub_splits(files.dataset_name, files.dataset_config_name, ("train", "validation"))
        splits = {split: from_records(rows) for split, rows in records.items()}
    else:
        named = f"task (one of {', '.join(tasks)}), " if tasks else ""
        raise RecipeError(f"no examples are given: give {named}train_file or dataset_name.")
    empty = [split for split, examples in splits.items() if not examples]
    if empty:
        raise RecipeError(f"the {empty[0]} split holds no example: give files with examples.")
    if "validation" not in splits:
        kept, held_out = hold_out([input_of(example) for example in splits["train"]], files)
        examples = splits["train"]
        parts = {"train": [examples[i] for i in kept], "validation": [examples[i] for i in held_out]}
        splits = {**parts, **{split: rest for split, rest in splits.items() if split not in parts}}
    splits["train"] = splits["train"][: files.max_train_examples]
    return splits


def _of_task(
    files: FileArguments,
    known: KnownTask,
    from_file: Callable[[Path], list[Example]],
    from_records: Callable[[list[Record]], list[Example]],
) -> dict[str, list[Example]]:
    if files.data is not None:
        found = find_files(known, str(files.task), Path(files.data))
        return {split: from_file(path) for split, path in found.items()}
    if known.hub is None:
        raise RecipeError(
            f"task {files.task!r} is not on the Hub under a known name: give the folder with its files as data "
            f"({', '.join(known.files['train'])})."
        )
    return {
        split: from_records(read_hub_records(known.hub, known.hub_config, name))
        for split, name in known.hub_splits.items()
    }
