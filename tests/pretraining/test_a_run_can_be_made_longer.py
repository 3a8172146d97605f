"""Raising the length of a run goes on before its learning rate fell, and equals a run that had it from the start."""

import json
import os
import shutil
import signal

import pytest
import torch
from helpers import runs

from weft.recipes.common.errors import Stopped
from weft.recipes.pretraining.objectives.causal import CausalEvaluator
from weft.recipes.pretraining.trainer import PretrainingTrainer

# What follows from the length is given, so that a run of another length is the same but for that.
FIELDS = {"learning_rate": 0.01, "weight_decay": 0.1, "warmup_steps": 2, "attention_dropout": 0.1}
FIELDS |= {"save_steps": 2, "eval_steps": 4}
CLOCK = {"tokens_per_second", "mfu"}


def fields_of(objective: str, corpus, english) -> dict:
    if objective == "causal":
        return {"data": corpus, **FIELDS}
    return {"data": english, "objective": objective, "mask_rate": 0.3, "mask_rate_end": 0.3, **FIELDS}


def logged(folder) -> list[dict]:
    entries = [entry for entry in runs.history(folder) if "loss" in entry or "eval_loss" in entry]
    return [{name: value for name, value in entry.items() if name not in CLOCK} for entry in entries]


def assert_same_run(folder, reference) -> None:
    found, expected = runs.weights(folder), runs.weights(reference)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert logged(folder) == logged(reference)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_a_finished_run_that_is_made_longer_equals_one_that_had_the_length_from_the_start(
    objective, corpus, english, tmp_path, capsys
):
    fields = fields_of(objective, corpus, english)
    runs.run_here(output_dir=tmp_path / "long", max_steps=18, **fields)
    runs.run_here(output_dir=tmp_path / "run", max_steps=12, **fields)
    kept = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "run").glob("checkpoint-*"))
    assert kept == [8, 10, 12]  # the rate falls from step 8 on
    capsys.readouterr()
    runs.run_here(output_dir=tmp_path / "run", max_steps=18, **fields)
    said = capsys.readouterr().out
    assert "was a run of 12 steps: it goes on from checkpoint-8" in said and "as one of 18 steps" in said
    assert_same_run(tmp_path / "run", tmp_path / "long")
    runs.run_here(output_dir=tmp_path / "run", max_steps=18, **fields)
    assert "is finished: nothing to train" in capsys.readouterr().out


def test_a_running_one_is_made_longer_twice_by_tokens_and_killed_on_the_way(corpus, tmp_path, monkeypatch):
    fields = {"data": corpus, **FIELDS, "initial_tokens_per_step": 128, "batch_ramp_steps": 4}
    step = PretrainingTrainer.training_step

    def killed(at):
        def training_step(trainer, *args, **kwargs):
            if trainer.state.global_step == at:
                raise KeyboardInterrupt
            return step(trainer, *args, **kwargs)

        monkeypatch.setattr(PretrainingTrainer, "training_step", training_step)

    for at, tokens in ((7, 12 * 256), (10, 16 * 256)):
        killed(at)
        with pytest.raises(KeyboardInterrupt):
            runs.run_here(output_dir=tmp_path / "run", tokens=tokens, **fields)
    monkeypatch.undo()
    runs.run_here(output_dir=tmp_path / "run", tokens=20 * 256, **fields)
    runs.run_here(output_dir=tmp_path / "long", tokens=20 * 256, **fields)
    assert_same_run(tmp_path / "run", tmp_path / "long")


def test_what_was_derived_from_the_length_stays(corpus, tmp_path, capsys):
    fields = {"data": corpus, "save_steps": 10, "eval_steps": 50, "logging_steps": 10, "output_dir": tmp_path / "run"}
    runs.run_here(max_steps=100, **fields)  # a warmup of two steps
    capsys.readouterr()
    runs.run_here(max_steps=200, **fields)  # and not of four
    rates = {entry["step"]: entry["learning_rate"] for entry in runs.history(tmp_path / "run") if "loss" in entry}
    assert len({rates[step] for step in range(10, 141, 10)}) == 1
    assert rates[200] < rates[150] < rates[140]
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["warmup_steps"] == 2


def test_a_constant_rate_goes_on_from_the_end(corpus, tmp_path, capsys):
    fields = {"data": corpus, **FIELDS, "lr_scheduler_type": "constant", "save_total_limit": 1}
    runs.run_here(output_dir=tmp_path / "run", max_steps=4, **fields)
    noted = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (noted.pop("decay_steps"), noted.pop("z_loss")) == (0.3, 0.0)  # as of before there were such fields
    (tmp_path / "run" / "run.json").write_text(json.dumps(noted))
    runs.run_here(output_dir=tmp_path / "run", max_steps=8, **fields)
    assert "goes on from checkpoint-4" in capsys.readouterr().out
    runs.run_here(output_dir=tmp_path / "long", max_steps=8, **fields)
    assert_same_run(tmp_path / "run", tmp_path / "long")


REFUSED = {
    "cosine": ({"lr_scheduler_type": "cosine"}, {}, "depends on the length from the beginning"),
    "no checkpoint": ({"save_total_limit": 1}, {}, "began to fall after step 8, and no checkpoint of before is left"),
    "shorter": ({}, {"max_steps": 6}, "a run can only be made longer"),
    "other fields": ({}, {"learning_rate": 0.02}, "other settings (learning_rate was 0.01, now 0.02)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_longer_is_refused_and_stays_as_it_is(corpus, tmp_path, case):
    first, then, said = REFUSED[case]
    fields = {"data": corpus, **FIELDS, **first, "output_dir": tmp_path / "run"}
    runs.run_here(max_steps=12, **fields)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name[0] != "."}
    message = runs.run_error(**{"max_steps": 18, **fields, **then})
    assert said in message and "--output_dir" in message
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_stop_right_after_the_change_leaves_a_run_of_the_new_length(corpus, tmp_path, monkeypatch):
    fields = {"data": corpus, **FIELDS, "output_dir": tmp_path / "run"}
    runs.run_here(max_steps=12, **fields)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    score = CausalEvaluator.score

    def stopped(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return score(*args)

    monkeypatch.setattr(CausalEvaluator, "score", stopped)
    with pytest.raises(Stopped):
        runs.run_here(max_steps=18, **fields)
    assert not (tmp_path / "run" / "metrics.json").exists()
    monkeypatch.undo()
    runs.run_here(max_steps=18, **fields)
    runs.run_here(max_steps=18, **{**fields, "output_dir": tmp_path / "other"})
    assert_same_run(tmp_path / "run", tmp_path / "other")
