"""SIGTERM is obeyed within an evaluation, which the next start makes up for; a step is saved before it is evaluated."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import finetuning as ft
from helpers import runs
from helpers.launched import run_together
from safetensors.torch import load_file

from weft.recipes.common.errors import Stopped
from weft.recipes.finetuning.task import Task
from weft.recipes.pretraining.objectives.causal import CausalEvaluator
from weft.recipes.training.run_folder import last_checkpoint
from weft.recipes.training.stop_signal import StopSignal

FIELDS = {"max_steps": 12, "save_steps": 5, "eval_steps": 4, "attention_dropout": 0.1, "hidden_dropout": 0.1}
FIELDS |= {"per_device_eval_batch_size": 2, "average_decay": 0.9}
CLOCK = {"tokens_per_second", "examples_per_second", "mfu"}


def logged(history: list[dict]) -> list[dict]:
    """What a log says of training and evaluation, without what depends on the clock."""
    entries = [entry for entry in history if "loss" in entry or "eval_loss" in entry]
    return [{name: value for name, value in entry.items() if name not in CLOCK} for entry in entries]


def interrupt(monkeypatch, owner: type, method: str, batch: int, how) -> list[int]:
    """Have `how` called within the evaluation batch of this number; the returned list grows with each batch."""
    batches, original = [], getattr(owner, method)

    def counted(*args, **kwargs):
        batches.append(len(batches))
        if len(batches) == batch:
            how()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, method, counted)
    return batches


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def kill() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        batches = interrupt(patch, CausalEvaluator, "score", -1, terminate)
        runs.run_here(data=corpus, output_dir=folder, **FIELDS)
    return folder, len(batches) // 3


@pytest.mark.parametrize("evaluation", [0, 2], ids=["step 4, not saved before", "the last step"])
def test_sigterm_ends_an_evaluation_at_its_next_batch_and_the_next_start_makes_up_for_it(
    corpus, whole, tmp_path, monkeypatch, evaluation
):
    reference, per_evaluation = whole
    batches = interrupt(monkeypatch, CausalEvaluator, "score", evaluation * per_evaluation + 2, terminate)
    with pytest.raises(Stopped) as stop:
        runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert stop.value.status == 143
    assert len(batches) == evaluation * per_evaluation + 2 < (evaluation + 1) * per_evaluation
    step = 4 * (evaluation + 1)
    assert last_checkpoint(tmp_path / "run").endswith(f"checkpoint-{step}")  # and not a step later
    assert not (tmp_path / "run" / "metrics.json").exists()
    monkeypatch.undo()
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert logged(runs.history(tmp_path / "run")) == logged(runs.history(reference))
    found, expected = runs.weights(tmp_path / "run"), runs.weights(reference)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_kill_in_the_last_evaluation_finds_the_last_step_saved(corpus, whole, tmp_path, monkeypatch, capsys):
    reference, per_evaluation = whole
    interrupt(monkeypatch, CausalEvaluator, "score", 2 * per_evaluation + 1, kill)
    with pytest.raises(KeyboardInterrupt):
        runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-12")
    monkeypatch.undo()
    capsys.readouterr()
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert "step 12/12 | loss" not in capsys.readouterr().out  # nothing was trained again
    assert logged(runs.history(tmp_path / "run")) == logged(runs.history(reference))


def test_sigterm_while_a_checkpoint_is_written_is_obeyed_before_another_step(corpus, tmp_path, monkeypatch):
    from weft.recipes.pretraining.trainer import PretrainingTrainer

    interrupt(monkeypatch, PretrainingTrainer, "save_beside", 1, terminate)
    with pytest.raises(Stopped):
        runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-5")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ft.write_files(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("how", [terminate, kill], ids=["SIGTERM", "killed"])
@pytest.mark.parametrize("patience", [None, 1])
def test_fine_tuning_goes_on_with_the_evaluation_that_was_cut_short(files, tmp_path, monkeypatch, how, patience):
    """Also where that evaluation is the one after which a run stops early."""
    fields = {**files, "max_steps": 12, "evaluations": 3, "patience": patience, "per_device_eval_batch_size": 8}
    fields |= {"learning_rate": 1e-9} if patience else {}  # nothing improves
    ft.run_here(**fields, output_dir=tmp_path / "whole")
    interrupt(monkeypatch, Task, "predict", 8 + 3, how)  # in the second evaluation
    with pytest.raises((Stopped, KeyboardInterrupt)):
        ft.run_here(**fields, output_dir=tmp_path / "run")
    assert last_checkpoint(tmp_path / "run" / "seed-1").endswith("checkpoint-8")
    monkeypatch.undo()
    ft.run_here(**fields, output_dir=tmp_path / "run")
    found, expected = (ft.seed_result(tmp_path / name) for name in ("run", "whole"))
    assert found["steps"] == expected["steps"] == (8 if patience else 12)
    assert logged(found["history"]) == logged(expected["history"])
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(weights[name], value) for name, value in others.items())


def test_a_signal_that_comes_while_processes_ask_each_other_is_not_lost(monkeypatch):
    stop = StopSignal()
    arguments = SimpleNamespace(world_size=2, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "all_reduce", lambda flag, op: terminate())
        assert not stop.is_asked(arguments)  # as the others have it
        patch.setattr(torch.distributed, "all_reduce", lambda flag, op: None)
        assert stop.is_asked(arguments)
    stop.on_train_end()


def stopped_together(folder: Path, **fields: object) -> None:
    """Carry a run out in a group; the second process gets SIGTERM within its first evaluation."""
    rank = os.environ["RANK"]
    with pytest.MonkeyPatch.context() as patch:
        batches = interrupt(patch, CausalEvaluator, "score", 2 if rank == "1" else -1, terminate)
        with pytest.raises(Stopped):
            runs.run_here(output_dir=folder, **fields)
    (folder / f"batches-{rank}.json").write_text(json.dumps(len(batches)))


def test_processes_that_evaluate_together_stop_together(corpus, tmp_path):
    fields = {name: value for name, value in FIELDS.items() if "dropout" not in name}
    run_together("cpu_2.yaml", stopped_together, tmp_path / "run", data=corpus, **fields)
    assert [json.loads((tmp_path / "run" / f"batches-{rank}.json").read_text()) for rank in (0, 1)] == [2, 2]
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-4")
    for file in (tmp_path / "run").glob("batches-*"):
        file.unlink()
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **fields)
    assert [entry["step"] for entry in runs.history(tmp_path / "run") if "eval_loss" in entry] == [4, 8, 12]


SCRIPT = """
import signal, sys
sys.path.insert(0, sys.argv[1])  # the file alone: the package takes seconds to import
from errors import Stopped, run_command

def main():
    raise {end}

run_command(main)
"""


@pytest.mark.parametrize(("end", "status"), [("Stopped(signal.SIGTERM)", 143), ("KeyboardInterrupt", 130)])
def test_a_command_that_a_signal_stopped_ends_with_the_status_of_a_signal(end, status):
    command = [sys.executable, "-c", SCRIPT.format(end=end), str(runs.RECIPES / "common")]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == status
