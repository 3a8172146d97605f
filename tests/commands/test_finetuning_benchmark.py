"""The benchmark of ways to make batches: the same examples, the same model, and ratios of one run."""

import json

import pytest
from helpers import finetuning as ft
from helpers.text import sentences
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from weft.recipes import benchmark
from weft.recipes.common.errors import RecipeError
from weft.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(sentences(50), "bpe", 300).save_pretrained(folder)
    return folder


def run(monkeypatch, *files, **fields):
    words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    words += ["--train_files", *map(str, files)] if files else []
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--subject", "finetune", "--cpu_threads", "1", *words])
    benchmark.main()


def test_all_ways_are_measured_in_turns_and_written_with_the_machine(tokenizer, tmp_path, monkeypatch, capsys):
    path, result = ft.write_examples(tmp_path / "train.csv", 80), tmp_path / "result.json"
    fields = {"train_files": path, "text_column": "text", "tokenizer_name": tokenizer, "output_file": result}
    run(monkeypatch, **fields, steps=1, rounds=2, batch_size=8)
    found = json.loads(result.read_text())
    ways = {"weft", "pad to 128", "dynamic padding", "length-grouped"}
    assert found["seconds"].keys() == ways and all(len(seconds) == 2 for seconds in found["seconds"].values())
    assert found["ratios"].keys() == ways - {"weft"}
    ratio = found["ratios"]["pad to 128"]
    assert ratio["lowest"] <= ratio["median"] <= ratio["highest"]
    assert "pad to 128 / weft" in capsys.readouterr().out


def test_pairs_are_measured_packed_padded_and_grouped(tokenizer, tmp_path, monkeypatch):
    texts, result = [line for text in sentences(40) for line in text.splitlines() if line], tmp_path / "result.json"
    files = [tmp_path / name for name in ("a.txt", "b.txt", "short.txt")]
    for path, lines in zip(files, (texts, texts[::-1], texts[:-1])):
        path.write_text("\n".join(lines))
    fields = {"subject": "pairs", "tokenizer_name": tokenizer, "steps": 1, "rounds": 1, "batch_size": 4}
    run(monkeypatch, *files[:2], **fields, output_file=result)
    assert json.loads(result.read_text())["ratios"].keys() == {"dynamic padding", "length-grouped"}
    with pytest.raises(RecipeError, match=f"has {len(texts)} lines and .* {len(texts) - 1}: give lines that belong"):
        run(monkeypatch, files[0], files[2], **fields)
    with pytest.raises(RecipeError, match="subject pairs needs 2 --train_files"):
        run(monkeypatch, files[0], **fields)


def test_too_few_examples_are_refused(tokenizer, tmp_path, monkeypatch):
    path = ft.write_examples(tmp_path / "train.csv", 10)
    with pytest.raises(RecipeError, match="10 examples: the benchmark needs a batch of 32"):
        run(monkeypatch, train_files=path, text_column="text", tokenizer_name=tokenizer)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tokenizer_name": "nowhere/at all"}, "tokenizer 'nowhere/at all' cannot be loaded"),
        ({"train_files": "missing.csv"}, "train_files 'missing.csv' is no file"),
        ({"text_column": "txt"}, "no column 'txt'"),
        ({"rounds": 0}, "rounds is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"preset": "huge"}, "preset is 'huge': choose one of"),
        ({"output_file": "nowhere/result.json"}, "output_file 'nowhere/result.json' is in no folder"),
        ({"subject": "tokenize"}, "subject is 'tokenize'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(tokenizer, tmp_path, monkeypatch, fields, sentence):
    path = ft.write_examples(tmp_path / "train.csv", 40)
    with pytest.raises(RecipeError, match=sentence):
        run(monkeypatch, **{"train_files": path, "text_column": "text", "tokenizer_name": tokenizer, **fields})


def test_a_tokenizer_without_start_and_end_tokens_is_refused_in_a_sentence(tmp_path, monkeypatch):
    path = ft.write_examples(tmp_path / "train.csv", 40)
    bare = Tokenizer(models.WordLevel({"the": 0, "house": 1}, unk_token="the"))
    PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="the").save_pretrained(tmp_path / "bare")
    with pytest.raises(RecipeError, match="the tokenizer has no"):
        run(monkeypatch, train_files=path, text_column="text", tokenizer_name=tmp_path / "bare")
