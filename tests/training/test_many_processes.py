"""Two processes learn what one does, hold what their launcher's file says, and go on where the others stopped."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import runs
from helpers.launched import SHARDING, as_stopped, run_together, watched, watched_run
from transformers import AutoModelForCausalLM

from weft.layers import WeftMLP
from weft.recipes.pretraining import setup
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.training import zero3

STEPS = 8
FIELDS = {"max_steps": STEPS, "save_steps": STEPS // 2, "eval_steps": 4, "learning_rate": 0.01, "max_grad_norm": 0.5}
FIELDS |= {"optimizer": "adamw"}  # which sharded weights are trained by
# Plain gradient descent for one step: the weights move by the gradient, or by as much of it as clipping leaves.
ONE_STEP = {"optim": "sgd", "max_steps": 1, "warmup_steps": 0, "lr_scheduler_type": "constant", "weight_decay": 0}
ONE_STEP |= {"learning_rate": 1.0, "save_steps": 1, "eval_steps": 1}
CLIPPED = {"max_grad_norm": 0.1}
# Both kinds of rows, an output matrix of its own, and layers that hand on values; and what changes no number of a step.
HYBRID = {**FIELDS, "objective": "hybrid", "causal_share": 0.5, "tie_word_embeddings": "false"}
HYBRID |= {"attention_gate": "true", "value_residual": "true"}
SAME = {"per_device_train_batch_size": 1, "gradient_checkpointing": "true"}
LAUNCHED = ("cpu_2.yaml", *SHARDING)


@pytest.fixture(scope="module", autouse=True)
def _unmeasured() -> Iterator[None]:
    """Without the rate of matrix products, which takes a processor a minute to find out in bfloat16; and with no weight
    so small that ZeRO-3 leaves it whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zero3, "SMALL", 0)
        patch.setattr(setup, "measure_matmul_flops", lambda *_, **__: 1e9)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one(corpus: Path, folder: Path) -> Path:
    """The run in one process."""
    watched_run(folder / "one", data=corpus, **FIELDS)
    return folder / "one"


@pytest.fixture(scope="module", params=LAUNCHED)
def two(request: pytest.FixtureRequest, corpus: Path, folder: Path, one: Path) -> Path:
    """A folder with the same runs in two processes, under each launcher's file."""
    place = folder / Path(request.param).stem
    run_together(request.param, watched_run, place / "whole", data=corpus, **FIELDS)
    for name, source in (("resumed", place / "whole"), ("resumed from one", one)):
        stopped = as_stopped(source, place / name, STEPS // 2)
        run_together(request.param, watched_run, stopped, data=corpus, **FIELDS)
    return place


@pytest.fixture(scope="module", params=SHARDING)
def sharded(request: pytest.FixtureRequest, corpus: Path, english: Path, folder: Path) -> Path:
    """A folder with runs of other options in two processes that share the weights."""
    place = folder / "sharded" / Path(request.param).stem
    others = {"bf16": {**FIELDS, "data": corpus, "bf16": "true"}, "clipped": {**ONE_STEP, "data": corpus, **CLIPPED}}
    for name, fields in {**others, "hybrid": {**HYBRID, "data": english, **SAME}}.items():
        run_together(request.param, runs.run_here, output_dir=place / name, **fields)
    return place


def assert_same_weights(found: Path, expected: Path) -> None:
    """As far apart as sums in another order take two runs, over the length of the whole path."""
    for name in ("", *(path.name for path in expected.glob(f"checkpoint-{STEPS}"))):
        weights, reference = runs.weights(found / name), runs.weights(expected / name)
        assert weights.keys() == reference.keys()
        for key, value in reference.items():
            assert weights[key].dtype == value.dtype
            assert (weights[key] - value).norm() <= 1e-4 * value.norm(), key
    assert_same_curve(found, expected, 1e-5)


def assert_same_curve(found: Path, expected: Path, tolerance: float) -> None:
    curves = [torch.tensor(runs.losses(path)) for path in (found, expected)]
    torch.testing.assert_close(*curves, rtol=tolerance, atol=0)
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (found, expected)]
    for name in ("eval_loss", *({"eval_bits_per_byte", "eval_masked_loss"} & metrics[1].keys())):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=tolerance)


def rows_of(noted: list[dict]) -> dict[str, list]:
    """Rows of each step over all processes, in any order."""
    return {step: sorted(row for each in noted for row in each["rows"][step]) for step in noted[0]["rows"]}


def test_each_process_sees_half_of_every_step(two: Path, one: Path) -> None:
    expected, found = watched(one), watched(two / "whole", 2)
    assert len(expected[0]["rows"]) == STEPS and rows_of(found) == rows_of(expected)
    assert {len(rows) for each in found for rows in each["rows"].values()} == {4}


def test_the_weights_are_those_of_one_process(two: Path, one: Path) -> None:
    assert_same_weights(two / "whole", one)
    norms = [[entry["grad_norm"] for entry in runs.history(path) if "loss" in entry] for path in (two / "whole", one)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_each_process_holds_what_the_file_says(two: Path) -> None:
    """Under FSDP2 and ZeRO-3 half of every weight and of its gradient, else all of them."""
    found = [each["held"] for each in watched(two / "whole", 2)]
    assert found[0].keys() == found[1].keys() and len(found[0]) > 10
    for name, (whole, *_) in found[0].items():
        here = [each[name][1:] for each in found]
        assert here == [[whole // 2 if two.name != "cpu_2" else whole] * 2] * 2, name


def test_checkpoints_are_the_folders_that_one_process_writes(two: Path, one: Path) -> None:
    last = f"checkpoint-{STEPS}"
    names = [{path.name for path in (path / last).iterdir()} for path in (two / "whole", one)]
    assert names[0] - names[1] == {"rng_state_0.pth", "rng_state_1.pth"} and names[1] - names[0] == {"rng_state.pth"}
    assert (two / "whole" / last / "config.json").read_text() == (one / last / "config.json").read_text()
    ids = torch.arange(12)[None]
    models = [AutoModelForCausalLM.from_pretrained(path / last).eval() for path in (two / "whole", one)]
    torch.testing.assert_close(models[0](ids).logits, models[1](ids).logits, rtol=0, atol=1e-3)
    optimizers = [torch.load(path / last / "optimizer.pt", weights_only=True) for path in (two / "whole", one)]
    assert optimizers[0]["param_groups"] == optimizers[1]["param_groups"]
    for place, state in optimizers[1]["state"].items():
        for name, value in state.items():
            assert (optimizers[0]["state"][place][name] - value).norm() <= 1e-3 * value.norm(), (place, name)


@pytest.mark.parametrize("name", ["resumed", "resumed from one"])
def test_a_run_goes_on_with_the_same_rows_to_the_same_weights(two: Path, one: Path, name: str) -> None:
    assert_same_weights(two / name, one)
    rest = {step: rows for step, rows in rows_of(watched(one)).items() if int(step) >= STEPS // 2}
    assert rows_of(watched(two / name, 2)) == rest
    if name == "resumed":
        weights = [runs.weights(two / each) for each in (name, "whole")]
        assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())


def test_what_two_processes_began_one_ends(two: Path, one: Path, corpus: Path, tmp_path: Path) -> None:
    watched_run(as_stopped(two / "whole", tmp_path / "run", STEPS // 2), data=corpus, **FIELDS)
    assert_same_weights(tmp_path / "run", one)
    rest = {step: rows for step, rows in rows_of(watched(one)).items() if int(step) >= STEPS // 2}
    assert rows_of(watched(tmp_path / "run")) == rest


def test_accumulated_and_computed_again_the_step_is_the_same(sharded: Path, english: Path, tmp_path: Path) -> None:
    """Four micro-batches, and layers computed again in the backward pass, where the weights are sharded."""
    runs.run_here(data=english, output_dir=tmp_path / "one", **HYBRID)
    assert_same_weights(sharded / "hybrid", tmp_path / "one")
    for name in ("loss_causal", "loss_masked"):
        paths = (sharded / "hybrid", tmp_path / "one")
        found, expected = ([entry[name] for entry in runs.history(path) if name in entry] for path in paths)
        assert len(expected) == STEPS and found == pytest.approx(expected, rel=1e-5)


def test_bfloat16_follows_the_curve_with_float32_weights(
    sharded: Path, one: Path, corpus: Path, tmp_path: Path
) -> None:
    runs.run_here(data=corpus, output_dir=tmp_path / "bf16", **FIELDS, bf16="true")
    for path in (tmp_path / "bf16", sharded / "bf16"):
        assert_same_curve(path, one, 2e-2)
        assert runs.losses(path) != pytest.approx(runs.losses(one), rel=1e-5)
        assert {value.dtype for value in runs.weights(path).values()} == {torch.float32}


def note_first_weights(folder: Path, **fields: object) -> None:
    """A run that writes the whole weights which its first step begins with into the folder "begun"."""
    prepare = PretrainingTrainer._prepare_for_training

    def prepared(trainer: PretrainingTrainer, *arguments: object) -> object:
        made, whole = prepare(trainer, *arguments), trainer.whole_model()
        if whole is not None:
            whole.save_pretrained(folder / "begun")
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainingTrainer, "_prepare_for_training", prepared)
        runs.run_here(output_dir=folder, **fields)


@pytest.mark.parametrize("launcher", SHARDING)
def test_bfloat16_goes_on_with_the_float32_weights_of_the_checkpoint(
    launcher: str, corpus: Path, tmp_path: Path
) -> None:
    fields = {**FIELDS, "data": corpus, "bf16": "true"}
    runs.run_here(output_dir=tmp_path / "one", **fields)
    stopped = as_stopped(tmp_path / "one", tmp_path / "run", STEPS // 2)
    run_together(launcher, note_first_weights, stopped, **fields)
    found, expected = (runs.weights(stopped / name) for name in ("begun", f"checkpoint-{STEPS // 2}"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert any(not torch.equal(value.bfloat16().float(), value) for value in expected.values())


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_zero_parts_of_any_number_of_processes_are_the_whole(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = torch.arange(7.0).view(7, 1), []
    weight = SimpleNamespace(ds_tensor=torch.empty(-(-7 // processes)), ds_process_group=None)
    for rank in range(processes):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda group, rank=rank: rank)
        parts.append(zero3._part_of_this_process(whole, weight))
    row = torch.cat(parts)
    assert torch.equal(row[:7], whole.flatten()) and not row[7:].any()


def test_clipping_is_that_of_the_whole_gradient(sharded: Path, corpus: Path, tmp_path: Path) -> None:
    free, clipped = tmp_path / "free", tmp_path / "clipped"
    runs.run_here(data=corpus, output_dir=free, **ONE_STEP, max_grad_norm=0)
    runs.run_here(data=corpus, output_dir=clipped, **ONE_STEP, **CLIPPED)
    norm = next(entry["grad_norm"] for entry in runs.history(free) if "loss" in entry)
    assert norm > 0.5
    for path in (clipped, sharded / "clipped"):
        found, expected = runs.weights(path), runs.weights(free)
        apart = torch.cat([(found[name] - value).flatten() for name, value in expected.items()]).norm()
        assert apart == pytest.approx(norm - 0.1, rel=1e-4)


def break_third_step(folder: Path, message: Path, **fields: object) -> None:
    """A run in which the loss of the second process is infinite at the third step; notes the sentence it ends with."""
    compute_loss = PretrainingTrainer.compute_loss

    def broken(trainer: PretrainingTrainer, *args: object, **kwargs: object) -> torch.Tensor:
        is_here = trainer.state.global_step == 2 and trainer.args.process_index == 1
        return compute_loss(trainer, *args, **kwargs) * (float("inf") if is_here else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainingTrainer, "compute_loss", broken)
        said = runs.run_error(output_dir=folder, **fields)
    message.with_suffix(f".{os.environ['RANK']}").write_text(said)


@pytest.mark.parametrize("launcher", SHARDING)
def test_an_infinite_loss_of_one_process_stops_all_of_them(launcher: str, corpus: Path, tmp_path: Path) -> None:
    run_together(launcher, break_third_step, tmp_path / "run", tmp_path / "said", data=corpus, **FIELDS)
    for rank in range(2):
        assert "not finite at step 3" in (tmp_path / f"said.{rank}").read_text()


def test_layers_are_computed_again_where_that_is_asked_for(one: Path, corpus: Path, tmp_path: Path) -> None:
    passes = []
    forward = WeftMLP.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeftMLP, "forward", lambda self, states: passes.append(self.training) or forward(self, states))
        runs.run_here(data=corpus, output_dir=tmp_path / "run", gradient_checkpointing="true", **FIELDS)
    assert sum(passes) == 2 * 2 * STEPS  # both layers, twice a step
    found, expected = runs.weights(tmp_path / "run"), runs.weights(one)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_muon_is_the_same_in_two_processes_and_goes_on_bit_for_bit(corpus: Path, tmp_path: Path) -> None:
    fields = {**FIELDS, "data": corpus, "optimizer": "muon"}
    runs.run_here(output_dir=tmp_path / "one", **fields)
    run_together("cpu_2.yaml", runs.run_here, output_dir=tmp_path / "whole", **fields)
    assert_same_weights(tmp_path / "whole", tmp_path / "one")
    stopped = as_stopped(tmp_path / "whole", tmp_path / "resumed", STEPS // 2)
    run_together("cpu_2.yaml", runs.run_here, output_dir=stopped, **fields)
    found, expected = (runs.weights(tmp_path / name) for name in ("resumed", "whole"))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("launcher", SHARDING)
def test_the_command_of_the_file_shards_the_weights(launcher: str, corpus: Path, one: Path, tmp_path: Path) -> None:
    output = runs.finish(runs.launch(2, launcher, data=corpus, output_dir=tmp_path / "run", **FIELDS))
    assert "2 processes x 1 micro-batches x 4 rows" in output and "weights sharded over all processes" in output
    assert_same_weights(tmp_path / "run", one)
