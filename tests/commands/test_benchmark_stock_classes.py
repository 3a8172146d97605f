"""The benchmark beside stock classes: the same weights and losses on both sides, ratios of one run, memory apart."""

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers.benchmark import run
from transformers import PreTrainedModel

from weft.recipes import benchmark
from weft.recipes.benchmarks import decoding, stock_models, training_step
from weft.recipes.benchmarks.arguments import FAMILIES
from weft.recipes.benchmarks.stock_models import Shape
from weft.recipes.benchmarks.under_trainer import TrainerSide, check_losses, train_here, trainer_sides
from weft.recipes.common.errors import RecipeError


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_is_measured_on_both_sides(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = tmp_path / "result.json"
    run(monkeypatch, subject="step", family=family, rounds=2, measure_memory="false", output_file=result)
    found = json.loads(result.read_text())
    assert found["seconds"].keys() == {"weft", family} and all(len(times) == 2 for times in found["seconds"].values())
    assert found["settings"]["family"] == family and found["versions"].keys() >= {"torch", "transformers"}


def test_memory_is_measured_in_fresh_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary whose logits are most of the memory: without them there is less of it."""
    result = tmp_path / "result.json"
    large = {"vocab_size": 20_000, "length": 256, "batch_size": 8}
    monkeypatch.setattr("weft.recipes.benchmarks.subjects.MEMORY_ROUNDS", 1)
    run(monkeypatch, subject="step", rounds=1, output_file=result, **large)
    peaks = json.loads(result.read_text())["peak_megabytes"]
    assert all(len(found) == 1 for found in peaks.values())
    assert min(peaks["llama"]) > 2 * 8 * 256 * 20_000 * 4 / 1e6  # logits and their gradient
    assert max(peaks["weft"]) < min(peaks["llama"])


@pytest.mark.parametrize(("subject", "rows"), [("head", 2), ("generate", 1), ("generate", 3)])
def test_head_and_decoding_are_measured(
    subject: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several prompts beside the stock class alone."""
    result = tmp_path / "result.json"
    monkeypatch.setattr(decoding, "has_compiler", lambda: False)  # compiling takes a minute
    run(monkeypatch, subject=subject, batch_size=rows, rounds=1, output_file=result)
    sides = {
        "head": {"weft", "weft, logits", "stock"},
        "generate": {"weft", "llama", "llama, by column"} | {"weft, decode", "weft, decode added", "weft, decode int8"},
    }[subject]
    sides = {"weft", "llama", "weft, decode"} if subject == "generate" and rows > 1 else sides
    assert json.loads(result.read_text())["seconds"].keys() == sides


def test_training_under_transformers_trainer_is_measured_in_fresh_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result, on_linux = tmp_path / "result.json", sys.platform == "linux"
    run(monkeypatch, subject="trainer", rounds=1, steps=2, measure_memory=on_linux, output_file=result)
    found = json.loads(result.read_text())
    runs = {name: only for name, (only,) in found["under_trainer"].items()}
    assert runs.keys() == found["seconds"].keys() == {"weft", "llama"}
    # 6 for each weight but the embedding's, and for scores 12 x heads x head_dim x half the row, each token
    flops = 6 * (4 * 64 * 64 + 3 * 64 * 192 + 64 * (2 + 1) + 200 * 64) + 12 * 64 * 8
    fastest = max(one["matmul_flops"] for one in runs.values())
    for name, one in runs.items():
        speed = 2 * 16 / found["seconds"][name][0]
        assert one["tokens_per_second"] == pytest.approx(speed) and one["flops"] == pytest.approx(speed * flops)
        assert one["mfu"] == pytest.approx(one["flops"] / fastest)
        assert not on_linux or one["peak_megabytes"] > 0
    printed = capsys.readouterr().out
    assert printed.count("tokens/s, MFU") == 2 and printed.count("MB at most") == 2 * on_linux


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="Trainer would share a batch between GPUs")
@pytest.mark.parametrize(("family", "documents"), [*((family, 1) for family in FAMILIES), ("llama", 4)])
def test_both_sides_train_alike_under_trainer(family: str, documents: int) -> None:
    """With the same weights, rows and documents: losses stay the same over steps. Other documents, other losses."""
    sides = trainer_sides(Shape(family, 2, 64, 200, 16, 2), ["sdpa"], documents, 8, False, False, None)
    for side in sides.values():
        side.found = [train_here(side)]
    check_losses(sides)
    ours, theirs = (side.found[0] for side in sides.values())
    assert ours["mean_loss"] == pytest.approx(theirs["mean_loss"], rel=1e-5 if ours["device"] == "cpu" else 1e-3)
    assert ours["mean_loss"] < 0.999 * ours["loss"] and "peak_megabytes" not in ours
    if documents > 1:
        sides["weft"].documents = 1
        sides["weft"].found = [train_here(sides["weft"])]
        with pytest.raises(RecipeError, match=r"different losses, .*: weft \d\.\d+, llama \d\.\d+"):
            check_losses(sides)


def test_sides_are_compared_with_weft_on_the_same_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times made up: Weft 1 and 2, Llama 3 and 8 seconds, on the first and the second backend."""
    times = {(True, "sdpa"): 1.0, (True, "eager"): 2.0, (False, "sdpa"): 3.0, (False, "eager"): 8.0}

    def pretend(side: TrainerSide) -> float:
        numbers = dict.fromkeys(("tokens_per_second", "flops", "matmul_flops", "loss"), 1.0)
        side.found.append({**numbers, "device": "cpu"})
        return times[side.is_weft, side.attention]

    monkeypatch.setattr(TrainerSide, "__call__", pretend)
    result = tmp_path / "result.json"
    fields = ["--attention", "sdpa", "eager", "--measure_memory", "false", "--output_file", str(result)]
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--subject", "trainer", *fields])
    benchmark.main()
    ratios = {name: ratio["median"] for name, ratio in json.loads(result.read_text())["ratios"].items()}
    assert ratios == {"llama": 3.0, "weft, eager": 2.0, "llama, eager": 4.0}
    assert "llama, eager / weft, eager = 4.00" in capsys.readouterr().out


def test_why_a_fresh_process_failed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (side, _) = trainer_sides(Shape("llama", 1, 64, 200, 16, 2), ["flex_attention"], 1, 2, False, False, 1).values()
    with pytest.raises(RecipeError, match=r"weft with flex_attention was not measured: ValueError: .* on a CPU"):
        side()
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "silent.py").write_text("import os; os._exit(7)")
    with pytest.raises(RecipeError, match="it was not measured: it ended with status 7"):
        stock_models.last_line_of("it", "silent", None)
    (tmp_path / "advising.py").write_text("import sys; sys.exit('torch.Error: no such thing\\nSet VERBOSE=1')")
    with pytest.raises(RecipeError, match=r"it was not measured: torch\.Error: no such thing"):
        stock_models.last_line_of("it", "advising", None)


def test_sides_that_do_not_compute_the_same_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, make_stock = Shape("llama", 1, 64, 200, 16, 2), stock_models.make_stock

    def other(shape: Shape) -> PreTrainedModel:
        """Weights that change between the import and the first step."""
        model = make_stock(shape)
        model.train = lambda mode=True: model.lm_head.weight.data.mul_(1.5) is not None and model
        return model

    monkeypatch.setattr(training_step, "make_stock", other)
    with pytest.raises(RecipeError, match=r"weft starts with a loss of .*, llama with .*: they differ"):
        training_step.model_sides("step", shape, "cpu", 1)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"subject": "step", "family": "mamba"},
            r"family is 'mamba' \(did you mean llama\?\): choose one of llama, gpt2, mistral",
        ),
        ({"subject": "generate", "family": "bert"}, "bert writes no text: give --family llama, gpt2 or mistral"),
        ({"subject": "step", "width": 100}, "width is 100: give a multiple of 64"),
        ({"subject": "head", "vocab_size": 0}, "vocab_size is 0: give at least 1"),
        ({"subject": "trainer", "documents": 2, "family": "bert"}, "are packed beside --family llama: give a divisor"),
        ({"subject": "trainer", "documents": 3}, "give a divisor of the length 16, not 3"),
        ({"subject": "trainer", "documents": 16}, "of two tokens or more"),
        ({"subject": "trainer", "documents": 2, "attention": "flash_attention_2"}, "one row only: give --batch_size 1"),
        ({"subject": "step", "documents": 2}, "documents is for --subject trainer: leave it out"),
        ({"subject": "head", "torch_compile": "true"}, "torch_compile is for --subject trainer: leave it out"),
    ],
)
def test_what_cannot_be_measured_is_refused(fields: dict, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=sentence):
        run(monkeypatch, **fields)
