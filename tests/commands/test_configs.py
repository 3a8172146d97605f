"""Every file of recipes/configs but the benchmark's is a run that the recipes of its first lines accept."""

import importlib
import re
from pathlib import Path

import pytest
import yaml
from helpers import runs

OF_BENCHMARK = "benchmark.yaml"  # whose entries test_benchmark_entries.py reads
CONFIGS = sorted(path for path in (runs.RECIPES / "configs").glob("*.yaml") if path.name != OF_BENCHMARK)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return runs.make_corpus_of_sentences(tmp_path_factory.mktemp("text"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_commands_in_its_first_lines_make_a_plan(path: Path, prepared: Path, tmp_path: Path, capsys) -> None:
    text, fields = path.read_text(encoding="utf-8"), ["--output_dir", str(tmp_path / "run"), "--plan", "true"]
    of_text = {"documents", "validation_fraction", "vocab_size"} & yaml.safe_load(text).keys()
    fields += ["--train_files", str(prepared.parent / "text.txt")] if of_text else ["--data", str(prepared)]
    if of_text:
        fields += ["--vocab_size", "300"] * ("char" not in text) + ["--validation_fraction", "0.2"]
    recipes = set(re.findall(r"recipes/(pretrain_\w+)\.py", text))
    assert recipes
    for recipe in recipes:
        importlib.import_module(f"weft.recipes.{recipe}").main([str(path), *fields])
        printed = capsys.readouterr().out
        assert f"plan of {tmp_path / 'run'}" in printed and "\n  length " in printed
