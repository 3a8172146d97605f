"""Steps that grow: which rows they take, in any cut, and a run of them beside a plain loop over the same rows."""

import itertools
import math

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from helpers import runs
from helpers.launched import run_together
from safetensors.torch import load_file

from weft import WeftForCausalLM
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import collate_causal
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.pretraining.plan import steps_for
from weft.recipes.training.batch_schedule import StepBatches, Steps

RAMP = {"initial_tokens_per_step": 64, "batch_ramp_steps": 6, "max_steps": 9, "save_steps": 4, "eval_steps": 9}
SIZES = [2, 2, 2, 4, 4, 4, 8, 8, 8]  # rows of the steps of such a run


def sizes_by_hand(rows, number, initial, ramp):
    """Each step's rows: as many doublings as stages have begun."""
    doublings = int(math.log2(rows / initial)) if initial else 0
    if not doublings:
        return [rows] * number
    begins = [round(index * ramp / doublings) for index in range(1, doublings + 1)]
    return [initial * 2 ** sum(step >= begin for begin in begins) for step in range(number)]


@pytest.mark.parametrize(
    ("rows", "number", "initial", "ramp"),
    [(8, 9, 2, 6), (8, 9, 1, 7), (24, 40, 3, 11), (8, 5, 8, 3), (8, 5, None, 0), (16, 9, 1, 0), (64, 9, 1, 3)],
)
def test_steps_double_at_equal_distances_and_miss_no_row(rows, number, initial, ramp):
    steps, sizes = Steps(rows, number, initial, ramp), sizes_by_hand(rows, number, initial, ramp)
    assert [steps.rows(step) for step in range(number)] == sizes
    assert [steps.before(step) for step in range(number + 1)] == [0, *itertools.accumulate(sizes)]
    expected = [step for step, size in enumerate(sizes) for _ in range(size)]
    assert [steps.of(index) for index in range(len(expected))] == expected


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
@pytest.mark.parametrize("processes", [1, 2])
def test_in_any_cut_a_step_takes_the_same_rows_and_every_process_computes_last(processes, micro_batch):
    steps, accumulation = Steps(8, 9, 2, 6), 8 // processes // micro_batch
    batches = StepBatches(steps, micro_batch, accumulation, processes)
    taken = [[] for _ in SIZES]
    for process in range(processes):
        share = list(BatchSamplerShard(batches, processes, process))
        assert len(share) == len(SIZES) * accumulation == len(batches) // processes
        for number, batch in enumerate(share):
            taken[number // accumulation] += batch
            assert len(batch) <= micro_batch
        assert all(share[accumulation - 1 :: accumulation]), "gradients are exchanged after the last micro-batch"
    ends = list(itertools.accumulate(SIZES))
    assert [sorted(rows) for rows in taken] == [list(range(end - size, end)) for end, size in zip(ends, SIZES)]


@pytest.mark.parametrize("ramp", [0.3, 1.0, 7, 0.0])
@pytest.mark.parametrize("initial", [None, 8, 2, 1])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000])
def test_a_length_in_tokens_is_reached_and_not_by_a_step_more(rows, initial, ramp):
    def taken(number):
        steps = round(ramp * number) if ramp < 1 else int(ramp)
        return sum(sizes_by_hand(8, number, initial, steps if initial else 0))

    number = steps_for(rows, 8, initial, ramp)
    assert taken(number) >= rows
    assert number == 1 or taken(number - 1) < rows


def test_a_run_follows_a_plain_loop_over_the_same_rows(corpus, tmp_path):
    """Plain gradient descent, which has no memory that could hide a wrong sum."""
    folder = tmp_path / "run"
    fields = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "warmup_steps": 0}
    fields |= {"max_grad_norm": 0, "weight_decay": 0, "save_steps": 1, "save_total_limit": 20}
    runs.run_here(data=corpus, output_dir=folder, per_device_train_batch_size=2, **{**RAMP, **fields})
    model = WeftForCausalLM.from_pretrained(folder / "checkpoint-1").double()
    rows = TrainingRows(Corpus.open(corpus), 32, 1000, seed=42)
    first = SIZES[0]
    expected = []
    for size in SIZES[1:]:
        loss = model(**collate_causal([rows[index] for index in range(first, first + size)])).loss
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        expected.append(loss.item())
        first += size
    assert runs.losses(folder)[1:] == pytest.approx(expected, rel=1e-5)
    found = load_file(folder / "model.safetensors")
    for name, parameter in model.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name].double(), parameter.detach(), rtol=1e-4, atol=1e-6)
    tokens = [entry["tokens_seen"] for entry in runs.history(folder) if "loss" in entry]
    assert tokens == [32 * rows for rows in itertools.accumulate(SIZES)]
    epochs = [entry["epoch"] for entry in runs.history(folder) if "loss" in entry]
    assert epochs == pytest.approx([count / 32 / rows.rows_per_epoch for count in tokens], abs=1e-3)


@pytest.mark.parametrize("launcher", ["cpu_2.yaml", "fsdp2.yaml"])
def test_two_processes_follow_the_curve_of_one(corpus, tmp_path, launcher, capfd):
    fields = {"learning_rate": 0.01, "max_grad_norm": 0.1, "optimizer": "adamw"}
    runs.run_here(data=corpus, output_dir=tmp_path / "one", per_device_train_batch_size=8, **RAMP, **fields)
    capfd.readouterr()
    fields |= {"data": corpus, "per_device_train_batch_size": 2, **RAMP}
    run_together(launcher, runs.run_here, output_dir=tmp_path / "two", **fields)
    output = capfd.readouterr().out
    assert ("sharded" in output) == (launcher == "fsdp2.yaml")
    assert "2 processes x 2 micro-batches x 2 rows; the first have 64 tokens, doubled until step 6" in output
    assert runs.losses(tmp_path / "two") == pytest.approx(runs.losses(tmp_path / "one"), rel=1e-5)


def test_a_run_stopped_within_the_ramp_goes_on_with_the_next_row(corpus, tmp_path):
    fields = {**RAMP, "save_steps": 4, "save_total_limit": 5, "per_device_train_batch_size": 4}
    runs.run_here(data=corpus, output_dir=tmp_path / "whole", **fields)
    stopped = tmp_path / "stopped"
    runs.run_here(data=corpus, output_dir=stopped, **fields)
    for path in (*stopped.glob("checkpoint-[89]*"), stopped / "metrics.json", stopped / "model.safetensors"):
        path.rename(tmp_path / path.name)
    runs.run_here(data=corpus, output_dir=stopped, **fields)
    found, expected = runs.weights(stopped), runs.weights(tmp_path / "whole")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_masked_rows_know_their_step(tmp_path):
    corpus = runs.make_corpus_of_sentences(tmp_path)
    losses = []
    for micro_batch in (1, 8):
        folder = tmp_path / f"run-{micro_batch}"
        fields = {"objective": "masked", "masking": "token", "mask_rate": 0.4, "mask_rate_end": 0.1}
        runs.run_here(data=corpus, output_dir=folder, per_device_train_batch_size=micro_batch, **RAMP, **fields)
        losses.append(runs.losses(folder))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_targets_must_fit_the_small_batches_of_a_ramp_too(tmp_path):
    """Of four rows two are causal, 58% of whose tokens are predicted; of one row all are."""
    corpus = runs.make_corpus_of_sentences(tmp_path)
    fields = {"objective": "hybrid", "target_share": 0.6, "mask_rate": 0.15}
    fields |= {"per_device_train_batch_size": 4, "max_steps": 9}
    runs.run_here(data=corpus, output_dir=tmp_path / "even", **fields)
    error = runs.run_error(data=corpus, output_dir=tmp_path / "ramp", initial_tokens_per_step=32, **fields)
    assert "target_share is 0.6, but up to 100.00% of a batch's tokens are predicted" in error


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"initial_tokens_per_step": 96}, "give one of 128, 64, 32."),
        ({"initial_tokens_per_step": 256}, "give one of 128, 64, 32."),
        ({"initial_tokens_per_step": 64, "batch_ramp_steps": -1}, "batch_ramp_steps is -1"),
        (
            {"initial_tokens_per_step": 64, "batch_ramp_steps": 10},
            "batch_ramp_steps=10 is longer than the whole run of 9 steps",
        ),
        ({"batch_ramp_steps": 4}, "batch_ramp_steps has no effect without initial_tokens_per_step"),
        ({"initial_tokens_per_step": 64, "budget": "1m", "max_steps": None}, "a budget plans with steps of one size"),
    ],
)
def test_ramps_that_do_not_work_out_are_refused(corpus, tmp_path, fields, said):
    error = runs.run_error(data=corpus, output_dir=tmp_path / "run", **{"max_steps": 9, **fields})
    assert said in error
    assert not (tmp_path / "run" / "run.json").exists()
