"""Folders that `datasets` loads: class names are used, and what is wrong is said in a sentence by file and row."""

import errno
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.hub_sets import open_dataset, read_hub_records, split_names
from weft.recipes.data.tables import read_records
from weft.recipes.finetuning.known_tasks import read_hub_splits

NAMES = ["neg", "pos"]
FEATURES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=NAMES),
        "tags": datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
        "more": {"side": datasets.ClassLabel(names=["left", "right"]), "number": datasets.Value("int64")},
    }
)
ROWS = [
    {"text": "a", "label": 0, "tags": [0, 1], "more": {"side": 1, "number": 1}},
    {"text": "b", "label": 1, "tags": [], "more": {"side": 0, "number": 0}},
    {"text": "c", "label": -1, "tags": [1], "more": {"side": 0, "number": 1}},
]
NAMED = [
    {"text": "a", "label": "neg", "tags": ["O", "B-X"], "more": {"side": "right", "number": 1}},
    {"text": "b", "label": "pos", "tags": [], "more": {"side": "left", "number": 0}},
    {"text": "c", "label": None, "tags": ["B-X"], "more": {"side": "left", "number": 1}},
]


@pytest.fixture
def rows() -> datasets.Dataset:
    return datasets.Dataset.from_list(ROWS, features=FEATURES)


def test_class_names_in_the_schema_of_a_parquet_file_are_used(tmp_path: Path, rows: datasets.Dataset) -> None:
    path = tmp_path / "train.parquet"
    rows.to_parquet(path)
    assert [record.values for record in read_records(path)] == NAMED
    assert [record.values for record in read_records(path, text_column="text")] == [
        {"text": row["text"]} for row in ROWS
    ]


def test_a_parquet_file_of_another_library_keeps_its_numbers(tmp_path: Path, rows: datasets.Dataset) -> None:
    import pyarrow.parquet

    path = tmp_path / "train.parquet"
    table = rows.data.table
    for metadata in ({}, {b"huggingface": b"no json"}, {b"huggingface": b'{"info": {"features": [1]}}'}):
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path)
        assert [record.values["label"] for record in read_records(path)] == [0, 1, -1]


def test_a_class_number_without_a_name_is_refused_by_row(tmp_path: Path, rows: datasets.Dataset) -> None:
    import pyarrow.parquet

    path = tmp_path / "train.parquet"
    info = {"info": {"features": {"label": {"names": ["only"], "_type": "ClassLabel"}}}}
    pyarrow.parquet.write_table(rows.data.table.replace_schema_metadata({b"huggingface": json.dumps(info)}), path)
    with pytest.raises(RecipeError, match=r"train\.parquet, row 1, column 'label': the class number 1, but .* 1 class"):
        list(read_records(path))


@pytest.mark.parametrize("how", ["parquet", "saved dict", "saved"])
def test_folders_of_data_sets_give_names_of_labels(tmp_path: Path, rows: datasets.Dataset, how: str) -> None:
    folder = tmp_path / "set"
    if how == "parquet":
        folder.mkdir()
        rows.to_parquet(folder / "train.parquet")
    elif how == "saved dict":
        datasets.DatasetDict({"train": rows}).save_to_disk(folder)
    else:
        rows.save_to_disk(folder)
    assert split_names(str(folder), None) == ["train"]
    assert [record.values for record in read_hub_records(str(folder), None, "train")] == NAMED
    streamed = open_dataset(str(folder), None, "train", streaming=True)
    assert [row["text"] for row in streamed] == ["a", "b", "c"]


FAULTS: dict[str, tuple[dict[str, str | bytes], str]] = {
    "columns": (
        {"train.csv": "text,label\na,x\n", "test.csv": ",text,label\n0,a,x\n"},
        "train.csv has the columns 'text', 'label', where FOLDER/test.csv has '', 'text', 'label': give all files",
    ),
    "cut rows": ({"train.csv": "text,label\na,b,c,d\n"}, "FOLDER/train.csv, line 2: 4 fields, where 2 are needed"),
    "ragged rows": (
        {"train.csv": "text,label\na,x\nb,y,z,w\n"},
        "FOLDER/train.csv, line 3: 4 fields, where 2 are needed",
    ),
    "broken lines": ({"train.jsonl": '{"text": "a"}\n{"text":'}, "FOLDER/train.jsonl, line 2: not JSON"),
    "no parquet": ({"train.parquet": b"PAR1xxxx"}, "FOLDER/train.parquet is not a parquet file"),
    "empty file": ({"train.csv": ""}, "FOLDER/train.csv is empty"),
    "empty folder": ({}, "doesn't contain any data files"),
    "no training split": ({"test.csv": "text,label\na,x\n"}, "has no split 'train': there are test."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_folder_is_said_in_a_sentence(tmp_path: Path, fault: str) -> None:
    files, message = FAULTS[fault]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError) as error:
        read_hub_splits(str(tmp_path), None, ("train", "validation"))
    assert message.replace("FOLDER", str(tmp_path)) in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"data set {str(tmp_path)!r}")


def test_an_unknown_configuration_or_split_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    (tmp_path / "test.csv").write_text("text,label\na,x\n")
    with pytest.raises(RecipeError, match=r"'nope' not found\. Available: \['default'\]"):
        read_hub_splits(str(tmp_path), "nope", ("train",))
    with pytest.raises(RecipeError, match=r"Should be one of \['train', 'test'\]"):
        open_dataset(str(tmp_path), None, "nope", streaming=False)
    saved: Any = datasets.Dataset.from_dict({"text": ["a"]})
    saved.save_to_disk(tmp_path / "saved")
    with pytest.raises(RecipeError, match="it was saved as a single one"):
        open_dataset(str(tmp_path / "saved"), None, "test", streaming=False)


def test_a_cache_that_cannot_be_written_is_named_and_not_the_data_set(tmp_path: Path, monkeypatch) -> None:
    def closed(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/cache/hf")

    monkeypatch.setattr(datasets, "load_dataset", closed)
    with pytest.raises(RecipeError, match=r"/cache/hf cannot be .* the file system is read-only") as error:
        open_dataset(str(tmp_path), None, "train", streaming=False)
    assert "check its name" not in str(error.value)
