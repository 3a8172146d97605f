"""The benchmark of ways to make batches: the same examples, the same model, and ratios of one run."""

import json

import pytest
from helpers import finetuning as ft
from helpers.text import sentences

from weft.recipes import benchmark
from weft.recipes.common.errors import RecipeError
from weft.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(sentences(50), "bpe", 300).save_pretrained(folder)
    return folder


def run(monkeypatch, **fields):
    words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--subject", "finetune", "--cpu_threads", "1", *words])
    benchmark.main()


def test_all_ways_are_measured_in_turns_and_written_with_the_machine(tokenizer, tmp_path, monkeypatch, capsys):
    path, result = ft.write_examples(tmp_path / "train.csv", 80), tmp_path / "result.json"
    fields = {"train_files": path, "text_column": "text", "tokenizer_name": tokenizer, "output_file": result}
    run(monkeypatch, **fields, steps=1, rounds=2)
    found = json.loads(result.read_text())
    ways = {"weft", "pad to 128", "dynamic padding", "length-grouped"}
    assert found["seconds"].keys() == ways and all(len(seconds) == 2 for seconds in found["seconds"].values())
    assert found["ratios"].keys() == ways - {"weft"}
    ratio = found["ratios"]["pad to 128"]
    assert ratio["lowest"] <= ratio["median"] <= ratio["highest"]
    assert "pad to 128 / weft" in capsys.readouterr().out


def test_too_few_examples_are_refused(tokenizer, tmp_path, monkeypatch):
    path = ft.write_examples(tmp_path / "train.csv", 10)
    with pytest.raises(RecipeError, match="10 examples: the benchmark needs 32"):
        run(monkeypatch, train_files=path, text_column="text", tokenizer_name=tokenizer)
