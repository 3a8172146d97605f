"""The benchmark of fresh processes and of files that it makes: allocator, busy machine, starting, text of Python."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.benchmark import run
from helpers.text import sentences

from weft.recipes.benchmarks import builtin_files, fresh_training, starting
from weft.recipes.benchmarks.arguments import BenchmarkArguments
from weft.recipes.benchmarks.stock_models import Shape
from weft.recipes.common.errors import RecipeError

SMALL = Shape("llama", 1, 64, 200, 16, 2)


def test_memory_that_is_kept_is_measured_beside_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "result.json"
    run(monkeypatch, subject="allocator", rounds=1, steps=1, output_file=result)
    found = json.loads(result.read_text())
    assert found["seconds"].keys() == {"weft", "default"} and found["ratios"]["default"]["ours"] == "weft"
    assert "processor_seconds" not in found  # that of this process, which only waits


def test_steps_are_measured_beside_busy_programs_that_end_with_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_training, "SPINNING", {"weft": {"GOMP_SPINCOUNT": "10000"}})
    began = []

    class Watched(subprocess.Popen):
        def __init__(self, words: list[str], **settings) -> None:
            super().__init__(words, **settings)
            began.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sides = fresh_training.busy_sides(SMALL, 1, 1, programs=2)
    (worker,) = began
    environment = Path(f"/proc/{worker.pid}/environ")
    if environment.is_file():
        assert b"GOMP_SPINCOUNT=10000\0" in environment.read_bytes() and b"ACTIVE" not in environment.read_bytes()
    assert sides["weft"]() > 0 and len(began) == 3
    assert [program.poll() is None for program in began] == [True, False, False]
    sides.clear()
    assert worker.poll() is not None


def test_busy_programs_end_without_the_process_that_began_them() -> None:
    program = """
import os
from weft.recipes.benchmarks.busy_programs import busy_programs
with busy_programs(1) as begun:
    print(begun[0].pid, flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=60)
    assert not is_running(int(done.stdout))


def is_running(number: int) -> bool:
    for _ in range(100):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def test_a_process_that_fails_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("import sys; sys.exit(7)")
    monkeypatch.setattr(fresh_training, "WORKER", tmp_path / "worker.py")
    with pytest.raises(RecipeError, match="the process that trains ended with status 7"):
        fresh_training.Worker(SMALL, 1, False, dict(os.environ)).seconds(1)


def test_starting_is_measured_without_a_side_to_compare_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "PACKAGES", ("weft",))
    monkeypatch.setattr(starting, "COMMANDS", ("convert",))
    run(monkeypatch, subject="start", rounds=1, output_file=tmp_path / "result.json")
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["medians"].keys() == {"import weft", "convert --help"} and not found["ratios"]


@pytest.mark.parametrize("subject", ["prepare_data", "finetune", "pairs"])
def test_without_files_the_text_of_python_is_read(
    subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["\n".join(pair) for pair in itertools.pairwise(sentences(30))]
    monkeypatch.setattr(builtin_files, "embedded_documents", lambda: tuple(texts))
    monkeypatch.setattr(builtin_files, "embedded_docstrings", lambda: tuple(("module", text) for text in texts))
    monkeypatch.setattr(builtin_files, "VOCABULARY", 300)
    if subject == "prepare_data":
        made = builtin_files.completed(BenchmarkArguments(subject=subject), tmp_path)
        assert Path(made.train_files[0]).read_text() == "\n\n".join(texts)
        assert (Path(made.tokenizer_name) / "tokenizer.json").is_file()
        given = builtin_files.completed(BenchmarkArguments(subject, ["a.txt"], tokenizer_name="gpt2"), tmp_path)
        assert given.train_files == ["a.txt"] and given.tokenizer_name == "gpt2"
        return
    result = tmp_path / "result.json"
    run(monkeypatch, subject=subject, rounds=1, steps=1, batch_size=4, output_file=result)
    assert json.loads(result.read_text())["ratios"].keys() >= {"dynamic padding", "length-grouped"}
