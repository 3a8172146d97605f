"""The benchmark of windows, documents, texts and prompts: the same computed on all sides, with and without tiles."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.benchmark import run

from weft import masks, tiles
from weft.recipes.benchmarks import decoding, training_step
from weft.recipes.benchmarks.batches import document_places
from weft.recipes.benchmarks.stock_models import Shape
from weft.recipes.benchmarks.whole_rows import MASK, in_whole_rows, whole_rows
from weft.recipes.common.errors import RecipeError

LONG = {"length": 64, "rounds": 1, "num_layers": 3, "measure_memory": "false"}
PACKED, TEXTS = {"document_tokens": [5, 20]}, {"head": "classification", "document_tokens": [20, 64]}


@pytest.fixture(autouse=True)
def tiles_of_short_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "LEAST_TOKENS", 8)
    monkeypatch.setattr(tiles, "LEAST_PACKED", 8)


def measured(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("fields", "sides"),
    [
        ({"subject": "step", "family": "mistral", "window": 8, "num_key_value_heads": 1}, {"weft", MASK, "mistral"}),
        ({"subject": "forward", "family": "modernbert", "window": 16}, {"weft", MASK, "modernbert"}),
        ({"subject": "score", "family": "mistral", "window": 8, **PACKED}, {"weft", MASK, "mistral"}),
        ({"subject": "step", "family": "llama", **PACKED}, {"weft", MASK, "llama"}),
        ({"subject": "forward", "family": "mistral", "window": 8, **PACKED}, {"weft", MASK, "mistral"}),
        ({"subject": "step", "family": "bert", **PACKED}, {"weft", MASK}),
        ({"subject": "step", "family": "modernbert", "window": 16, **TEXTS}, {"weft", MASK, "modernbert"}),
        ({"subject": "forward", "family": "bert", **TEXTS}, {"weft", MASK, "bert"}),
        ({"subject": "forward", "family": "llama", "head": "classification"}, {"weft", "llama"}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_all_sides_that_compute_the_same_are_measured(
    fields: dict[str, Any], sides: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses, or the scores, are compared before anything is timed."""
    run(monkeypatch, **LONG, **fields, output_file=tmp_path / "result.json")
    found = measured(tmp_path / "result.json")
    assert found["seconds"].keys() == found["processor_seconds"].keys() == sides
    assert {name: ratio["ours"] for name, ratio in found["ratios"].items()} == dict.fromkeys(sides - {"weft"}, "weft")


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether rows were cut, each time that it was asked."""
    found, cut = [], masks.window_tiles

    def spy(*inputs: Any) -> Any:
        found.append((made := cut(*inputs)) is not None)
        return made

    monkeypatch.setattr(masks, "window_tiles", spy)
    yield found


def test_one_side_has_tiles_and_the_other_whole_rows(cuts: list[bool]) -> None:
    sides = training_step.model_sides("forward", Shape("mistral", 1, 64, 200, 64, 1, window=8), "cpu", 1)
    for name, is_cut in {"weft": True, MASK: False}.items():
        cuts.clear()
        sides[name]()
        assert set(cuts) == {is_cut}, name


def test_tiles_come_back_behind_whole_rows() -> None:
    with pytest.raises(ZeroDivisionError), whole_rows():
        assert tiles.LEAST_TOKENS > 1 << 40 and tiles.LEAST_PACKED > 1 << 40
        raise ZeroDivisionError
    assert tiles.LEAST_TOKENS == tiles.LEAST_PACKED == 8
    assert in_whole_rows("weft", float) is float


def test_a_long_prompt_is_measured_by_itself_and_taken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "has_compiler", lambda: False)  # compiling takes a minute
    fields = {"subject": "generate", "family": "mistral", "window": 8, "prompt_length": 64, "length": 32}
    run(monkeypatch, **LONG | fields, output_file=tmp_path / "result.json")
    ratios = measured(tmp_path / "result.json")["ratios"]
    for side in (MASK, "mistral"):
        assert ratios[f"{side}, prompt"]["ours"] == "weft, prompt"
        assert ratios[side]["ours"] == "weft"
    assert ratios["weft, decode"]["theirs"] == "mistral" and ratios["weft, decode"]["ours"] == "weft, decode"
    assert "without the prompt: mistral / weft = " in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux")
def test_memory_of_each_side_is_measured_at_its_own_work(cuts: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here in this process instead of a fresh one each."""
    asked = []
    monkeypatch.setattr(training_step, "last_line_of", lambda what, module, words: asked.append(words) or "1.5")
    shape = Shape("mistral", 1, 64, 200, 64, 1, window=8)
    for side in training_step.memory_sides(shape):
        assert training_step.peak_megabytes("forward", shape, side, "cpu", 1) == 1.5
        subject, fields, name, device, _ = json.loads(json.dumps(asked[-1]))
        cuts.clear()
        assert training_step._work_here(subject, Shape(**fields), name, device) >= 0
        assert set(cuts) == {"weft": {True}, MASK: {False}, "mistral": set()}[side] and subject == "forward"


def test_documents_fill_each_row_with_lengths_between_the_two() -> None:
    places = document_places(20, 100, 7, 30)
    for row in places:
        starts = (row == 0).nonzero().flatten().tolist()
        lengths = [stop - start for start, stop in zip(starts, [*starts[1:], 100])]
        assert row.tolist() == [place for length in lengths for place in range(length)]
        assert all(7 <= length <= 30 for length in lengths[:-1]) and lengths[-1] <= 30
    assert torch.equal(places, document_places(20, 100, 7, 30)) and len({tuple(row.tolist()) for row in places}) > 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"window": 8}, "llama has no window: give --family mistral or modernbert"),
        ({"family": "modernbert", "window": 7}, "window is 7: give an even number"),
        ({"family": "bert", "num_key_value_heads": 1}, "bert shares no keys: give --family llama or mistral"),
        ({"num_key_value_heads": 2}, "num_key_value_heads is 2: give a divisor of the 1 heads"),
        ({"document_tokens": [5]}, "document_tokens are 5: give two numbers"),
        ({"document_tokens": [1, 5]}, r"the fewest tokens \(2 or more\)"),
        ({"document_tokens": [9, 5]}, "document_tokens are 9 5"),
        ({"document_tokens": [5, 17]}, "up to the length 16"),
        ({"subject": "score", "family": "bert"}, "bert scores a token at a time: give --family llama, gpt2 or mistral"),
        ({"subject": "head", "document_tokens": [5, 9]}, "document_tokens is for --subject step, forward or score"),
        ({"subject": "trainer", "head": "classification"}, "head is for --subject step or forward: leave it out"),
        ({"prompt_length": 100}, "prompt_length is for --subject generate: leave it out"),
        ({"busy_programs": 1}, "busy_programs is for --subject busy: leave it out"),
        ({"head": "tagging"}, "head is 'tagging': choose one of language_model, classification"),
    ],
)
def test_shapes_that_there_are_not_are_refused(
    fields: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        run(monkeypatch, **{"subject": "step", **fields})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="there is no GPU"):
        run(monkeypatch, subject="step", device="cuda")
