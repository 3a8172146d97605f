"""A finished pretraining run says what its losses are worth: by how much held-out text, and how its curve ended."""

import json
import re

import pytest
import torch

from weft.recipes import pretrain_clm
from weft.recipes.pretraining.judgement import notes_of
from weft.recipes.pretraining.objectives.causal import CausalEvaluator
from weft.recipes.training.learning_curve import overfits, still_falls

ENOUGH = {"documents": 900, "tokens": 50_000}
LEVEL = [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
FALLING = [3.0, 2.8, 2.6, 2.4, 2.2, 2.0, 1.8, 1.6, 1.4, 1.2]


def history(validation: list[float], training: list[float]) -> list[dict]:
    return [{"step": 10 * n, "loss": loss} for n, loss in enumerate(training, 1)] + [
        {"step": 10 * n, "eval_loss": loss} for n, loss in enumerate(validation, 1)
    ]


def notes(validation=LEVEL, training=LEVEL, held_out=ENOUGH, error=0.001, **settings) -> list[str]:
    return notes_of(history(validation, training), held_out, 2.0, error, settings)


def test_a_sure_loss_at_the_end_of_a_level_curve_needs_no_note() -> None:
    assert notes() == notes(error=None) == []


@pytest.mark.parametrize(
    ("held_out", "error", "said"),
    [
        (
            {"documents": 1, "tokens": 900},
            None,
            r"small \(1 document, 900 tokens\): hold out more \(validation_fraction",
        ),
        ({"documents": 40, "tokens": 50_000}, 0.05, r"small \(40 documents, 50,000 tokens\).*±0.098 only: hold out"),
    ],
)
def test_too_little_held_out_text_is_said_to_be(held_out: dict, error: float | None, said: str) -> None:
    (note,) = notes(held_out=held_out, error=error)
    assert re.search(said, note), note


def test_overfitting_names_the_field_of_the_length() -> None:
    rising = [2.4, 2.2, 2.0, 2.05, 2.1, 2.1, 2.2, 2.2, 2.3, 2.3]
    (note,) = notes(rising, FALLING, tokens="20M")
    assert "rose from 2.0000 at step 30 to 2.3000" in note and "train less (tokens)" in note
    assert notes(rising, FALLING[::-1]) == []  # it diverged: the training loss rose too


def test_a_run_that_ended_too_early_is_seen_even_where_the_learning_rate_decayed() -> None:
    (note,) = notes([5.7, 5.2, 5.0, 4.9, 4.7, 4.6, 4.5, 4.4, 4.35, 4.33], FALLING, max_steps=100)
    assert "still falling, by 3.8% since step 70: train longer (max_steps)" in note
    (note,) = notes([2.0] * 8 + [2.0, 1.9], FALLING)
    assert "by 5.0% since step 90: train longer (num_train_epochs)" in note


def test_a_curve_of_one_point_says_nothing() -> None:
    assert overfits([(1, 2.0)], [(1, 2.0)]) is still_falls([(1, 2.0)]) is still_falls([]) is None


def test_the_error_of_a_loss_is_that_of_the_mean_over_batches() -> None:
    evaluator = object.__new__(CausalEvaluator)
    evaluator.rows = type("Rows", (), {"byte_count": 100})()
    losses = torch.tensor([2.0, 2.5, 3.0, 2.2, 2.8, 2.4], dtype=torch.float64)
    evaluator.of_batches = [torch.stack([50 * loss, 50 * loss, torch.tensor(50.0)]) for loss in losses]
    expected = float(losses.std() / len(losses) ** 0.5)  # all batches have as many targets
    assert evaluator.loss_error(1) == pytest.approx(expected)
    assert evaluator.loss_error(4) == pytest.approx(expected / 2)
    evaluator.of_batches = evaluator.of_batches[:3]
    assert evaluator.loss_error(1) is None


def test_a_run_prints_its_notes_and_keeps_them(tmp_path, capsys) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"The river number {n} is long and cold." for n in range(60)), encoding="utf-8")
    fields = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 300, "max_steps": 4}
    words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    pretrain_clm.main(["--train_files", str(text), "--output_dir", str(tmp_path / "run"), "--cpu_threads", "1", *words])
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["notes"]
    printed, card = capsys.readouterr().out, (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert any("the held-out text is small" in note for note in found)
    assert all(f"note: {note}\n" in printed for note in found) and "Before you rely on these scores:" in card
    assert printed.splitlines()[-1].startswith("finished: ")
