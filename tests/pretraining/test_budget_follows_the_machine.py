"""A budget on a machine that becomes slower or faster: the run ends in time, and is the run of its final length."""

import json
import os
import shutil
import signal
import weakref

import pytest
from helpers import runs
from helpers.float64 import assert_same_weights, models_in_float64
from helpers.launched import run_together
from helpers.machine import STEP, Machine

from weft.recipes.common.errors import Stopped
from weft.recipes.pretraining import run
from weft.recipes.pretraining.time_budget import measurement
from weft.recipes.pretraining.time_budget.arithmetic import Costs
from weft.recipes.pretraining.trainer import PretrainingTrainer

BUDGET = 40 * STEP + 1000  # forty steps, and some evaluations and checkpoints


def slower(step: int) -> float:
    return STEP if step < 10 else 2 * STEP


def faster(step: int) -> float:
    return STEP if step < 10 else STEP / 2


@pytest.mark.parametrize("seconds, least, most", [(slower, 24, 27), (faster, 65, 71)])
def test_the_run_ends_in_time_with_the_weights_of_a_run_of_its_final_length(
    corpus, tmp_path, monkeypatch, capsys, seconds, least, most
):
    machine = Machine(monkeypatch, seconds)
    fields = {"data": corpus, "warmup_steps": 3, "tokens_per_step": 512, "per_device_train_batch_size": 8}
    runs.run_here(**fields, output_dir=tmp_path / "run", budget=f"{BUDGET:.0f}s")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert machine.lengths and least <= plan["max_steps"] == metrics["steps"] == machine.lengths[-1] <= most
    assert 0.94 * BUDGET < machine.now <= 1.01 * BUDGET
    printed = capsys.readouterr().out
    assert f"{machine.lengths[0]} steps instead of 4" in printed and ", to end in time" in printed
    steps = [entry["step"] for entry in runs.history(tmp_path / "run") if "loss" in entry]
    assert steps == list(range(1, plan["max_steps"] + 1))
    rates = [entry["learning_rate"] for entry in runs.history(tmp_path / "run") if "loss" in entry]
    assert len({f"{rate:.9g}" for rate in rates[3 : plan["max_steps"] - plan["decay_steps"] + 1]}) == 1
    assert rates[-1] < 0.2 * rates[10]

    given = {name: plan[name] for name in ("max_steps", "learning_rate", "weight_decay", "decay_steps")}
    runs.run_here(**fields, **given, output_dir=tmp_path / "plain")
    plain = runs.weights(tmp_path / "plain")
    assert all(value.equal(plain[name]) for name, value in runs.weights(tmp_path / "run").items())


def test_a_run_whose_length_changed_resumes_to_its_final_length(corpus, tmp_path, monkeypatch, capsys, caplog):
    Machine(monkeypatch, slower)
    folder = tmp_path / "run"
    fields = {"data": corpus, "output_dir": folder, "budget": f"{BUDGET:.0f}s"}
    runs.run_here(**fields)
    plan = json.loads((folder / "plan.json").read_text())
    whole, last = runs.weights(folder), plan["max_steps"]
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / f"checkpoint-{last}")
    monkeypatch.setattr(measurement, "measure_speed", None)  # it would be called
    runs.run_here(**fields)
    assert "resuming from" in capsys.readouterr().out
    assert "missing keys" not in caplog.text  # the head is tied to the embedding
    assert json.loads((folder / "plan.json").read_text()) == plan
    assert all(value.equal(whole[name]) for name, value in runs.weights(folder).items())


def test_what_becomes_slow_late_falls_in_the_steps_that_are_left(corpus, tmp_path, monkeypatch):
    machine = Machine(monkeypatch, lambda step: STEP if step < 24 else 8 * STEP)
    runs.run_here(data=corpus, output_dir=tmp_path / "run", budget=f"{BUDGET:.0f}s")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    (length,) = machine.lengths
    assert plan["max_steps"] == length == 28 and plan["decay_steps"] == 1
    assert runs.history(tmp_path / "run")[-1]["step"] == 28


@pytest.mark.parametrize(
    "seconds, fields",
    [
        (lambda step: 1.02 * STEP, {}),  # within the tolerance
        (slower, {"lr_scheduler_type": "cosine"}),  # depends on the length from the first step on
        (lambda step: STEP if step < 32 else 2 * STEP, {}),  # the learning rate falls already
    ],
)
def test_the_length_stays_where_it_need_not_or_cannot_change(corpus, tmp_path, monkeypatch, seconds, fields):
    machine = Machine(monkeypatch, seconds)
    runs.run_here(data=corpus, output_dir=tmp_path / "run", budget=f"{BUDGET:.0f}s", **fields)
    assert machine.lengths == []
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 40


def test_a_constant_rate_may_change_its_length_to_the_end(corpus, tmp_path, monkeypatch):
    machine = Machine(monkeypatch, lambda step: STEP if step < 30 else 3 * STEP)
    runs.run_here(
        data=corpus, output_dir=tmp_path / "run", budget=f"{BUDGET:.0f}s", lr_scheduler_type="constant", eval_steps=100
    )
    assert machine.lengths == [34]
    assert machine.now <= 1.05 * BUDGET


@pytest.mark.parametrize("share, fields", [(0.095, {}), (0.15, {}), (0.095, {"lr_scheduler_type": "constant"})])
def test_a_steady_machine_changes_nothing_however_long_an_evaluation_takes(
    corpus, tmp_path, monkeypatch, share, fields
):
    """So long that there is one, at the end."""
    machine = Machine(monkeypatch, evaluation=share * BUDGET)
    runs.run_here(data=corpus, output_dir=tmp_path / "run", budget=f"{BUDGET:.0f}s", eval_steps=None, **fields)
    assert machine.lengths == []
    assert 0.95 * BUDGET < machine.now <= BUDGET


def test_a_stop_signal_that_comes_while_the_length_changes_is_obeyed(corpus, tmp_path, monkeypatch, capsys):
    machine, save = Machine(monkeypatch, slower), PretrainingTrainer._save_checkpoint

    def stopped(trainer, *arguments):
        save(trainer, *arguments)
        if trainer.args.output_dir == str(tmp_path / "run") and trainer.control.should_training_stop:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(PretrainingTrainer, "_save_checkpoint", stopped)
    fields = {"data": corpus, "output_dir": tmp_path / "run", "budget": f"{BUDGET:.0f}s"}
    with pytest.raises(Stopped):
        runs.run_here(**fields)
    (length,) = machine.lengths
    assert "run the same command again to go on" in capsys.readouterr().out
    monkeypatch.undo()
    runs.run_here(**fields)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == length


def test_a_kill_before_the_new_length_is_noted_leaves_a_run_of_the_old_one(corpus, tmp_path, monkeypatch):
    machine, note = Machine(monkeypatch, slower), run.note_plan

    def killed(*arguments):
        if machine.lengths:
            raise KeyboardInterrupt
        note(*arguments)

    monkeypatch.setattr(run, "note_plan", killed)
    fields = {"data": corpus, "output_dir": tmp_path / "run", "budget": f"{BUDGET:.0f}s"}
    with pytest.raises(KeyboardInterrupt):
        runs.run_here(**fields)
    monkeypatch.undo()
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    runs.run_here(**fields)
    given = {name: plan[name] for name in ("learning_rate", "weight_decay", "tokens_per_step")}
    runs.run_here(data=corpus, output_dir=tmp_path / "plain", max_steps=40, **given)
    found, plain = (runs.weights(tmp_path / name) for name in ("run", "plain"))
    assert all(value.equal(plain[name]) for name, value in found.items())


def run_on_slower_machine(folder, **fields):
    """A run on machines that become slower, the first process's at once and the other's later."""
    forget = measurement.forget

    def forgotten(run, trainer):
        """What is given up is gone, so that two models are never held at once."""
        held = [weakref.ref(each) for each in (trainer.model, trainer.model_wrapped)]
        forget(run, trainer)
        assert [each() for each in held] == [None, None]

    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch, slower if os.environ["RANK"] == "0" else lambda step: slower(step - 3))
        for module in (measurement, run):
            patch.setattr(module, "forget", forgotten)
        runs.run_here(output_dir=folder, **fields)
    (folder / f"lengths-{os.environ['RANK']}").write_text(json.dumps(machine.lengths))


@pytest.mark.parametrize("launcher", ["cpu_2.yaml", "fsdp2.yaml"])
def test_two_processes_change_their_length_together(launcher, corpus, tmp_path):
    fields = {"data": corpus, "optimizer": "adamw"}
    with models_in_float64():
        run_together(launcher, run_on_slower_machine, tmp_path / "run", budget=f"{BUDGET:.0f}s", **fields)
        lengths, other = (json.loads((tmp_path / "run" / f"lengths-{rank}").read_text()) for rank in range(2))
        plan = json.loads((tmp_path / "run" / "plan.json").read_text())
        assert lengths == other and lengths[-1] == plan["max_steps"] < 30
        names = ("max_steps", "learning_rate", "weight_decay", "warmup_steps", "decay_steps")
        runs.run_here(**fields, **{name: plan[name] for name in names}, output_dir=tmp_path / "plain")
    assert_same_weights(runs.weights(tmp_path / "run"), runs.weights(tmp_path / "plain"))


@pytest.mark.parametrize(
    "fields, least", [({"objective": "hybrid", "causal_steps": 20}, 21), ({"warmup_steps": 0.5}, 21)]
)
def test_no_run_becomes_shorter_than_it_can_be(english, tmp_path, monkeypatch, fields, least):
    machine = Machine(monkeypatch, lambda step: STEP if step < 5 else 4 * STEP)
    runs.run_here(data=english, output_dir=tmp_path / "run", budget=f"{BUDGET:.0f}s", **fields)
    assert machine.lengths and min(machine.lengths) >= least
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == machine.lengths[-1]


def test_a_stream_changes_its_length_too(tmp_path, monkeypatch):
    machine = Machine(monkeypatch, slower)
    text = runs.write_text(tmp_path / "text.txt", documents=300)
    stream = {"train_files": [text], "tokenizer_type": "char", "stream": "true", "block_size": "20k"}
    runs.run_here(output_dir=tmp_path / "run", budget=f"{BUDGET:.0f}s", **stream)
    assert machine.lengths and machine.now <= 1.01 * BUDGET
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == machine.lengths[-1]


@pytest.mark.parametrize("eval_steps, save_steps, ahead", [(None, None, (8, 8)), (7, 3, (5, 11)), (0.25, None, (3, 8))])
def test_what_is_left_is_what_comes_behind_the_steps_that_are_done(eval_steps, save_steps, ahead):
    costs = Costs(setup=100, step=2, evaluation=3, checkpoint=1, report=4)
    evaluations, checkpoints = ahead
    expected = 30 * 2 + 3 * evaluations + checkpoints + 4
    assert costs.seconds(40, eval_steps, save_steps, done=10) == expected
    steps = costs.steps_within(100, eval_steps, save_steps, done=10)
    assert (
        costs.seconds(steps, eval_steps, save_steps, 10) <= 100 < costs.seconds(steps + 4, eval_steps, save_steps, 10)
    )
    assert costs.steps_within(1, eval_steps, save_steps, done=10) == 10
    assert costs.on_machine_with(6) == Costs(setup=300, step=6, evaluation=9, checkpoint=3, report=12)
