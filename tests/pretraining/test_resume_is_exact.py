"""A run that is killed and started again ends with the weights of one that never was, bit for bit."""

import os
import random
import signal
import subprocess
import time

import pytest
import torch
from helpers import runs
from helpers.forked import Forked
from safetensors.torch import load_file

from weft.recipes.training.weight_average import FILE

# Two epochs and more of the text, dropout on, so that data order and random numbers both have to go on.
FIELDS = {"max_steps": 60, "attention_dropout": 0.1, "hidden_dropout": 0.1, "save_total_limit": 2}


@pytest.fixture(scope="module")
def never_killed(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    runs.finish(runs.launch(data=corpus, output_dir=folder, **FIELDS))
    return folder


def kill_group(process: Forked | subprocess.Popen, number: int) -> None:
    """Kill a run and what it started, at once."""
    os.killpg(process.pid, number)
    process.communicate()


def wait_for(process: Forked | subprocess.Popen, folder, step: int) -> None:
    """Wait until a checkpoint of that step or a later one is there."""
    deadline = time.monotonic() + 240
    while not any(int(path.name.split("-")[1]) >= step for path in folder.glob("checkpoint-*")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_same_run(folder, reference, last="checkpoint-60") -> None:
    for name in ("", last):
        found, expected = runs.weights(folder / name), runs.weights(reference / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    optimizers = [torch.load(path / last / "optimizer.pt", weights_only=True) for path in (folder, reference)]
    for index, state in optimizers[1]["state"].items():
        assert all(torch.equal(optimizers[0]["state"][index][key], value) for key, value in state.items())
    assert optimizers[0]["param_groups"] == optimizers[1]["param_groups"]


def test_killed_twice_at_any_moment_the_weights_and_the_optimizer_are_the_same(corpus, never_killed, tmp_path):
    folder, draw = tmp_path / "killed", random.Random(time.time_ns())
    for step in (10, 30):
        process = runs.start(data=corpus, output_dir=folder, **FIELDS)
        wait_for(process, folder, step)
        time.sleep(draw.uniform(0, 0.5))
        kill_group(process, signal.SIGKILL)
        for checkpoint in folder.glob("checkpoint-*"):
            assert (checkpoint / "trainer_state.json").is_file()
            assert (checkpoint / "model.safetensors").is_file()
    output = runs.finish(runs.start(data=corpus, output_dir=folder, **FIELDS))
    assert "resuming from" in output
    assert_same_run(folder, never_killed)
    assert not list(folder.glob(".unfinished-*"))


def test_muon_goes_on_with_its_momentum_and_the_average_of_the_weights(corpus, tmp_path):
    fields = {"data": corpus, "optimizer": "muon", "decay_type": "1-sqrt", "learning_rate": 1e-2, "max_steps": 30}
    fields |= {"average_decay": 0.9, "cautious_weight_decay": "true", "z_loss": 1e-4}
    # of layers without keys too
    fields |= {"num_hidden_layers": 3, "layer_types": "linear_attention,recurrent,full_attention"}
    output = runs.finish(runs.start(**fields, output_dir=tmp_path / "whole"))
    assert "muon, warmup_stable_decay" in output
    folder = tmp_path / "killed"
    process = runs.start(**fields, output_dir=folder)
    wait_for(process, folder, 12)
    kill_group(process, signal.SIGKILL)
    assert "resuming from" in runs.finish(runs.start(**fields, output_dir=folder))
    assert_same_run(folder, tmp_path / "whole", "checkpoint-30")
    found, expected = (load_file(path / "checkpoint-30" / FILE) for path in (folder, tmp_path / "whole"))
    assert all(torch.equal(found[name], average) for name, average in expected.items())
    assert any(not torch.equal(runs.weights(folder / "checkpoint-30")[name], one) for name, one in found.items())


def test_a_teacher_says_the_same_again(corpus, tmp_path):
    runs.run_here(data=corpus, output_dir=tmp_path / "teacher", max_steps=5)
    fields = {"data": corpus, "teacher": tmp_path / "teacher", **FIELDS, "max_steps": 30}
    runs.run_here(**fields, output_dir=tmp_path / "whole")
    folder = tmp_path / "killed"
    process = runs.start(**fields, output_dir=folder)
    wait_for(process, folder, 10)
    kill_group(process, signal.SIGKILL)
    runs.run_here(**fields, output_dir=folder)
    assert_same_run(folder, tmp_path / "whole", "checkpoint-30")


def test_sigterm_saves_the_step_it_came_in_and_the_run_goes_on_from_there(corpus, never_killed, tmp_path):
    folder = tmp_path / "stopped"
    process = runs.launch(data=corpus, output_dir=folder, **{**FIELDS, "save_steps": 7})
    wait_for(process, folder, 7)
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert "run the same command again" in output
    assert not (folder / "metrics.json").exists()
    runs.finish(runs.start(data=corpus, output_dir=folder, **{**FIELDS, "save_steps": 7}))
    assert_same_run(folder, never_killed)


def test_a_run_ends_with_its_launcher(corpus, tmp_path):
    folder = tmp_path / "orphan"
    process = runs.launch(data=corpus, output_dir=folder, **{**FIELDS, "max_steps": 100000, "save_steps": 20})
    wait_for(process, folder, 20)
    process.kill()
    output, _ = process.communicate(timeout=120)  # returns when the recipe has closed its output too
    assert "run the same command again" in output


OBJECTIVES = {
    "masked": {"masking": "word", "mask_rate": 0.4, "mask_rate_end": 0.15},
    "hybrid": {"masking": "span", "causal_share": 0.3, "causal_steps": 12},
    "next-sentence": {"masking": "token", "mask_rate_end": 0.3},
    "infill": {},
    "mixture": {},
    "diffusion": {},
    "hybrid of three kinds": {"objective": "hybrid", "causal_share": 0.4, "diffusion_share": 0.3, "causal_steps": 5},
    "replaced-tokens": {"masking": "word"},
    "causal": {"objective": None, "infill_rate": 0.5, "prefix_share": 0.5},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_masks_rates_pairs_and_cuts_go_on_too_with_and_without_workers(english, tmp_path, objective):
    """Annealed rates, a switch point of the hybrid, the pairs of an epoch and the cuts of documents follow from the
    step, not from a state."""
    fields = {"data": english, "objective": objective, **FIELDS, **OBJECTIVES[objective], "max_steps": 30}
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    runs.run_here(output_dir=whole, **fields)
    process = runs.start(output_dir=folder, dataloader_num_workers=2, **fields)
    wait_for(process, folder, 10)
    kill_group(process, signal.SIGKILL)
    assert not (folder / "metrics.json").exists()
    runs.run_here(output_dir=folder, **fields)
    assert_same_run(folder, whole, "checkpoint-30")
