"""A model card says what it is given, and its head is what the Hub takes."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.cards import HUB_DATASET
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from weft.recipes.common.errors import RecipeError
from weft.recipes.training import model_card
from weft.recipes.training.card_fields import check_card_fields, languages
from weft.recipes.training.model_card import Card, hub_id, name_in_card, published_name

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


def test_language_and_license_are_those_that_are_given(tmp_path: Path) -> None:
    head = written(tmp_path, language=["en", "de"], license="apache-2.0").data
    assert (head.language, head.license) == (["en", "de"], "apache-2.0")
    assert written(tmp_path).data.license is None


def test_a_licence_and_a_base_are_taken_over_from_the_card_of_the_base_model(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    card = "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\nbase_model: me/first\n---\n# Base\n"
    (base / "README.md").write_text(card, encoding="utf-8")
    head = written(tmp_path, base_model=str(base)).data
    assert (head.license, head.license_name, head.license_link) == ("other", "mine", "LICENSE")
    assert head.base_model == "me/first"
    head = written(tmp_path, base_model=str(base), license="mit").data
    assert (head.license, head.license_name) == ("mit", None)
    (base / "README.md").write_text("---\nlicense: [broken\n---\n", encoding="utf-8")
    assert written(tmp_path, base_model=str(base)).data.license is None


def test_the_card_of_a_base_on_the_hub_is_read_where_it_was_fetched_before(tmp_path: Path, monkeypatch) -> None:
    fetched = tmp_path / "fetched.md"
    fetched.write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    monkeypatch.setattr(
        model_card, "try_to_load_from_cache", lambda name, file: str(fetched) if name == "a/b" else None
    )
    assert written(tmp_path, base_model="a/b").data.license == "mit"
    assert written(tmp_path, base_model="a/c").data.license is None


def test_a_card_without_a_name_on_the_hub_gets_it_when_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    written(tmp_path, usage=f'load("{published_name("name")}")')
    assert (
        'load("OWNER/NAME")' in path.read_text() and "Put this folder in the place of `OWNER/NAME`" in path.read_text()
    )
    name_in_card(path, "me/name")
    text = path.read_text()
    assert 'load("me/name")' in text and "OWNER/NAME" not in text and "Put this folder" not in text
    assert published_name("me/name") == "me/name" and published_name(None) == "OWNER/NAME"
    written(tmp_path, usage='load("me/name")')
    before = path.read_bytes()
    name_in_card(path, "me/name")
    name_in_card(tmp_path / "none.md", "me/name")
    assert path.read_bytes() == before and not (tmp_path / "none.md").exists()


def test_a_head_is_what_the_hub_s_own_reader_takes(tmp_path: Path) -> None:
    """Written, read and written again it is the same, and its scores are those of a model-index that is not refused."""
    card = written(tmp_path, language=["en", "zh-Hant"], license="mit", dataset_id="nyu-mll/glue", base_model="a/b")
    again = ModelCard(str(card), ignore_metadata_errors=False)
    assert again.data.to_dict() == card.data.to_dict()
    name, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "model" and len(results) == 2


@pytest.mark.parametrize(
    ("license", "language", "said"),
    [
        ("Apache 2.0", None, "license is 'Apache 2.0', .*did you mean 'apache-2.0'"),
        ("", None, "license is ''.*such as apache-2.0"),
        (None, "English", "language is 'English'.*such as de"),
        (None, "de;en", "language is 'de;en'"),
    ],
)
def test_what_the_hub_would_refuse_is_refused_first(license: str | None, language: str | None, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_card_fields(license, language)
    check_card_fields("cc-by-sa-4.0", "de, zh-Hant,multilingual")
    assert languages("en, de") == ["en", "de"] and languages(None) is None
