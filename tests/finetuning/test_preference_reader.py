"""Preferences are read from every usual form, and a broken row is named by file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import finetuning as ft

from weft.recipes import finetune_preferences
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.tasks.preferences import arguments
from weft.recipes.finetuning.tasks.preferences.arguments import PreferenceArguments
from weft.recipes.finetuning.tasks.preferences.reading import read_preferences, told
from weft.recipes.finetuning.tasks.preferences.task import Preferences

ASKED = [{"role": "user", "content": "Is it warm?"}]
YES, NO = [{"role": "assistant", "content": "Yes."}], [{"role": "assistant", "content": "No."}]
FORMS: dict[str, dict[str, Any]] = {
    "messages everywhere": {"prompt": ASKED, "chosen": YES, "rejected": NO},
    "a prompt in text": {"prompt": "Is it warm?", "chosen": YES, "rejected": NO},
    "answers in text": {"prompt": ASKED, "chosen": "Yes.", "rejected": "No."},
    "messages and answers": {"messages": ASKED, "chosen": "Yes.", "rejected": NO},
    "two conversations": {"chosen": ASKED + YES, "rejected": ASKED + NO},
    "two conversations and the prompt": {"prompt": "Is it warm?", "chosen": ASKED + YES, "rejected": ASKED + NO},
    "turns of ShareGPT": {
        "conversations": [{"from": "human", "value": "Is it warm?"}],
        "chosen": [{"from": "gpt", "value": "Yes."}],
        "rejected": [{"from": "gpt", "value": "No."}],
    },
}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "both the same": ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the chosen answer is the rejected one: drop"),
    "the same conversation": (
        {"chosen": ASKED + YES, "rejected": ASKED + YES},
        "the chosen answer is the rejected one",
    ),
    "an empty answer": ({"prompt": "a", "chosen": " ", "rejected": "b"}, "the text in column 'chosen' is empty"),
    "an empty prompt": ({"prompt": "", "chosen": "a", "rejected": "b"}, "the text in column 'prompt' is empty"),
    "no prompt": ({"chosen": "a", "rejected": "b"}, "no prompt: there are chosen, rejected; name it with --prompt_col"),
    "no prompt in messages": ({"chosen": YES, "rejected": NO}, "no prompt: the answers begin with the assistant"),
    "no rejected answer": ({"prompt": "a", "chosen": "b"}, "no column 'rejected': there are prompt, chosen; name it"),
    "an empty message": (
        {"prompt": ASKED, "chosen": [{"role": "assistant", "content": ""}], "rejected": NO},
        "an empty",
    ),
    "no message": ({"prompt": ASKED, "chosen": [], "rejected": NO}, "the list in column 'chosen' is empty"),
    "an answer to an answer": ({"prompt": ASKED + YES, "chosen": YES, "rejected": NO}, "two answers in a row"),
    "nothing but the prompt": (
        {"chosen": ASKED + YES, "rejected": ASKED},
        "no answer to the last message (user)",
    ),
    "other questions": (
        {"chosen": ASKED + YES, "rejected": [{"role": "user", "content": "Is it cold?"}, *NO]},
        "an answer begins with user behind what both share",
    ),
    "an odd label": ({"prompt": "a", "completion": "b", "label": "good"}, "column 'label' holds 'good': give true or"),
    "another kind": ({"prompt": "a", "completion": "b", "label": True}, "texts with a single answer, where"),
    "half a pair": ({"prompt": "a", "chosen": "\ud83d", "rejected": "b"}, "half of a surrogate pair"),
}
GOOD = {"prompt": "Is it", "chosen": " warm.", "rejected": " cold."}


def read(folder: Path, rows: list[dict[str, Any]], **columns: Any) -> list[Any]:
    return read_preferences(ft.write_rows(folder / "a.jsonl", rows), PreferenceArguments(**columns))


@pytest.mark.parametrize("form", FORMS)
def test_a_pair_of_messages_is_read_from_every_form(form: str, tmp_path: Path) -> None:
    (preference,) = read(tmp_path, [FORMS[form]])
    assert preference.prompt == ASKED and preference.answers == (YES, NO) and preference.wanted is None
    assert preference.where == f"{tmp_path / 'a.jsonl'}, line 1" and preference.is_conversation


def test_what_both_share_goes_to_the_last_question(tmp_path: Path) -> None:
    more = [*ASKED, *YES, {"role": "user", "content": "And there?"}]
    (pair,) = read(tmp_path, [{"chosen": more + NO, "rejected": more + YES}])
    assert pair.prompt == more and pair.answers == (NO, YES)
    (single,) = read(tmp_path, [{"completion": more + NO, "label": False}])
    assert single.prompt == more and single.answers == (NO,) and single.wanted is False


def test_texts_stay_as_they_are(tmp_path: Path) -> None:
    (pair,) = read(tmp_path, [GOOD])
    assert (pair.prompt, pair.answers) == ("Is it", (" warm.", " cold."))
    row = {"of": {"asked": "Is it"}, "better": " warm.", "worse": " cold."}
    columns = {"prompt_column": "of.asked", "chosen_column": "better", "rejected_column": "worse"}
    assert read(tmp_path, [row], **columns)[0].answers == pair.answers
    assert told(YES) == "Yes." and told(ASKED) == "user: Is it warm?"


@pytest.mark.parametrize("label, wanted", [(True, True), (0, False), ("1", True), ("False", False)])
def test_labels_are_true_or_false(label: Any, wanted: bool, tmp_path: Path) -> None:
    (single,) = read(tmp_path, [{"prompt": "a", "completion": "b", "label": label}])
    assert single.wanted is wanted and single.answers == ("b",)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_row_is_named(fault: str, tmp_path: Path) -> None:
    row, sentence = BROKEN[fault]
    with pytest.raises(RecipeError) as refused:
        read(tmp_path, [GOOD, row])
    assert f"{tmp_path / 'a.jsonl'}, line 2" in str(refused.value) and sentence in str(refused.value)


def task(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Preferences:
    files = PreferenceArguments(train_file=str(ft.write_rows(folder / "train.jsonl", rows)), **fields)
    return Preferences.read(files, FineTuningArguments())


def test_rows_that_a_loss_cannot_learn_from_are_refused(tmp_path: Path) -> None:
    singles = [{"prompt": f"a {i}", "completion": f"b {i}", "label": True} for i in range(4)]
    for rows, fields, sentence in (
        (singles, {}, "loss dpo compares two answers, and"),
        (singles, {"loss": "orpo"}, "has one: give --loss kto"),
        (singles, {"loss": "kto"}, "all 3 answers of train are wanted: give both kinds"),
    ):
        with pytest.raises(RecipeError, match=sentence):
            task(tmp_path, rows, **fields)


def test_equal_prompts_are_held_out_together(tmp_path: Path) -> None:
    rows = [{"prompt": f"a {i % 5}", "chosen": f"b {i}", "rejected": "c"} for i in range(20)]
    splits = task(tmp_path, rows, validation_fraction=0.4).examples
    asked = {split: {example.prompt for example in examples} for split, examples in splits.items()}
    assert not asked["train"] & asked["validation"] and len(splits["validation"]) == 8


def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments.importlib.metadata, "version", lambda name: "1.16.0")
    pairs = ft.write_rows(tmp_path / "pairs.jsonl", [{**GOOD, "prompt": f"Is it {i}"} for i in range(8)])
    fields = {"train_file": pairs, "output_dir": tmp_path / "run", "seeds": None}
    none = {**dict.fromkeys(ft.SMALL_RUN), "use_cpu": "true"}
    for given, sentence in (
        ({"train_file": None}, "no examples are given: give train_file, or dataset_name"),
        ({"loss": "ppo"}, "loss is 'ppo' (did you mean"),
        ({"desirable_weight": 2}, "desirable_weight is for --loss kto: leave it out"),
        ({"beta": 0}, "beta is 0.0: give a number above 0"),
        ({"preset": "small"}, "preset is given: preferences change a model that writes"),
        ({"batching": "packed"}, "batching is given: TRL's trainers pad"),
        ({"predict_file": pairs}, "predict_file is given: prompts without answers are nothing to score"),
        ({}, "preferences change a model that writes: give model_name_or_path"),
    ):
        assert sentence in ft.run_error(finetune_preferences.main, **{**none, **fields, **given}), given
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("found, sentence", [(None, "needs the package trl"), ("0.9.4", "1.16 or newer, and 0.9.4 is")])
def test_a_missing_trl_is_said_with_the_command_that_brings_it(
    found: str | None, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise arguments.importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(arguments.importlib.metadata, "version", version)
    path = ft.write_rows(tmp_path / "pairs.jsonl", [GOOD])
    refused = ft.run_error(finetune_preferences.main, train_file=path, model_name_or_path=tmp_path)
    assert sentence in refused and refused.endswith("pip install 'trl>=1.16'.") and refused.startswith("loss dpo needs")


def test_the_rows_of_a_folder_of_files_are_read(tmp_path: Path) -> None:
    for name, number in (("train", 6), ("validation", 2)):
        rows = [json.dumps({**GOOD, "prompt": f"{name} {i}"}) for i in range(number)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    read_task = Preferences.read(PreferenceArguments(dataset_name=str(tmp_path)), FineTuningArguments())
    assert {split: len(examples) for split, examples in read_task.examples.items()} == {"train": 6, "validation": 2}
