"""An objective that is defined elsewhere and registered trains by the command, is evaluated, and reaches the card."""

import json

import pytest
import torch
from helpers import runs

from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining import objectives
from weft.recipes.pretraining.datasets.collators import collate_causal
from weft.recipes.pretraining.objectives.causal import CausalObjective


def collate_second_next(rows):
    """Each place predicts the token after the next one, within its document."""
    batch = collate_causal(rows)
    labels, goes_on = torch.full_like(batch["labels"], IGNORE_INDEX), batch["position_ids"].diff(dim=1) == 1
    labels[:, :-1] = batch["labels"][:, 1:].where(goes_on, IGNORE_INDEX)
    return {**batch, "labels": labels, "shift_labels": labels}


class SecondNextObjective(CausalObjective):
    """The token after the next one is predicted."""

    summary = "A model of the token after the next one."
    metrics = {"targets_counted": ",d"}
    headline = ("targets_counted",)
    collate = staticmethod(collate_second_next)

    def make_evaluator(self, corpus, row_length, tokenizer):
        evaluator = super().make_evaluator(corpus, row_length, tokenizer)
        evaluator.collate, evaluator.metrics = collate_second_next, self.measure
        return evaluator

    @staticmethod
    def measure(nats, text_nats, targets):
        return {"loss": nats / targets, "targets_counted": int(targets)}


def test_a_registered_objective_trains_and_is_reported(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(objectives, "_registered", {})
    objectives.register("second-next", SecondNextObjective)
    runs.run_here(data=corpus, objective="second-next", max_steps=2, output_dir=tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["eval_targets_counted"] > 0 and 0 < metrics["eval_loss"] < 10
    assert f"targets counted {metrics['eval_targets_counted']:,}" in capsys.readouterr().out
    card = (tmp_path / "run" / "README.md").read_text()
    assert "A model of the token after the next one." in card and "| targets counted |" in card
    assert (tmp_path / "run" / "curve.png").is_file()
    with pytest.raises(ValueError, match="an objective is called 'second-next' already"):
        objectives.register("second-next", CausalObjective)


def test_one_that_is_not_registered_is_refused(corpus, tmp_path):
    sentence = runs.run_error(data=corpus, objective="second-next", max_steps=2, output_dir=tmp_path / "run")
    assert sentence.startswith("objective is 'second-next': choose one of masked")
    assert not (tmp_path / "run").exists()
