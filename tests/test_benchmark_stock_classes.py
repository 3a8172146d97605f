"""The benchmark beside stock classes: the same weights and losses on both sides, ratios of one run, memory apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from weft.recipes import benchmark
from weft.recipes.common import stock_sides
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.stock_sides import Shape
from weft.recipes.common.trainer_sides import check_losses, train_here, trainer_sides

SMALL = {"num_layers": 1, "width": 64, "vocab_size": 200, "length": 16, "batch_size": 2, "cpu_threads": 1}


def run(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    words = [word for name, value in {**SMALL, **fields}.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *words])
    benchmark.main()


@pytest.mark.parametrize("family", benchmark.FAMILIES)
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
    monkeypatch.setattr(benchmark, "MEMORY_ROUNDS", 1)
    run(monkeypatch, subject="step", rounds=1, output_file=result, **large)
    peaks = json.loads(result.read_text())["peak_megabytes"]
    assert all(len(found) == 1 for found in peaks.values())
    assert min(peaks["llama"]) > 2 * 8 * 256 * 20_000 * 4 / 1e6  # logits and their gradient
    assert max(peaks["weft"]) < min(peaks["llama"])


@pytest.mark.parametrize("subject", ["head", "generate"])
def test_head_and_decoding_are_measured(subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "result.json"
    monkeypatch.setattr(stock_sides, "has_compiler", lambda: False)  # compiling takes a minute
    run(monkeypatch, subject=subject, rounds=1, output_file=result)
    sides = {
        "head": {"weft", "weft, logits", "stock"},
        "generate": {"weft", "llama", "llama, by column"} | {"weft, decode", "weft, decode added", "weft, decode int8"},
    }[subject]
    assert json.loads(result.read_text())["seconds"].keys() == sides


def test_training_under_transformers_trainer_is_measured_in_fresh_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    run(monkeypatch, subject="trainer", rounds=1, steps=2, output_file=result)
    found = json.loads(result.read_text())
    runs = {name: only for name, (only,) in found["under_trainer"].items()}
    assert runs.keys() == found["seconds"].keys() == {"weft", "llama"}
    assert runs["weft"]["loss"] == pytest.approx(runs["llama"]["loss"], abs=1e-4)
    for name, one in runs.items():
        assert one["tokens_per_second"] == pytest.approx(2 * 16 / found["seconds"][name][0])
        assert 0 < one["mfu"] < 1 and one["peak_megabytes"] > 0 and one["device"] == "cpu"
    printed = capsys.readouterr().out
    assert printed.count("tokens/s, MFU") == 2 and printed.count("MB at most") == 2


@pytest.mark.parametrize(("family", "documents"), [*((family, 1) for family in benchmark.FAMILIES), ("llama", 4)])
def test_both_sides_train_alike_under_trainer(family: str, documents: int) -> None:
    """With the same weights and rows, whatever each is told of targets and documents, and not as without documents."""
    sides = trainer_sides(Shape(family, 1, 64, 200, 16, 2), ["sdpa"], documents, 2, False, False, None)
    for side in sides.values():
        side.found = [train_here(side)]
    check_losses(sides)
    assert "peak_megabytes" not in sides["weft"].found[0]
    if documents > 1:
        sides["weft"].documents = 1
        sides["weft"].found = [train_here(sides["weft"])]
        with pytest.raises(RecipeError, match=r"different losses, .*: weft \d\.\d+, llama \d\.\d+"):
            check_losses(sides)


def test_what_a_side_cannot_do_is_said_in_a_sentence() -> None:
    (side, _) = trainer_sides(Shape("llama", 1, 64, 200, 16, 2), ["flex_attention"], 1, 2, False, False, 1).values()
    with pytest.raises(RecipeError, match=r"weft with flex_attention failed: ValueError: .* no backward pass on a CPU"):
        side()


def test_sides_that_do_not_compute_the_same_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, make_stock = Shape("llama", 1, 64, 200, 16, 2), stock_sides.make_stock

    def other(shape: Shape) -> PreTrainedModel:
        """Weights that change between the import and the first step."""
        model = make_stock(shape)
        model.train = lambda mode=True: model.lm_head.weight.data.mul_(1.5) is not None and model
        return model

    monkeypatch.setattr(stock_sides, "make_stock", other)
    with pytest.raises(RecipeError, match=r"weft starts with a loss of .*, llama with .*: they differ"):
        stock_sides.step_sides(shape, "cpu", 1)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"subject": "step", "family": "mamba"}, "family 'mamba' is not measured: choose one of llama, gpt2"),
        ({"subject": "generate", "family": "bert"}, "bert writes no text: give --family llama or gpt2"),
        ({"subject": "step", "width": 100}, "width is 100: give a multiple of 64"),
        ({"subject": "head", "vocab_size": 0}, "vocab_size is 0: give at least 1"),
        ({"subject": "trainer", "documents": 2, "family": "bert"}, "documents are packed beside --family llama"),
        ({"subject": "step", "documents": 2}, "documents are packed beside --family llama with --subject trainer"),
    ],
)
def test_what_cannot_be_measured_is_refused(fields: dict, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=sentence):
        run(monkeypatch, **fields)
