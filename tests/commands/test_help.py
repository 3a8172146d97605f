"""--help shows what most people need on three screens, --help_all every field, each with its own text and default."""

import dataclasses
import re

import pytest
from transformers import TrainingArguments

from weft import WeftConfig
from weft.recipes.common.class_source import config_texts
from weft.recipes.common.command_line import MANAGED_MODEL_FIELDS, MANAGED_TRAINER_FIELDS, parse_arguments
from weft.recipes.common.options import Options, option, rules_of
from weft.recipes.data.arguments import DataArguments
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.command import finetune
from weft.recipes.finetuning.tasks import task_names
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.command import pretrain
from weft.recipes.training.model_arguments import ModelArguments

OWN = [RunArguments, DataArguments, ModelArguments]
GIVEN = re.compile(r"^  --(\w+)", re.MULTILINE)


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch):
    """What fits on a line follows the terminal."""
    monkeypatch.setenv("COLUMNS", "110")


def printed(capsys, call, *arguments):
    with pytest.raises(SystemExit) as ended:
        call(*arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


def shown(capsys, word, groups=OWN, whole=True):
    return printed(capsys, parse_arguments, "What it does.", groups, whole, whole, [word])


def of_field(page, name):
    """The text that a page has for a field, on one line."""
    found = re.search(rf"^  --{name} .*?(?=^  --|^\S|\Z)", page, re.MULTILINE | re.DOTALL)
    return " ".join(found.group().split())


def test_help_all_shows_every_field_once(capsys):
    names = GIVEN.findall(shown(capsys, "--help_all"))
    own = {field.name for group in OWN for field in dataclasses.fields(group)}
    model = {field.name for field in dataclasses.fields(WeftConfig)} & set(config_texts()) - set(MANAGED_MODEL_FIELDS)
    trainer = {field.name for field in dataclasses.fields(TrainingArguments)} - set(MANAGED_TRAINER_FIELDS)
    assert sorted(names) == sorted(own | model | trainer)


def test_help_shows_all_but_the_rare_fields_and_says_how_many_there_are(capsys):
    usual, everything = (GIVEN.findall(shown(capsys, word)) for word in ("--help", "--help_all"))
    assert set(usual) < set(everything)
    own = [field for group in OWN for field in dataclasses.fields(group)]
    assert all((field.name in usual) != rules_of(field).rare for field in own)
    assert {"hidden_size", "save_steps", "report_to"} <= set(usual)
    assert f"--help_all shows {len(everything) - len(usual)} more fields" in shown(capsys, "--help")


@pytest.mark.parametrize("objective", ["causal", "masked", "hybrid", "span", "mixture"])
def test_the_help_of_pretraining_is_short(capsys, objective):
    page = printed(capsys, pretrain, objective, "runs/any", "What it does.", ["--help"], [objective])
    assert len(page.splitlines()) < 170 and "usage: " in page and "What it does." in page


@pytest.mark.parametrize("task", task_names())
def test_the_help_of_finetuning_is_short(capsys, task):
    assert len(printed(capsys, finetune, task, "What it does.", ["--help"]).splitlines()) < 170


def test_a_field_shows_its_default_and_what_it_may_be(capsys):
    page = shown(capsys, "--help_all")
    assert of_field(page, "validation_fraction").endswith("[0.02]")
    assert of_field(page, "dedup").startswith("--dedup exact|near|off ") and of_field(page, "dedup").endswith("[exact]")
    assert of_field(page, "sample_characters").endswith("[100,000,000]")
    assert of_field(page, "plan") == "--plan true|false print the plan and stop"
    assert of_field(page, "train_files").startswith("--train_files TEXT ...")
    assert of_field(page, "max_steps").startswith("--max_steps NUMBER")


def test_fields_that_share_an_entry_get_each_their_own_part(capsys):
    page = shown(capsys, "--help_all")
    assert of_field(page, "hidden_size") == "--hidden_size NUMBER width of the residual stream"
    assert of_field(page, "num_hidden_layers") == "--num_hidden_layers NUMBER number of layers"
    assert of_field(page, "num_attention_heads") == "--num_attention_heads NUMBER number of query heads"
    assert of_field(page, "lm_head_bias").endswith("in the head's output matrix")


def test_no_entry_of_several_fields_is_shown_whole_for_each():
    texts = [text for name, text in config_texts().items()]
    assert len(texts) == len(set(texts))


def test_fields_stand_under_what_their_class_is_about(capsys):
    class Base(Options):
        """Where it is. And more."""

    Base.__annotations__ = {"place": str}
    Base.place = option("here", "the place")
    Derived = dataclasses.make_dataclass(
        "Derived", [("size", int, option(7, "how large"))], bases=(dataclasses.dataclass(Base),)
    )
    page = shown(capsys, "--help", [Derived, FineTuningArguments], whole=False)
    assert re.search(
        r"^Where it is:\n  --place TEXT +the place \[here\]\n  --size NUMBER +how large \[7\]\n", page, re.MULTILINE
    )
    assert page.index("Where it is:") < page.index("Length, batch and schedule")
