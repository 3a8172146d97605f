"""Data sets of the Hub, and folders of such, by `datasets`; why one cannot be loaded is said by file and row."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from weft.recipes.common.errors import RecipeError, one_line, unwritable
from weft.recipes.data.class_names import classes_only, with_class_names
from weft.recipes.data.tables import Record, read_records
from weft.recipes.data.text_files import file_format

if TYPE_CHECKING:  # it takes long to import, and only such data sets need it
    import datasets

TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
SAVED = "state.json"  # in the folder of a single split that `Dataset.save_to_disk` wrote
CUT_FIELDS = "__index_level_"  # how the CSV reader of `datasets` calls fields that are more than the columns
LONGEST_REASON = 400


class CutFieldsError(ValueError):
    """Rows of a CSV file have more fields than columns, of which `datasets` takes the first for an index."""


def open_dataset(
    name: str, config_name: str | None, split: str, streaming: bool
) -> "datasets.Dataset | datasets.IterableDataset":
    """Open a split of a data set of the Hub, or of a folder that `datasets` can load.

    Raises:
        RecipeError: it cannot be loaded, or rows of its CSV have more fields than columns.
    """
    import datasets

    with _refusing(name, f"data set {name!r} (split {split!r})"):
        if (Path(name) / SAVED).is_file():
            dataset = datasets.load_from_disk(name)
            if split not in ("train", str(dataset.split)):
                raise ValueError(f'Unknown split "{split}": it was saved as a single one, which is read as train')
            return dataset.to_iterable_dataset() if streaming else dataset
        dataset = datasets.load_dataset(name, config_name, split=split, streaming=streaming)
        columns = dataset.features or {}
        if dataset.info.builder_name == "csv" and any(column.startswith(CUT_FIELDS) for column in columns):
            raise CutFieldsError("rows of a .csv file have more fields than there are columns")
    return dataset


def split_names(name: str, config_name: str | None) -> list[str]:
    """Names of the splits that a data set has; raises RecipeError where it cannot be loaded."""
    import datasets

    if (Path(name) / SAVED).is_file():
        return ["train"]
    with _refusing(name, f"data set {name!r}"):
        return datasets.get_dataset_split_names(name, config_name)


def read_hub_records(name: str, config_name: str | None, split: str) -> list[Record]:
    """Read the rows of a split; labels become their names (raises RecipeError: it cannot be loaded)."""
    dataset = open_dataset(name, config_name, split, streaming=False)
    features = classes_only(dataset.features.to_dict())
    places = (f"{name}, {split}, row {number}" for number in range(len(dataset)))
    return [Record(with_class_names(row, features, where), where) for row, where in zip(dataset, places)]


@contextlib.contextmanager
def _refusing(name: str, what: str) -> Iterator[None]:
    """Turn what `datasets` raises into a sentence: the fault of a local file, a place that cannot be written
    (the cache of `datasets`, mostly), or else the innermost reason."""
    import datasets
    import pyarrow

    try:
        yield
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, pyarrow.ArrowException) as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        is_of_files = reason is not error or isinstance(error, (pyarrow.ArrowException, CutFieldsError))
        fault = _fault_in(Path(name)) if is_of_files and Path(name).is_dir() else None
        if fault is not None:
            raise RecipeError(f"{what} cannot be loaded: {fault}") from error
        closed = unwritable(reason)
        if closed is not None:
            raise RecipeError(f"{what} cannot be loaded: {closed}") from error
        said = one_line(reason) or type(reason).__name__
        raise RecipeError(
            f"{what} cannot be loaded ({said[:LONGEST_REASON].rstrip('.')}): check its name, dataset_config_name and "
            "the network, or give local files."
        ) from error


def _fault_in(folder: Path) -> str | None:
    """What is wrong with the tables of a folder, in a sentence; None where nothing is that Weft's readers know of."""
    first: tuple[Path, list[str]] | None = None
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and file_format(path) in TABLES):
        try:
            columns = [list(record.values) for record in read_records(path)][:1]
        except RecipeError as error:
            return str(error)
        if not columns:
            continue
        if first is not None and set(first[1]) != set(columns[0]):
            names = [", ".join(repr(column) for column in found) for found in (columns[0], first[1])]
            return (
                f"{path} has the columns {names[0]}, where {first[0]} has {names[1]}: give all files the same columns, "
                "or give the files one by one (train_file, validation_file, test_file)."
            )
        first = first or (path, columns[0])
    return None
