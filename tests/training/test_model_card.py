"""A model card says what it is given, and its head is what the Hub takes."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.cards import HUB_DATASET
from huggingface_hub import ModelCard

from weft.recipes.training.model_card import Card, hub_id

FIELDS = {
    "title": "model",
    "summary": "It counts.",
    "usage": "print(1)",
    "facts": {"data": "a|b"},
    "curve": "loss",
    "sections": {"Results": "Good."},
    "settings": {"seed": 1, "files": [], "name": "", "data": None, "rate": 0.0},
    "pipeline_tag": "text-classification",
    "scores": {"validation": {"accuracy": 0.75, "f1": float("nan"), "loss": None}, "test": {"accuracy": 1}},
    "dataset": "my examples.csv",
}


def written(path: Path, **fields: Any) -> ModelCard:
    Card(**{**FIELDS, **fields}).write(path / "README.md")
    return ModelCard.load(path / "README.md")


def test_the_body_begins_with_usage_and_ends_with_the_settings_that_are_set(tmp_path: Path) -> None:
    text = written(tmp_path).text
    assert re.findall("(?m)^##? (.+)$", text) == ["model", "How to use it", "Data and training", "Results", "Settings"]
    assert text.index("```python\nprint(1)\n```") < text.index("| data | a\\|b |") < text.index("![loss](curve.png)")
    assert text.endswith("| | |\n| --- | --- |\n| seed | 1 |\n| rate | 0.0 |\n")


def test_the_head_holds_every_score_that_is_a_number_by_split(tmp_path: Path) -> None:
    head = written(tmp_path).data
    assert (head.library_name, head.pipeline_tag, head.tags) == ("transformers", "text-classification", ["weft"])
    assert head.model_name == "model" and head.language is head.base_model is head.datasets is None
    found = [(one.dataset_split, one.metric_type, one.metric_value) for one in head.eval_results]
    assert found == [("validation", "accuracy", 0.75), ("test", "accuracy", 1)]
    assert {(one.dataset_name, one.dataset_type) for one in head.eval_results} == {
        ("my examples.csv", "my-examples.csv")
    }


def test_what_comes_from_the_hub_is_named_by_its_id(tmp_path: Path) -> None:
    fields = {"dataset": "CoLA", "dataset_id": "nyu-mll/glue", "dataset_config": "cola"}
    head = written(tmp_path, **fields, base_model="google-bert/bert-base-uncased", language="en").data
    assert (head.datasets, head.base_model, head.language) == (["nyu-mll/glue"], "google-bert/bert-base-uncased", "en")
    result = head.eval_results[0]
    assert (result.dataset_name, result.dataset_type, result.dataset_config) == ("CoLA", "nyu-mll/glue", "cola")


def test_folders_are_not_named(tmp_path: Path) -> None:
    head = written(tmp_path, dataset_id=str(tmp_path), base_model=str(tmp_path)).data
    assert head.base_model is head.datasets is None
    assert str(tmp_path) not in (tmp_path / "README.md").read_text()
    assert hub_id(None) is hub_id("runs/no/model") is hub_id("./model") is None and hub_id("gpt2") == "gpt2"


@pytest.mark.parametrize("name", ["a, b, c " * 40, "语料.txt", "语料", "the docs of Python's library", "x/y"])
def test_any_name_of_data_becomes_an_id_that_the_hub_takes(tmp_path: Path, name: str) -> None:
    result = written(tmp_path, dataset=name).data.eval_results[0]
    assert re.fullmatch(HUB_DATASET, result.dataset_type)
    assert len(result.dataset_name) <= 80 and name.startswith(result.dataset_name.removesuffix("..."))


def test_without_scores_there_is_no_model_index(tmp_path: Path) -> None:
    card = written(tmp_path, scores={"validation": {"f1": None}})
    assert card.data.eval_results is None
    assert set(card.data.to_dict()) == {"library_name", "pipeline_tag", "tags"}
