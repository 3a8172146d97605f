"""All measurements in one go: entries of a file are read whole, kept where they are the same, shown in one table."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import finetuning as ft
from helpers.marked import read_marked

from weft.recipes import benchmark
from weft.recipes.benchmarks import entry_runs
from weft.recipes.benchmarks.arguments import SUBJECTS, BenchmarkArguments
from weft.recipes.benchmarks.entries import GROUPS, Entry, choose, read_entries
from weft.recipes.benchmarks.ratios import compared, ratios_of, ratios_of_the_rest
from weft.recipes.benchmarks.road.arguments import RoadArguments
from weft.recipes.benchmarks.road.report import as_result
from weft.recipes.benchmarks.table import markdown
from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "recipes" / "configs" / "benchmark.yaml"
ENTRIES = {entry.name: entry for entry in read_entries(FILE)}
TINY = {"num_layers": 1, "width": 64, "vocab_size": 100, "length": 16, "batch_size": 2, "rounds": 1, "cpu_threads": 1}


def run(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark.py", *map(str, words)])
    benchmark.main()


def write(path: Path, entries: Any) -> Path:
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path


@pytest.mark.parametrize("name", ENTRIES)
def test_each_entry_says_on_a_command_line_what_its_file_says(name: str) -> None:
    read = parse_arguments(None, GROUPS, argv=ENTRIES[name].words())
    assert read[BenchmarkArguments] == ENTRIES[name].arguments and read[RoadArguments] == ENTRIES[name].road


def test_every_subject_has_an_entry() -> None:
    assert {entry.arguments.subject for entry in ENTRIES.values()} == set(SUBJECTS)


def test_the_table_of_the_page_is_the_one_of_the_results() -> None:
    """python tests/write_benchmark_table.py writes it there."""
    results = read_json(ROOT / "results" / "benchmark.json")
    assert read_marked(ROOT / "docs" / "performance.md", "benchmark") == markdown(results)
    assert {result["entry"] for result in results} <= ENTRIES.keys()


def test_entries_are_measured_and_kept_and_what_is_missing_or_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(entry_runs.torch.cuda, "is_available", lambda: False)
    examples = ft.write_examples(tmp_path / "train.csv", 40)
    of_files = {"train_files": [str(examples)], "text_column": "text", "tokenizer_name": "nowhere/at all"}
    entries = {
        "forward": {"what": "a forward pass", "subject": "forward", "measure_memory": False, **TINY},
        "gpu": {"what": "a step | on a GPU", "subject": "step", "device": "cuda"},
        "road": {"what": "a road", "subject": "road"},
        "failing": {"what": "no tokenizer", "subject": "finetune", **of_files},
        "left-out": {"what": "nothing", "subject": "start"},
    }
    words = ("--entries", write(tmp_path / "entries.yaml", entries), "--output_dir", tmp_path / "out")
    asked = ("--only", "forward,gpu,road", "fail*")
    with pytest.raises(RecipeError, match=r"^failing failed, as the logs in .*out say: run the same command again"):
        run(monkeypatch, *words, *asked)
    printed = capsys.readouterr().out
    assert "[2/4] gpu is not run: there is no GPU" in printed
    assert "[3/4] road is not run: no --peer_folder was given" in printed
    found = {result["entry"]: result for result in read_json(tmp_path / "out" / "benchmark.json")}
    assert list(found) == ["forward", "gpu", "road", "failing"]
    assert found["forward"]["ratios"].keys() == {"llama"} and found["gpu"]["not_run"] == "there is no GPU"
    assert "tokenizer 'nowhere/at all' cannot be loaded" in found["failing"]["not_run"]
    log = (tmp_path / "out" / "forward.log").read_text()
    assert log.startswith("python recipes/benchmark.py --subject=forward") and "llama / weft = " in log
    assert "error: tokenizer 'nowhere/at all'" in (tmp_path / "out" / "failing.log").read_text()
    table = (tmp_path / "out" / "benchmark.md").read_text()
    assert table.strip() == markdown(list(found.values())) and table.strip() in printed

    if entry_runs.commit() is None:  # of an installed package nothing says what was measured
        return
    before = (tmp_path / "out" / "forward.json").stat().st_mtime_ns
    run(monkeypatch, *words, "--only", "forward")
    assert "forward was measured with this source before: kept" in capsys.readouterr().out
    assert (tmp_path / "out" / "forward.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("changed", ["commit", "versions", "machine", "settings"])
def test_what_was_measured_otherwise_is_measured_again(changed: str, tmp_path: Path) -> None:
    path, here = tmp_path / "a.json", {"commit": "1", "versions": {"torch": "2"}, "machine": "this"}
    entry = Entry("a", "a step", BenchmarkArguments(subject="step"))
    settings = {**dataclasses.asdict(entry.arguments), "output_file": str(path)}
    path.write_text(json.dumps({**here, "settings": settings}))
    assert entry_runs.is_measured(path, entry, here)
    if changed == "settings":
        other = Entry("a", "a step", BenchmarkArguments(subject="step", rounds=6))
        assert not entry_runs.is_measured(path, other, here)
    else:
        assert not entry_runs.is_measured(path, entry, {**here, changed: "other"})
    assert not entry_runs.is_measured(path, entry, {**here, "commit": None})


def test_fields_of_the_command_line_replace_those_of_entries_that_take_them(tmp_path: Path) -> None:
    entries = {
        "a": {"what": "a step", "subject": "step", "rounds": 10, "family": "bert"},
        "b": {"what": "starting", "subject": "start"},
    }
    path = write(tmp_path / "entries.yaml", entries)
    given = parse_arguments(None, GROUPS, argv=["--rounds", "2", "--length", "32", "--family", "gpt2"])
    step, start = (entry.arguments for entry in read_entries(path, given))
    assert (step.rounds, step.length, step.family) == (2, 32, "gpt2")
    assert (start.rounds, start.family) == (2, "llama")


def test_entries_are_chosen_by_name_in_the_order_of_the_file() -> None:
    entries = [Entry(name, "", BenchmarkArguments()) for name in ("a-1", "a-2", "b")]
    for only, names in {(): "a-1 a-2 b", ("b", "a-1"): "a-1 b", ("b,a-2",): "a-2 b", ("a-*",): "a-1 a-2"}.items():
        assert [entry.name for entry in choose(entries, only)] == names.split()
    with pytest.raises(RecipeError, match="there is no entry 'c': choose among a-1, a-2, b"):
        choose(entries, ["a-1", "c"])


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({}, "holds no entries"),
        (["step"], "holds no entries"),
        ({"a": None}, "entry a holds a NoneType, where `field: value` lines are needed"),
        ({"a": {"subject": "step"}}, "entry a does not say what it shows: give `what:`"),
        ({"A b": {"what": "x"}}, "entry A b: name it by small letters"),
        ({"benchmark": {"what": "x"}}, "entry benchmark: name it by"),
        ({"a": {"what": "x", "lenght": 3}}, r"entry a: unknown field 'lenght' \(did you mean length\?\)"),
        ({"a": {"what": "x", "rounds": "many"}}, "entry a: argument --rounds: invalid int value: 'many'"),
        ({"a": {"what": "x", "subject": "step", "width": 100}}, "entry a: width is 100: give a multiple of 64"),
        ({"a": {"what": "x", "output_file": "b.json"}}, "entry a: output_file cannot be given"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_before_anything_is_measured(
    entries: Any, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "entries.yaml", entries)
    with pytest.raises(RecipeError, match=sentence):
        run(monkeypatch, "--entries", path, "--output_dir", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--entries", "missing.yaml"], "missing.yaml is missing"),
        (["--entries", FILE, "--subject", "step"], "subject cannot be given together with entries: each entry has"),
        (["--entries", FILE, "--output_file", "a.json"], "output_file cannot be given together with entries"),
        (["--entries", FILE, "--only", "steps"], "there is no entry 'steps'"),
        (["--entries", FILE, "--rounds", "0"], "entry step-llama: rounds is 0: give at least 1"),
        (["--only", "step"], "only has no effect without entries"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(
    words: list[Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        run(monkeypatch, *words)


def test_the_table_names_machines_and_versions_once_and_shows_the_spread() -> None:
    ratios = ratios_of({"weft": [1.0, 2.0, 4.0], "llama": [2.0, 2.0, 20.0], "weft, mask": [3.0, 6.0, 4.0]})
    one = {"what": "a step", "ratios": ratios, "medians": {}, "machine": "A", "versions": {"torch": "2"}}
    results = [
        {"entry": "a", **one, "commit": "0123456789ab", "peak_megabytes": {"weft": [100.0], "llama": [250.0]}},
        {"entry": "b", **one, "commit": "0123456789ab+77", "machine": "B"},
        {"entry": "c", "what": "a | b", "not_run": "no GPU"},
        {"entry": "d", **one, "commit": None, "ratios": {}, "medians": {"import weft": 0.05}},
    ]
    lines = markdown(results).splitlines()
    assert lines[2].split(" | ") == [
        *("| a", "a step", "weft", "llama", "2.000", "2.000", "2.00 (1.00 to 5.00)", "100, 250: 2.50"),
        *("012345678", "1", "1 |"),
    ]
    assert "| weft | weft, mask | 2.000 | 4.000 | 3.00 (1.00 to 3.00) |" in lines[3]
    assert "| 012345678+ | 2 | 1 |" in lines[4]
    assert r"| c | a \| b | not run: no GPU |" in lines[6] and "| d | a step | import weft | | 0.050 |" in lines[7]
    assert lines[8:] == ["", "Machine 1: A.", "Machine 2: B.", "Versions 1: torch 2."]


def test_each_side_is_compared_with_its_like() -> None:
    times = {name: [1.0] for name in ("weft", "weft, eager", "weft, mask", "llama", "llama, eager", "weft, prompt")}
    times |= {"llama, prompt": [0.5], "weft, imports": [0.5], "llama, imports": [0.5]}
    expected = {
        "weft": None,
        "llama": ("llama", "weft"),
        "llama, eager": ("llama, eager", "weft, eager"),
        "weft, mask": ("weft, mask", "weft"),
        "llama, prompt": ("llama, prompt", "weft, prompt"),
        "weft, prompt": None,
    }
    assert {name: compared(name, times, None) for name in expected} == expected
    assert compared("weft, eager", times, "llama") == ("llama", "weft, eager")
    assert compared("weft, mask", times, "llama") == ("weft, mask", "weft")
    assert not {"weft, imports", "llama, imports"} & ratios_of(times).keys()


def test_what_a_part_takes_is_taken_off_unless_it_is_all_that_there_is() -> None:
    times = {"weft": [3.0, 4.0], "llama": [7.0, 5.0], "weft, prompt": [1.0, 2.0], "llama, prompt": [1.0, 1.0]}
    found = ratios_of_the_rest(times)["llama, without the prompt"]
    assert (found["lowest"], found["median"], found["highest"]) == (2.0, 2.5, 3.0) and found["our_median"] == 2.0
    assert not ratios_of_the_rest({**times, "weft, prompt": [1.0, 4.0]})


def test_the_road_is_a_measurement_among_others(tmp_path: Path) -> None:
    def run(side: str, minutes: float, seed: int, score: float) -> dict[str, Any]:
        return {"side": side, "minutes": minutes, "seed": seed, "bits_per_byte": score}

    runs = [
        run("weft", 5.0, 1, 2.0),
        run("weft", 5.0, 2, 1.0),
        run("nanogpt", 5.0, 1, 3.0),
        run("nanogpt", 5.0, 2, 2.0),
    ]
    result = as_result([*runs, run("nanogpt", 20.0, 1, 1.0)])
    assert result["medians"] == {"weft, 5 minutes": 1.5, "nanogpt, 5 minutes": 2.5, "nanogpt, 20 minutes": 1.0}
    (ratio,) = result["ratios"].values()
    assert (ratio["lowest"], ratio["median"], ratio["highest"]) == (1.5, 1.75, 2.0)
    place = {"entry": "road", "what": "a road", "machine": "A", "versions": {}, "commit": None}
    assert "| weft, 5 minutes | nanogpt, 5 minutes | 1.500 bits/byte | 2.500 bits/byte | 1.75 (1.50 to 2.00) |" in (
        markdown([{**place, **result}])
    )
    entry = Entry("road", "a road", BenchmarkArguments(subject="road"))
    assert entry_runs.placed(entry, tmp_path, "0123456789ab").road.road_dir == str(tmp_path / "road-012345678")
    given = dataclasses.replace(entry, road=RoadArguments(road_dir="here"))
    assert entry_runs.placed(given, tmp_path, None) == given
