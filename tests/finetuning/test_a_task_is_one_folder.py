"""A task that one file defines, registered from outside or lying in the folder, is trained like all others."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from helpers.finetuning import SMALL_RUN
from helpers.toy_tasks import odd_or_even

from weft.recipes import finetune
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning import tasks

FOLDER = Path(odd_or_even.__file__).parent
FIELDS = {**SMALL_RUN, "max_steps": 2, "evaluations": 1, "vocab_size": 300}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(tasks, "_registered", {})
    tasks.register("odd-or-even", odd_or_even.OddOrEven, odd_or_even.KNOWN_TASKS, odd_or_even.OddArguments)


@pytest.fixture
def texts(tmp_path):
    """A folder with the toy's only file."""
    lines = [" ".join("word" for _ in range(1 + number % 7)) + f" {number}" for number in range(60)]
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "counted.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(**fields):
    words = [[f"--{name}", *map(str, value if isinstance(value, list) else [value])] for name, value in fields.items()]
    finetune.main([word for part in words for word in part])


def check(folder):
    """What every finished run has, and the toy's own."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 2 and 0 <= metrics["eval_accuracy"] <= 1
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert "Tells odd texts from even ones." in card and "Counted." in card and "| shift | 1 words |" in card
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == metrics["eval_accuracy"]
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert {row["predicted"] for row in rows} <= set(odd_or_even.NAMES) and len(rows) == 6
    return head


def test_a_registered_task_is_trained_scored_and_reported(registered, texts, capsys):
    fields = {"task": "counted", "data": texts, "output_dir": texts.parent / "run", "shift": 1, **FIELDS}
    run(**fields)
    printed = capsys.readouterr().out
    assert "shift       1 words" in printed and "accuracy" in printed.splitlines()[-1]
    assert check(texts.parent / "run")["datasets"] == ["me/counted"]
    run(**fields, predict_file=texts / "counted.txt")
    assert "is finished: nothing to train" in capsys.readouterr().out
    assert len(list(csv.DictReader((texts.parent / "run" / "predicted.csv").open()))) == 60


def test_a_task_takes_examples_of_ones_own_by_its_name(registered, texts):
    run(task="odd-or-even", train_file=texts / "counted.txt", output_dir=texts / "run", shift=1, **FIELDS)
    assert "datasets" not in check(texts / "run")


def test_its_fields_are_in_help_and_checked_before_any_work(registered, texts, capsys):
    with pytest.raises(SystemExit):
        run(task="counted", help="")
    printed = capsys.readouterr().out
    assert "words that every text is taken to have more" in printed and "Counts words, one at a time." in printed
    with pytest.raises(RecipeError, match="shift is -1: give at least 0"):
        run(task="counted", data=texts, shift=-1, output_dir=texts / "run")
    assert not (texts / "run").exists()


def test_a_folder_among_the_tasks_is_found_by_scanning(texts, monkeypatch):
    place = texts / "packages" / "odd_or_even"
    place.mkdir(parents=True)
    for door in ("__init__", "arguments", "known_tasks", "task"):
        shutil.copy(FOLDER / "odd_or_even.py", place / f"{door}.py")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(place.parent)])
    try:
        assert tasks.known_task_names()["counted"] == "odd_or_even" and "odd_or_even" in tasks.task_names()
        run(task="counted", data=texts, output_dir=texts / "run", shift=1, **FIELDS)
    finally:
        for name in [name for name in sys.modules if ".tasks.odd_or_even" in name]:
            del sys.modules[name]
    check(texts / "run")


def test_a_name_that_is_taken_is_refused(registered):
    class Another(odd_or_even.OddOrEven):
        pass

    for name, known in (("seq2seq", {}), ("odd-or-even", {}), ("other", {"sst2": odd_or_even.KNOWN_TASKS["counted"]})):
        with pytest.raises(ValueError, match=r"is called .* already: choose another name"):
            tasks.register(name, Another, known)
    tasks.register("odd-or-even", odd_or_even.OddOrEven, odd_or_even.KNOWN_TASKS)  # the same again, as in a notebook


@pytest.mark.parametrize("name", tasks.task_names())
def test_every_task_has_the_same_doors(name):
    assert tasks.task_class(name).__doc__ and tasks.arguments_of(name).command
    assert tasks.known_task(name, "no such data set") is None
