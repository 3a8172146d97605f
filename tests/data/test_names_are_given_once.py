"""A column, a key or a field that is given twice is refused by its place: the last one would win without a word."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from weft.recipes import finetune_classification, pretrain_clm
from weft.recipes.common.command_line import load_yaml
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.tables import read_records


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("a.jsonl", '{"text": "a"}\n{"text": "b", "text": ""}\n', r"a.jsonl, line 2: the name 'text' is there twice"),
        ("a.jsonl", '{"text": "a", "meta": {"x": 1, "x": 2}}\n', r"a.jsonl, line 1: the name 'x' is there twice"),
        ("a.json", '[{"text": "a", "text": "b"}]', r"a.json.*: the name 'text' is there twice"),
        ("a.csv", "text,text\na,b\n", r"a.csv, line 1: the column 'text' is there more than once"),
        ("a.tsv", "text\ttext\na\tb\n", r"a.tsv, line 1: the column 'text' is there more than once"),
        ("a.jsonl", '{"text": "a", "n": ' + "9" * 5000 + "}\n", r"a.jsonl, line 1: a number has too many digits"),
    ],
)
def test_a_row_names_each_of_its_values_once(name, content, sentence, tmp_path):
    path = write(tmp_path / name, content)
    with pytest.raises(RecipeError, match=sentence):
        list(read_records(path))
    for main in (pretrain_clm.main, finetune_classification.main):
        field = "--train_files" if main is pretrain_clm.main else "--train_file"
        with pytest.raises(RecipeError, match=sentence):
            main([field, str(path), "--output_dir", str(tmp_path / "run")])


def test_a_parquet_file_names_each_of_its_columns_once(tmp_path):
    column = pyarrow.array(["a", "b"])
    pyarrow.parquet.write_table(pyarrow.table([column, column], names=["text", "text"]), tmp_path / "a.parquet")
    for chosen in (None, "text"):
        with pytest.raises(RecipeError, match=r"a.parquet: the column 'text' is there more than once"):
            list(read_records(tmp_path / "a.parquet", text_column=chosen))


def test_a_file_of_fields_gives_each_once(tmp_path):
    path = write(tmp_path / "run.yaml", "max_steps: 2\nvocab_size: 300\nmax_steps: 3\n")
    with pytest.raises(RecipeError, match=r"run.yaml, line 3: 'max_steps' is there more than once: give it once"):
        pretrain_clm.main([str(path)])
    assert load_yaml(write(tmp_path / "ok.yaml", "a: &a {x: 1}\nb: {<<: *a, y: 2}\n")) == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
    }
