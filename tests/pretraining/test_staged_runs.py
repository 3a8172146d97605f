"""Runs whose mask rate, causal rows or sources change in stages: planned, killed, made longer, shared and timed."""

import json

import numpy as np
import pytest
import torch
from helpers import runs
from helpers.launched import run_together
from helpers.machine import STEP, Machine
from transformers import AutoConfig, AutoModelForMaskedLM

from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare
from weft.recipes.pretraining.setup import PretrainingRun
from weft.recipes.pretraining.time_budget import measurement
from weft.recipes.pretraining.time_budget.arithmetic import Costs
from weft.recipes.pretraining.trainer import PretrainingTrainer

FIELDS = {"max_steps": 20, "save_steps": 5, "eval_steps": 20, "learning_rate": 0.01}
# Stages that begin at step 10, where a checkpoint is, and between two checkpoints.
CAUSAL_FIRST = {"objective": "hybrid", "causal_share": "1@0.5,0", "masked_next_token": "false"}
RUNS = {
    "masked": {"objective": "masked", "mask_rate": "0.4@0.5,0.1@2,0.2", "source_temperature": "1@7,0.3"},
    "hybrid": {**CAUSAL_FIRST, "mask_rate": "0.4@0.6,0.2..0.1", "source_weights": ["a.txt=0@12,1"]},
}


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory):
    """A prepared corpus of a long and a short source, which knows its words and sentences."""
    folder = tmp_path_factory.mktemp("sources")
    files = [runs.write_sentences(folder / name, documents=n, seed=n) for name, n in (("a.txt", 60), ("b.txt", 15))]
    weights = ["a.txt=1", "b.txt=1"]
    data = DataArguments(train_files=list(map(str, files)), source_weights=weights, vocab_size=300)
    data.validation_fraction, data.segmenter = 0.15, "characters"
    prepare(data, folder / "corpus", quiet=True)
    return folder / "corpus"


def killed_at(step, patch):
    train = PretrainingTrainer.training_step

    def training_step(trainer, *args, **kwargs):
        if trainer.state.global_step == step:
            raise KeyboardInterrupt
        return train(trainer, *args, **kwargs)

    patch.setattr(PretrainingTrainer, "training_step", training_step)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_killed_before_at_and_behind_the_ends_of_stages_is_the_same_bit_for_bit(
    two_sources, tmp_path, name
):
    fields = {"data": two_sources, **FIELDS, **RUNS[name]}
    runs.run_here(output_dir=tmp_path / "whole", **fields)
    for step in (8, 13):  # goes on from 5 and from 10
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            killed_at(step, patch)
            runs.run_here(output_dir=tmp_path / "killed", **fields)
    runs.run_here(output_dir=tmp_path / "killed", dataloader_num_workers=2, **fields)
    found, expected = (runs.weights(tmp_path / folder) for folder in ("killed", "whole"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    found, expected = ([entry["loss"] for entry in runs.history(tmp_path / folder) if "loss" in entry]
                       for folder in ("killed", "whole"))  # fmt: skip
    assert found == expected and len(found) == 20


def test_two_processes_go_through_the_stages_of_one(two_sources, tmp_path):
    fields = {"data": two_sources, **FIELDS, **RUNS["hybrid"], "max_steps": 8, "source_weights": ["a.txt=0@3,1"]}
    runs.run_here(output_dir=tmp_path / "one", **fields)
    fields["per_device_train_batch_size"] = 2
    run_together("cpu_2.yaml", runs.run_here, output_dir=tmp_path / "two", **fields)
    runs.assert_equal_ends(tmp_path / "two", tmp_path / "one")


def test_causal_rows_first_make_a_masked_model_like_any_other(two_sources, tmp_path, capsys):
    folder = tmp_path / "run"
    runs.run_here(data=two_sources, output_dir=folder, **FIELDS, **CAUSAL_FIRST)
    printed = capsys.readouterr().out
    assert "causal rows 100.00% until step 10, then 0.00%" in printed
    last = printed.splitlines()[-1]
    assert "loads with AutoModelForMaskedLM" in last and "masked loss" in last and "causal loss" not in last
    config = AutoConfig.from_pretrained(folder)
    assert (config.is_causal, config.masked_next_token) == (False, False)
    assert type(AutoModelForMaskedLM.from_pretrained(folder)).__name__ == "WeftForMaskedLM"
    logged = [entry for entry in runs.history(folder) if "loss" in entry]
    for part, steps in (("causal", range(1, 11)), ("masked", range(11, 21))):
        assert [entry["step"] for entry in logged if f"loss_{part}" in entry] == list(steps)
    for entry in logged:  # each step has rows of one kind
        assert entry["loss"] == pytest.approx(entry.get("loss_causal", entry.get("loss_masked")), rel=1e-5)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["eval_loss"] == metrics["eval_masked_loss"] and "eval_bits_per_byte" not in metrics
    card = (folder / "README.md").read_text()
    assert "AutoModelForCausalLM" not in card and "| causal_share | 1@0.5,0 |" in card
    assert "continues text" not in card and (folder / "curve.png").is_file()


def test_a_model_that_predicts_from_the_place_before_goes_through_the_same_stages(two_sources, tmp_path):
    fields = {**FIELDS, "max_steps": 4, "objective": "hybrid", "causal_share": "1@0.5,0.25"}
    runs.run_here(data=two_sources, output_dir=tmp_path / "run", **fields)
    assert AutoConfig.from_pretrained(tmp_path / "run").masked_next_token
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    mean = 0.25 * metrics["eval_causal_loss"] + 0.75 * metrics["eval_masked_loss"]
    assert metrics["eval_loss"] == pytest.approx(mean)  # weighted as the last rows


def test_runs_of_any_mask_rate_are_compared_at_one(two_sources, tmp_path, capsys):
    """Weights that do not move: the same held-out masks, whatever the rate of training."""
    still = {**FIELDS, "max_steps": 2, "learning_rate": 1e-30, "weight_decay": 0, "objective": "masked"}
    losses = []
    for number, fields in enumerate(({"mask_rate": "0.3@1,0.05"}, {"mask_rate": 0.15})):
        folder = tmp_path / str(number)
        runs.run_here(data=two_sources, output_dir=folder, **still, **fields, validation_mask_rate=0.15)
        losses.append(json.loads((folder / "metrics.json").read_text())["eval_masked_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "fields, said",
    [
        (
            {"objective": "masked", "mask_rate": "0.3@0.5,0.15@0.4,0.05"},
            "30% until step 10, then 15% until step 18, then 5%",
        ),
        (
            {"objective": "hybrid", "causal_share": "1@5,0..0.5"},
            "causal rows 100.00% until step 5, then 0.00% to 50.00%",
        ),
        ({"source_weights": ["a.txt=0@0.5,1"]}, "sources     b.txt 100.0% until step 10, then a.txt "),
        ({"objective": "sentence-order", "source_weights": ["a.txt=1@0.5,0"]}, ", then b.txt 100.0%"),
        ({"source_temperature": 0}, "sources     b.txt 50.0%, a.txt 50.0%"),
    ],
    ids=str,
)
def test_the_plan_shows_the_stages(two_sources, tmp_path, capsys, fields, said):
    runs.run_here(data=two_sources, output_dir=tmp_path / "run", plan="true", **FIELDS, **fields)
    runs.assert_only_planned(tmp_path / "run", capsys.readouterr().out, [said])


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"objective": "masked", "mask_rate": "0.3@0.5"}, "mask_rate is '0.3@0.5', of which every stage but the last"),
        (
            {"objective": "masked", "mask_rate": "0.3@20,0.1"},
            "mask_rate has stages before its last that are as long as",
        ),
        ({"objective": "hybrid", "causal_steps": 20}, "as long as the whole run of 20 steps"),
        ({"objective": "hybrid", "masked_next_token": "false"}, "the last rows are not all masked (50% causal"),
        ({"objective": "masked", "masked_next_token": "false"}, "has no effect without --objective hybrid"),
        ({"source_weights": ["c.txt=2"]}, "has no source 'c.txt': give weights for a.txt, b.txt"),
        ({"source_weights": ["a.txt=1@20,2"]}, "source_weights has stages before its last"),
        ({"source_temperature": "0.7@20,1"}, "source_temperature has stages before its last"),
        ({"source_temperature": "0.7..0.3"}, "source_temperature is '0.7..0.3': give stages without straight lines"),
        ({"source_temperature": 1.5}, "source_temperature is 1.5: give at least 0 and at most 1"),
    ],
    ids=str,
)
def test_what_a_run_cannot_follow_is_refused_before_it_begins(two_sources, tmp_path, fields, said):
    assert said in runs.run_error(data=two_sources, output_dir=tmp_path / "run", **FIELDS, **fields)
    assert not (tmp_path / "run").exists() or not (tmp_path / "run" / "run.json").exists()


def test_a_temperature_needs_sources(corpus, tmp_path):
    fields = {"output_dir": tmp_path / "run", "source_temperature": 0.5, **FIELDS}
    assert "has one source: prepare it again with source_weights" in runs.run_error(data=corpus, **fields)
    text = runs.write_text(tmp_path / "text.txt")
    assert "the text is one source: name several with source_weights" in runs.run_error(train_files=[text], **fields)
    assert not (tmp_path / "run" / "data").exists()


def test_raw_text_keeps_the_stages_of_its_weights(tmp_path, capsys):
    files = [runs.write_text(tmp_path / name, documents=40, seed=i) for i, name in enumerate(("a.txt", "b.txt"))]
    fields = {"train_files": files, "source_weights": ["a.txt=0@0.5,1", "b.txt=1"], "tokenizer_type": "char"}
    fields = {**fields, **FIELDS, "max_steps": 4, "output_dir": tmp_path / "run", "validation_fraction": 0.1}
    runs.run_here(**fields)
    printed = capsys.readouterr().out
    assert "weight 0@0.5,1: a.txt" in printed and "sources     b.txt 100.0% until step 2, then " in printed
    card = (tmp_path / "run" / "README.md").read_text()
    assert "a.txt=0@0.5,1" in card
    data = {"data": tmp_path / "run" / "data", **FIELDS, "max_steps": 4, "output_dir": tmp_path / "again"}
    runs.run_here(**data)  # which the folder says too
    found, expected = (runs.weights(tmp_path / name) for name in ("again", "run"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_run_with_stages_in_steps_is_made_longer_as_if_it_had_been_from_the_start(two_sources, tmp_path):
    stages = {"objective": "masked", "mask_rate": "0.4@5,0.2", "source_weights": ["a.txt=0@7,1"]}
    kept = {"learning_rate": 0.01, "weight_decay": 0.1, "warmup_steps": 2, "save_steps": 2, "eval_steps": 20}
    fields = {"data": two_sources, **stages, **kept, "validation_mask_rate": 0.15}
    runs.run_here(output_dir=tmp_path / "run", max_steps=12, **fields)
    runs.run_here(output_dir=tmp_path / "run", max_steps=16, **fields)
    runs.run_here(output_dir=tmp_path / "long", max_steps=16, **fields)
    found, expected = (runs.weights(tmp_path / name) for name in ("run", "long"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


# A budget: what the head computes differs between stages, and so does the time of a step.

BUDGET = 40 * STEP + 1000


@pytest.fixture
def proportional(monkeypatch):
    """A machine whose steps take as long as they have operations; the average step takes `STEP`."""
    seen, configure = [], PretrainingRun.configure

    def configured(run, *args, **kwargs):
        seen.append(run)
        configure(run, *args, **kwargs)

    def seconds(step):
        run = seen[-1]
        average = getattr(run, "mean_operations", 1.0)  # before that is known, any time will do
        return STEP * run.operations(run.plan.max_steps, step, step + 1) / average

    monkeypatch.setattr(PretrainingRun, "configure", configured)
    machine = Machine(monkeypatch, seconds)
    machine.seconds = seconds
    return machine


def test_a_steady_machine_keeps_its_length_although_the_steps_of_stages_differ(two_sources, tmp_path, proportional):
    fields = {"data": two_sources, "objective": "hybrid", "causal_share": "1@0.5,0", "mask_rate": 0.15}
    runs.run_here(output_dir=tmp_path / "run", budget=f"{BUDGET:.0f}s", **fields)
    steps = json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"]
    costs = {round(proportional.seconds(step)) for step in range(steps)}
    assert max(costs) > 1.2 * min(costs)  # else this would say nothing
    assert proportional.lengths == []
    assert 0.94 * BUDGET < proportional.now <= 1.01 * BUDGET


def test_the_first_steps_are_measured_as_what_they_are(tmp_path):
    """Steps of 3 operations first, then of 1, each taking a second for one: 1.5 s on average of 20 steps."""

    class Measured:
        folder = tmp_path
        plan = type("Plan", (), {"max_steps": 20})

        def operations(self, steps, first=0, last=None):
            return np.where(np.arange(steps) < steps // 4, 3.0, 1.0)[first:last].mean()

        def make_trainer(self, changes, clock):
            trainer = type("Trainer", (), {})()
            durations = [self.operations(20, step, step + 1) for step in range(changes["max_steps"])]
            trainer.train = lambda: clock.ends.extend(np.cumsum(durations))
            return trainer

    for number in (2, 4, 10, 19):
        assert measurement._train(Measured(), number)[2] == pytest.approx(1.5)


@pytest.mark.parametrize("done", [0, 7])
@pytest.mark.parametrize("first, then", [(3.0, 0.5), (0.5, 3.0), (1.0, 1.0)])
def test_as_many_steps_fit_as_their_work_allows(first, then, done):
    def work(steps, done):
        switch = round(0.3 * steps)
        return first * max(0, switch - done) + then * (steps - max(done, switch))

    costs = Costs(setup=3, step=0.7, evaluation=2, checkpoint=1, report=4)
    for seconds in (15, 60, 333):
        fitting = [n for n in range(done, 2000) if costs.seconds(n, 50, 50, done, work) <= seconds]
        assert costs.steps_within(seconds, 50, 50, done, work) == max(fitting, default=done)
