"""A new model has what lowers its loss at equal tokens, unless told not to; a model that exists stays as it is."""

import json
import math
import re
import shutil
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from helpers import finetuning as ft
from helpers import runs
from transformers import AutoTokenizer

from weft import WeftConfig
from weft.interop import find_family
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.objectives.causal import COST
from weft.recipes.training.model_setup import DEFAULT_EXTRAS

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {"max_steps": 10, "save_steps": 5, "optimizer": "adamw"}
PLAIN = dict.fromkeys(DEFAULT_EXTRAS, "false")
SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def has(folder: Path) -> dict[str, bool]:
    config = json.loads((folder / "config.json").read_text())
    return {name: config.get(name, False) for name in DEFAULT_EXTRAS}


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "new"
    runs.run_here(data=corpus, output_dir=folder, **FIELDS)
    return folder


@pytest.fixture(scope="module")
def plain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "plain"
    runs.run_here(data=corpus, output_dir=folder, **FIELDS, **PLAIN)
    return folder


def test_it_is_there_and_the_card_says_so(finished: Path) -> None:
    assert has(finished) == dict.fromkeys(DEFAULT_EXTRAS, True)
    card = (finished / "README.md").read_text()
    assert all(f"| {name} | True |" in card for name in DEFAULT_EXTRAS)
    assert [name for name in runs.weights(finished) if name.endswith(("head_gate.weight", "value_mix"))]


def test_what_it_costs_to_leave_it_out_is_what_was_measured() -> None:
    section = (ROOT / "RESULTS.md").read_text().partition("\n## 26. ")[2].partition("\n## ")[0]
    table = section.partition("| without, bits/byte | with both | difference |")[2].partition("\n\n")[0]
    rows = [line.split("|") for line in table.splitlines() if "M tokens" in line]
    gains = [Decimal(gain) for row in rows for gain in re.findall(r"-(\d\.\d+)", row[4])]
    low, high = (each.quantize(Decimal("0.01"), ROUND_HALF_UP) for each in (min(gains), max(gains)))
    most = [max(float(each) for each in re.findall(rf"([\d.]+)M {of}", table)) for of in ("parameters", "tokens")]
    reach = "{:.0f} million parameters and {:.0f} million tokens".format(*map(math.floor, most))
    assert f"{low} to {high} bits/byte more, measured up to {reach}" == COST and len(gains) > 5


@pytest.mark.parametrize("recipe", [{}, {"objective": "masked"}])
def test_the_plan_names_it_and_what_leaves_it_out(
    recipe: dict, english: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for fields, line in (
        ({}, "attention_gate, value_residual (a lower loss; false for a model to export to a stock class)"),
        ({"attention_gate": "false"}, "value_residual (a lower loss; false for a model to export to a stock class)"),
        (PLAIN, None),
    ):
        runs.run_here(data=english, output_dir=tmp_path / "run", plan="true", **FIELDS, **recipe, **fields)
        found = [words for words in capsys.readouterr().out.splitlines() if words.startswith("  added")]
        assert found == ([] if line is None else [f"  added       {line}"])


def test_a_model_for_serving_is_of_a_stock_shape_and_cuts_text_as_gpt2_does(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """`--for serving`, and what it cannot be given with; the run goes on with the same words."""
    text = runs.write_text(tmp_path / "text.txt", 40)
    fields = {"train_files": text, "output_dir": tmp_path / "run", "for": "serving", "vocab_size": 300}
    fields |= {name: value for name, value in FIELDS.items() if name != "max_steps"}
    runs.run_here(**fields, max_steps=5)
    assert "  for         serving: without attention_gate and value_residual (0.02 to" in capsys.readouterr().out
    assert has(tmp_path / "run") == dict.fromkeys(DEFAULT_EXTRAS, False)
    cut = AutoTokenizer.from_pretrained(tmp_path / "run").backend_tokenizer.pre_tokenizer
    assert [piece for piece, _ in cut.pre_tokenize_str("It's 12345")] == ["It", "'s", "Ġ12345"]
    stock = find_family("qwen3").export_config(WeftConfig.from_pretrained(tmp_path / "run"), "causal")
    assert stock.model_type == "qwen3"
    runs.run_here(**fields, max_steps=5)
    assert "is finished" in capsys.readouterr().out
    fields["output_dir"] = tmp_path / "other"
    for wrong, sentence in (
        ({"value_residual": "true"}, "value_residual cannot be given for serving, which leaves it out"),
        ({"config_name": tmp_path / "run"}, "purpose cannot be given together with config_name"),
        ({"for": "speed"}, "purpose is 'speed'"),
        ({"objective": "masked"}, "unknown field --for"),
    ):
        with pytest.raises(RecipeError, match=sentence):
            runs.run_here(**{**fields, **wrong}, max_steps=5)
    assert not (tmp_path / "other").exists()


def test_it_is_left_out_where_that_is_asked_for(plain: Path) -> None:
    assert has(plain) == dict.fromkeys(DEFAULT_EXTRAS, False)


@pytest.mark.parametrize("kind", ["finished", "plain"])
def test_a_resumed_run_keeps_it_or_keeps_without(
    kind: str, corpus: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Also one that began before there was such a default, and noted nothing of it."""
    folder, source = tmp_path / "run", request.getfixturevalue(kind)
    shutil.copytree(source / "checkpoint-5", folder / "checkpoint-5")
    settings, plan = (json.loads((source / name).read_text()) for name in ("run.json", "plan.json"))
    assert {name: plan[name] for name in DEFAULT_EXTRAS} == has(source)
    if kind == "plain":
        settings = {name: value for name, value in settings.items() if name not in DEFAULT_EXTRAS}
        plan = {name: value for name, value in plan.items() if name not in DEFAULT_EXTRAS}
    (folder / "run.json").write_text(json.dumps(settings))
    (folder / "plan.json").write_text(json.dumps(plan))
    runs.run_here(data=corpus, output_dir=folder, **FIELDS)
    assert has(folder) == has(source)
    found, expected = runs.weights(folder), runs.weights(source)
    assert found.keys() == expected.keys() and all((found[name] == expected[name]).all() for name in expected)


def test_a_shape_or_a_model_of_ones_own_is_taken_as_it_is(plain: Path, corpus: Path, tmp_path: Path) -> None:
    shape = dict.fromkeys(name for name in runs.SMALL_MODEL if name.endswith(("size", "layers", "heads")))
    for number, source in enumerate(({"config_name": plain}, {"model_name_or_path": plain})):
        runs.run_here(data=corpus, output_dir=tmp_path / str(number), **FIELDS, **shape, **source)
        assert has(tmp_path / str(number)) == dict.fromkeys(DEFAULT_EXTRAS, False)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return ft.write_files(tmp_path_factory.mktemp("data"))


def test_a_model_that_is_fine_tuned_from_nothing_has_it_too(
    examples: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ft.run_here(**examples, output_dir=tmp_path / "new")
    assert has(tmp_path / "new") == dict.fromkeys(DEFAULT_EXTRAS, True)
    assert "  added       attention_gate, value_residual (a lower loss;" in capsys.readouterr().out
    ft.run_here(**examples, output_dir=tmp_path / "plain", **PLAIN)
    assert has(tmp_path / "plain") == dict.fromkeys(DEFAULT_EXTRAS, False)
    assert "  added " not in capsys.readouterr().out
    for number, source in enumerate(({"config_name": "plain"}, {"model_name_or_path": "plain"})):
        source = {name: tmp_path / value for name, value in source.items()}
        ft.run_here(**examples, output_dir=tmp_path / str(number), **dict.fromkeys(SHAPE), **source)
        assert has(tmp_path / str(number)) == dict.fromkeys(DEFAULT_EXTRAS, False)


def test_a_fine_tuning_run_that_began_before_there_was_such_goes_on_without(
    examples: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    ft.run_here(**examples, output_dir=folder, **PLAIN)
    with pytest.raises(RecipeError, match="attention_gate was False, now True"):
        ft.run_here(**examples, output_dir=folder)
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(
        json.dumps({name: settings[name] for name in settings if name not in DEFAULT_EXTRAS})
    )
    capsys.readouterr()
    ft.run_here(**examples, output_dir=folder)
    assert "is finished: nothing to train" in capsys.readouterr().out
    ft.run_here(**examples, output_dir=folder, seeds=[1, 2])
    printed = capsys.readouterr().out
    assert (
        f"seed 2 in {folder}" in printed
        and "  added " not in printed
        and has(folder) == dict.fromkeys(DEFAULT_EXTRAS, False)
    )
