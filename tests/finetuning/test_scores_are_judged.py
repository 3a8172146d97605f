"""A finished run says what its scores are worth: beside answers without a model, and by how many examples."""

import contextlib
import copy
import io
import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import finetuning as ft
from helpers.toy_tasks import odd_or_even
from scipy import stats

from weft.recipes import finetune_choice, finetune_classification, finetune_qa, finetune_seq2seq, finetune_tokens
from weft.recipes.finetuning.baseline import constant_baselines
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import EncodedExample
from weft.recipes.finetuning.judgement import PARTS, Judge, SplitJudgement, closing_figures, interval_of, notes_of
from weft.recipes.finetuning.tasks.seq2seq.reading import TextPair
from weft.recipes.finetuning.tasks.seq2seq.scoring import beginnings
from weft.recipes.finetuning.trainer import SeedResult

NAMES = {0: "no", 1: "yes", 2: "perhaps"}


def items_of(targets: list) -> list[EncodedExample]:
    return [EncodedExample([[1, 2, 3]], number, target) for number, target in enumerate(targets)]


def toy(labels: list[int]) -> odd_or_even.OddOrEven:
    """The toy task with a validation split of such labels, without files."""
    task = object.__new__(odd_or_even.OddOrEven)
    task.examples, task.shift = {"train": [], "validation": [f"text {n}" for n in range(len(labels))]}, 0
    return task


def logits(classes: list[int]) -> list:
    return [torch.eye(2)[number] * 3 for number in classes]


def seed_result(validation: list[float], training: list[float], step: int | None = None, score: float = 0.5):
    """A seed whose losses were these at steps 10, 20 ..."""
    history = [{"step": 10 * n, "loss": loss} for n, loss in enumerate(training, 1)]
    history += [{"step": 10 * n, "eval_loss": loss, "eval_accuracy": score} for n, loss in enumerate(validation, 1)]
    last = 10 * len(validation)
    return SeedResult(1, {"accuracy": score}, step or last, last, 1.0, None, history)


CALM = seed_result([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("targets", "answer", "logit"),
    [
        ([0, 1, 1, 2, 1], "always answers 'yes', the majority", 1),
        ([1.0, 2.0, 6.0], "always answers 3, the mean", 3.0),
        ([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]], "always answers 'no', the most frequent", [0]),
        (
            [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]],
            "always answers 'no' and 'yes', the most frequent",
            [0, 1],
        ),
    ],
)
def test_a_constant_answer_follows_from_the_targets_of_any_task(targets: list, answer: str, logit: object) -> None:
    (found,) = constant_baselines(items_of(targets[:2]), items_of(targets), NAMES, lambda out, _: list(out.logits))
    assert found.answer == answer and len(found.results) == 2
    row = found.results[0].numpy()
    if isinstance(logit, list):
        assert np.flatnonzero(row > 0).tolist() == logit
    else:
        assert row.argmax() == logit if len(row) > 1 else row[0] == pytest.approx(logit)


def test_targets_of_another_form_and_results_of_more_than_logits_have_none() -> None:
    assert constant_baselines(items_of([[5, 7]]), items_of([[5, 7]]), NAMES, lambda out, _: list(out.logits)) == []
    assert constant_baselines(items_of([0]), items_of([0]), NAMES, lambda out, _: out.start_logits) == []


def test_a_new_task_is_judged_without_a_line_of_its_own() -> None:
    labels = [0] * 14 + [1] * 6
    task, items = toy(labels), items_of(labels)
    judged = Judge(task, items_of([0, 0, 1])).of_split("validation", items, logits([0] * 20), {"accuracy": 0.7})
    (baseline,) = judged.baselines
    assert baseline == {"answer": "always answers 'even', the majority", "accuracy": pytest.approx(0.7)}
    line = closing_figures(task, {"accuracy": 0.7}, judged)
    assert line == ("accuracy 0.7000 (95% interval 0.4810 to 0.8545; always answers 'even', the majority: 0.7000)")


def test_a_share_of_the_examples_has_wilson_s_interval() -> None:
    labels, said = [0, 1] * 25, [0, 1] * 20 + [1, 0] * 5
    found = interval_of(toy(labels), "validation", items_of(labels), logits(said), "accuracy", 0.8)
    expected = stats.binomtest(40, 50).proportion_ci(0.95, method="wilson")
    assert found == pytest.approx((expected.low, expected.high))


def test_other_metrics_have_the_interval_of_a_jackknife() -> None:
    """The mean of numbers, of which the delete-a-group jackknife is known in closed form."""
    draw = np.random.default_rng(0)
    numbers = draw.normal(10, 2, 200)
    task = toy([0] * 200)
    task.score = lambda split, items, results: {"loss": float(np.mean(results))}
    found = interval_of(task, "validation", items_of([0] * 200), list(numbers), "loss", float(numbers.mean()))
    means = np.array([numbers[part::PARTS].mean() for part in range(PARTS)])
    reach = stats.t.ppf(0.975, PARTS - 1) * means.std(ddof=1) / math.sqrt(PARTS)
    assert found == pytest.approx((numbers.mean() - reach, numbers.mean() + reach))


def test_an_error_is_never_thought_to_be_negative() -> None:
    """Of a mean that one example makes, half of the interval lies below 0."""
    task, errors = toy([0] * 20), [0.0] * 19 + [100.0]
    task.best_metric = BestMetric("mse", greater_is_better=False)
    task.score = lambda split, items, results: {"mse": float(np.mean(results))}
    low, high = interval_of(task, "validation", items_of([0] * 20), errors, "mse", 5.0)
    assert low == 0 and high > 10


def test_nothing_is_said_of_the_interval_of_too_few_examples() -> None:
    assert interval_of(toy([0, 1]), "validation", items_of([0, 1]), logits([0, 1]), "accuracy", 1.0) is None


def test_a_task_is_left_as_it_was() -> None:
    labels = [0, 1] * 10
    task = toy(labels)
    before = copy.deepcopy(task.__dict__)
    Judge(task, items_of(labels)).of_split("validation", items_of(labels), logits(labels), {"accuracy": 1.0})
    assert task.__dict__ == before


def judged(examples: int, interval: tuple[float, float] | None, baseline: float) -> SplitJudgement:
    return SplitJudgement(examples, interval, [{"answer": "always answers 'even', the majority", "accuracy": baseline}])


@pytest.mark.parametrize(
    ("score", "split", "settings", "said"),
    [
        (
            0.7,
            judged(500, (0.66, 0.74), 0.7),
            {},
            "no better than without a model .*: 0.7000.*num_train_epochs.*model_na",
        ),
        (
            0.7,
            judged(500, (0.66, 0.74), 0.8),
            {"max_steps": 9, "model_name_or_path": "x"},
            "longer .max_steps.*learning",
        ),
        (0.72, judged(500, (0.68, 0.76), 0.7), {}, "500 validation examples are too few to tell accuracy 0.7200 from"),
        (0.9, judged(20, (0.7, 0.97), 0.5), {}, "20 validation examples are few.*validation_fraction"),
        (0.9, judged(20, (0.7, 0.97), 0.5), {"validation_file": "x"}, "few.*give more of them in validation_file"),
        (0.9, judged(20, None, 0.5), {}, "few"),
    ],
)
def test_a_score_that_says_little_is_said_to_with_the_field_that_helps(score, split, settings, said) -> None:
    (note,) = notes_of(toy([]), [], {"accuracy": score}, split, settings, CALM)
    assert re.search(said, note), note
    assert ("model_name_or_path" in note) == ("pretrained" in note) and "\n" not in note


def test_a_good_score_on_many_examples_needs_no_note() -> None:
    assert notes_of(toy([]), [], {"accuracy": 0.9}, judged(500, (0.87, 0.93), 0.5), {}, CALM) == []


def test_overfitting_and_a_training_that_was_too_short_are_seen_in_the_curve() -> None:
    def say(**curve) -> list[str]:
        return notes_of(toy([]), [], {"accuracy": 0.9}, judged(500, (0.87, 0.93), 0.5), {}, seed_result(**curve))

    falling = [0.9, 0.7, 0.5, 0.3, 0.2, 0.1]
    (note,) = say(validation=[0.8, 0.6, 0.5, 0.55, 0.6, 0.7], training=falling, step=30)
    assert "rose from 0.5000 at step 30 to 0.7000" in note and "weights of step 30 are kept" in note
    assert "patience" in note and "learning_rate" in note
    assert say(validation=[0.8, 0.6, 0.5, 0.55, 0.6, 0.7], training=falling[::-1], step=30) == []  # it diverged
    (note,) = say(validation=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], training=falling)
    assert "still falling, by 20.0% since step 50" in note and "num_train_epochs" in note
    assert say(validation=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], training=falling, score=1.0) == []
    assert say(validation=[0.9, 0.5, 0.45, 0.44, 0.438, 0.437], training=falling) == []


def test_a_summary_is_compared_with_the_beginning_and_a_translation_with_the_source() -> None:
    long, short = TextPair("a b c d e f g h", ("a b",), ""), TextPair("a b c", ("x y z",), "")
    assert beginnings([long], [long], True) == ("copies the first 2 words of the source", ["a b"])
    assert beginnings([short], [short], True) == ("copies the source", ["a b c"])
    han = TextPair("天地玄黄宇宙洪荒", ("天地",), "")
    assert beginnings([han], [han], False) == ("copies the first 2 characters of the source", ["天地"])


def rows(recipe: str, number: int) -> list[dict]:
    """Examples that nothing can be learnt from, with answers of unequal frequency."""
    draw = random.Random(number)
    found = []
    for _ in range(number):
        text = " ".join(draw.choices(ft.OTHERS, k=6))
        if recipe == "choice":
            found.append({"question": text, "choices": ["one", "two", "three"], "label": draw.choice([0, 1, 1])})
        elif recipe == "qa":
            is_there = draw.random() < 0.5
            answers = {"text": [text.split()[0]] * is_there, "answer_start": [0] * is_there}
            found.append({"id": str(draw.random()), "question": text, "context": text, "answers": answers})
        elif recipe == "seq2seq":
            found.append({"source": text, "target": text.split()[0]})
        else:
            found.append({"text": text, "label": draw.choice(["fine", "fine", "wrong"])})
    return found


def finish(recipe: str, main, folder: Path, **fields: object) -> tuple[dict, str, str]:
    """A run of a step at a rate at which nothing is learnt: its metrics, its card and the last lines it printed."""
    if recipe == "tokens":
        lines = ["\n".join(f"{word} {'B-PER' if word == 'bird' else 'O'}" for word in ft.OTHERS) for _ in range(12)]
        files = {name: folder / f"{name}.txt" for name in ("train_file", "validation_file")}
        for path in files.values():
            path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    else:
        files = {
            name: ft.write_rows(folder / f"{name}.jsonl", rows(recipe, n))
            for name, n in (("train_file", 40), ("validation_file", 24))
        }
    small = {"max_steps": 1, "evaluations": 1, "learning_rate": 1e-6, "output_dir": folder / "run"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(ft.command(**files, **small, **fields))
    return ft.metrics(folder / "run"), (folder / "run" / "README.md").read_text("utf-8"), printed.getvalue()


@pytest.mark.parametrize(
    ("recipe", "main", "answers"),
    [
        ("classification", finetune_classification.main, ["always answers 'fine', the majority"]),
        ("tokens", finetune_tokens.main, ["finds no entity"]),
        ("choice", finetune_choice.main, ["by chance", "always answers choice 2, the most frequent"]),
        ("qa", finetune_qa.main, ["never answers"]),
        ("seq2seq", finetune_seq2seq.main, ["copies the first 1 words of the source"]),
    ],
)
def test_every_task_ends_with_its_scores_beside_those_without_a_model(tmp_path, recipe, main, answers) -> None:
    metrics, card, printed = finish(recipe, main, tmp_path)
    *_, closing = printed.splitlines()
    found = metrics["baselines"]["validation"]
    assert [one["answer"] for one in found] == answers
    for one in found:
        assert f"{one['answer']}: " in closing and one["answer"] in card
    name = {"tokens": "f1", "qa": "f1", "seq2seq": "chrf"}.get(recipe, "accuracy")
    low, high = metrics["intervals"]["validation"][name]
    assert low <= metrics[f"eval_{name}"] <= high and f"95% interval {low:.4f} to {high:.4f}" in closing
    assert metrics["notes"] and all(f"note: {note}\n" in printed for note in metrics["notes"])
    body = card.split("\n---\n", 1)[1]
    assert "Before you rely on these scores:" in body and len(body.split("\n- ")) == len(metrics["notes"]) + 1
    json.dumps(metrics, allow_nan=False)
    if recipe == "classification":
        gold = [row["label"] for row in rows(recipe, 24)]
        assert found[0]["accuracy"] == pytest.approx(gold.count("fine") / 24)
    if recipe == "choice":
        assert found[0]["accuracy"] == pytest.approx(1 / 3)
    if recipe == "qa":
        nothing = [row for row in rows(recipe, 24) if not row["answers"]["text"]]
        assert found[0]["f1"] == pytest.approx(100 * len(nothing) / 24)
    if recipe == "seq2seq":
        assert found[0]["chrf"] == pytest.approx(100) and found[0]["rougeL"] == pytest.approx(1)
