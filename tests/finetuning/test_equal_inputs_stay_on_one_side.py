"""What is scored is not trained on: equal texts are held out together, and files that share some are warned of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.task import Task
from weft.recipes.finetuning.tasks import arguments_of, task_class
from weft.recipes.finetuning.validation_split import describe_equal_inputs, hold_out, split_off

FORMS: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "text_classification": lambda text, n: {"text": text, "label": "ab"[n % 2]},
    "token_classification": lambda text, n: {"tokens": text.split(), "ner_tags": ["B-X", "O", "I-X" if n % 2 else "O"]},
    "question_answering": lambda text, n: {
        "id": f"{n}", "question": f"what is {n}?", "context": text, "answers": {"text": ["the"], "answer_start": [0]}
    },
    "multiple_choice": lambda text, n: {"question": text, "choices": [f"{n}", "no"], "label": n % 2},
    "seq2seq": lambda text, n: {"source": text, "target": f"{n}"},
}  # fmt: skip


def write(path: Path, task: str, texts: list[str]) -> Path:
    rows = [FORMS[task](text, number) for number, text in enumerate(texts)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def read(task: str, **fields: Any) -> Task:
    return task_class(task).read(arguments_of(task)(**fields), FineTuningArguments())


def inputs(task: Task) -> dict[str, list[Any]]:
    return {split: [task.input_of(example) for example in examples] for split, examples in task.examples.items()}


def lines(task: Task) -> dict[str, str]:
    return dict(describe_equal_inputs(inputs(task), task.input_name))


@pytest.mark.parametrize("task", FORMS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_texts_are_held_out_together(tmp_path: Path, task: str, seed: int) -> None:
    texts = [f"the text {number}" for number in range(40)]
    again = [text.replace(" ", "  ") if task != "token_classification" else text for text in texts[:25]]
    path = write(tmp_path / "train.jsonl", task, [*texts, *again])
    found = read(task, train_file=str(path), split_seed=seed)
    sides = inputs(found)
    assert not set(sides["train"]) & set(sides["validation"])
    assert len(sides["train"]) + len(sides["validation"]) == 65
    assert len(set(sides["validation"])) == 4
    assert inputs(read(task, train_file=str(path), split_seed=seed)) == sides
    [(name, line)] = lines(found).items()
    assert name == f"equal {found.input_name}s"
    shared = {split: sum(side.count(one) > 1 for one in side) for split, side in sides.items()}
    assert sum(shared.values()) == 50
    assert f"{shared['train']} of {len(sides['train'])} train" in line
    assert "none is both trained on and scored on" in line


@pytest.mark.parametrize("task", FORMS)
def test_files_that_share_texts_are_warned_of(tmp_path: Path, task: str) -> None:
    texts = [f"the text {number}" for number in range(40)]
    files = {
        "train_file": write(tmp_path / "train.jsonl", task, texts[:20]),
        "validation_file": write(tmp_path / "validation.jsonl", task, texts[17:30]),
        "test_file": write(tmp_path / "test.jsonl", task, texts[30:]),
    }
    found = read(task, **{name: str(path) for name, path in files.items()})
    assert list(lines(found)) == ["warning"]
    assert lines(found)["warning"].startswith(f"3 of 13 validation examples with the {found.input_name} of a training")
    files["test_file"] = write(tmp_path / "test.jsonl", task, texts[19:31])
    both = describe_equal_inputs(inputs(read(task, **{name: str(path) for name, path in files.items()})), "text")
    assert [line.split(" with")[0] for name, line in both if name == "warning"] == [
        "3 of 13 validation examples",
        "1 of 12 test examples",
    ]


def test_without_equal_texts_the_split_is_that_of_the_examples() -> None:
    files = arguments_of("text_classification")(train_file="x", split_seed=5)
    labels = ["a", "b", "b"] * 20
    for strata in (None, labels):
        assert hold_out(range(60), files, strata) == split_off(60, 0.1, 5, strata)
    assert describe_equal_inputs({"train": range(9), "validation": range(9, 12)}, "text") == []


def test_shares_of_labels_are_kept_where_texts_are_equal() -> None:
    files = arguments_of("text_classification")(train_file="x", validation_fraction=0.2)
    texts, labels = [n // 2 for n in range(100)], [n // 2 % 5 for n in range(100)]
    _, held_out = hold_out(texts, files, labels)
    assert sorted(labels[index] for index in held_out) == sorted([*range(5)] * 4)


@pytest.mark.parametrize("task", FORMS)
def test_one_text_for_all_examples_cannot_be_divided(tmp_path: Path, task: str) -> None:
    path = write(tmp_path / "train.jsonl", task, ["the one text"] * 6)
    with pytest.raises(RecipeError, match="all 6 training examples have the same input, so none can be held out"):
        read(task, train_file=str(path))


def test_a_single_example_is_counted_in_the_singular() -> None:
    with pytest.raises(RecipeError, match=r"^1 training example cannot be divided"):
        split_off(1, 0.1, 0)
