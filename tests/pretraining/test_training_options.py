"""Options of a run: the moving average of the weights (resumed in test_resume_is_exact), and the z-loss."""

import json

import pytest
import torch
from helpers import runs
from safetensors.torch import load_file
from torch import nn
from transformers.trainer_callback import TrainerControl, TrainerState

from weft import WeftForCausalLM
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import collate_causal
from weft.recipes.pretraining.datasets.packed import ValidationRows
from weft.recipes.training.weight_average import WeightAverage

FIELDS = {"average_decay": 0.9, "max_steps": 8, "save_steps": 1, "eval_steps": 8, "save_total_limit": 20}


def test_the_average_follows_its_formula_and_gives_the_weights_back() -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    average = WeightAverage(model, 0.8)
    average.on_train_begin(None, TrainerState(), TrainerControl())
    expected = model.weight.detach().clone()
    for step in range(1, 60):
        nn.init.normal_(model.weight)
        average.on_step_end(None, TrainerState(global_step=step), TrainerControl())
        decay = min(0.8, step / (step + 9))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    own = model.weight.detach().clone()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected, rtol=0, atol=1e-12)
    assert torch.equal(model.weight, own)


def test_the_published_and_evaluated_weights_are_the_average_of_those_of_all_steps(corpus, tmp_path) -> None:
    folder = tmp_path / "run"
    runs.run_here(data=corpus, output_dir=folder, **FIELDS)
    # the random weights of the beginning: the first step's learning rate is 0
    expected = load_file(folder / "checkpoint-1" / "model.safetensors")
    for step in range(1, 9):
        decay = min(0.9, step / (step + 9))
        weights = load_file(folder / f"checkpoint-{step}" / "model.safetensors")
        expected = {name: decay * expected[name] + (1 - decay) * weight for name, weight in weights.items()}
    found = load_file(folder / "model.safetensors")
    last = load_file(folder / "checkpoint-8" / "model.safetensors")
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)
    assert any(not torch.equal(found[name], weight) for name, weight in last.items())
    rows = ValidationRows(Corpus.open(corpus), 32)
    batch = collate_causal([rows[index] for index in range(len(rows))])
    evaluated = WeftForCausalLM.from_pretrained(folder)(**batch).loss.item()
    assert json.loads((folder / "metrics.json").read_text())["eval_loss"] == pytest.approx(evaluated, abs=1e-5)


def test_the_z_loss_is_added_to_what_is_trained_and_not_to_what_is_evaluated(corpus, tmp_path) -> None:
    for name, z_loss in (("plain", 0.0), ("with", 1.0)):
        fields = {"z_loss": z_loss, "max_steps": 1, "warmup_steps": 1, "eval_steps": 1}
        runs.run_here(data=corpus, output_dir=tmp_path / name, **fields)
    plain, added = (runs.losses(tmp_path / name)[0] for name in ("plain", "with"))
    # random weights: every class is about as likely, and the denominator about the number of classes
    assert added - plain == pytest.approx(plain**2, rel=0.1)
    evaluated = [json.loads((tmp_path / name / "metrics.json").read_text())["eval_loss"] for name in ("plain", "with")]
    assert evaluated[0] == evaluated[1], "the first step's learning rate is 0"


@pytest.mark.parametrize("fields", [{"average_decay": 1.0}, {"z_loss": -1e-4}])
def test_shares_out_of_range_are_refused(fields, corpus, tmp_path) -> None:
    (name,) = fields
    error = runs.run_error(data=corpus, output_dir=tmp_path / "run", max_steps=1, **fields)
    assert f"{name} is {fields[name]}: give at least 0" in error
