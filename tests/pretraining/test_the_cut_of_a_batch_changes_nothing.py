"""The same step as 1 x 8, 2 x 4 or 8 x 1 rows, in one process or two: the same loss, weights and schedule."""

import json

import pytest
import torch
from helpers import runs

STEPS = 12
FIELDS = {"max_steps": STEPS, "save_steps": STEPS, "eval_steps": 6, "learning_rate": 0.01, "max_grad_norm": 0.1}


@pytest.fixture(scope="module")
def one_by_eight(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "1x8"
    runs.run_here(data=corpus, output_dir=folder, per_device_train_batch_size=8, **FIELDS)
    return folder


def assert_equal_runs(folder, reference) -> None:
    found, expected = runs.weights(folder), runs.weights(reference)
    for name, value in expected.items():
        # Adam divides by the root of tiny squares: weights are compared over the length of the whole path
        assert (found[name] - value).norm() <= 1e-4 * value.norm(), name
    torch.testing.assert_close(
        torch.tensor(runs.losses(folder)), torch.tensor(runs.losses(reference)), rtol=1e-5, atol=0
    )
    rates = [
        [entry["learning_rate"] for entry in runs.history(path) if "loss" in entry] for path in (folder, reference)
    ]
    assert rates[0] == rates[1]
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (folder, reference)]
    for name in ("eval_loss", "eval_perplexity", "eval_bits_per_byte"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-5)


@pytest.mark.parametrize("micro_batch", [4, 1])
def test_accumulation(corpus, one_by_eight, tmp_path, micro_batch):
    runs.run_here(data=corpus, output_dir=tmp_path / "run", per_device_train_batch_size=micro_batch, **FIELDS)
    assert_equal_runs(tmp_path / "run", one_by_eight)


def test_two_processes_really_run_and_follow_the_curve_of_one(corpus, one_by_eight, tmp_path):
    folder = tmp_path / "run"
    output = runs.finish(runs.launch(2, data=corpus, output_dir=folder, per_device_train_batch_size=2, **FIELDS))
    assert "2 processes x 2 micro-batches x 2 rows" in output
    assert sorted(path.name for path in (folder / f"checkpoint-{STEPS}").glob("rng_state*")) == [
        "rng_state_0.pth",
        "rng_state_1.pth",
    ]
    assert_equal_runs(folder, one_by_eight)


def test_gradients_of_one_step_agree_to_rounding(corpus, tmp_path):
    """Plain gradient descent, so that the weights after one step are the gradient itself."""
    found = []
    for micro_batch in (8, 4, 1):
        folder = tmp_path / f"run-{micro_batch}"
        fields = {
            "optim": "sgd",
            "max_steps": 1,
            "warmup_steps": 0,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0,
        }
        fields |= {"weight_decay": 0, "learning_rate": 1000, "per_device_train_batch_size": micro_batch}
        runs.run_here(data=corpus, output_dir=folder, **{**FIELDS, **fields})
        found.append(runs.weights(folder))
    for other in found[1:]:
        for name, value in found[0].items():
            assert (other[name] - value).norm() <= 1e-6 * value.norm(), name


def test_processes_that_would_train_apart_from_each_other_are_refused(corpus, tmp_path):
    """Without use_cpu, two processes on a CPU form no group: each would train alone into the same folder."""
    process = runs.launch(2, data=corpus, output_dir=tmp_path / "run", **{**FIELDS, "use_cpu": "false"})
    output, _ = process.communicate(timeout=120)
    if torch.cuda.is_available():
        pytest.skip("with GPUs they do form a group")
    assert process.returncode != 0
    assert "2 processes but 1 work together" in output and "--multi_gpu" in output
    assert not list((tmp_path / "run").glob("checkpoint-*"))
