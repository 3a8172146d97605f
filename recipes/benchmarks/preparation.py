"""Processor time of preparing text, beside the way of transformers' run_clm.py."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from weft.recipes.benchmarks.arguments import BenchmarkArguments
from weft.recipes.benchmarks.growing_text import write_growing_text
from weft.recipes.common.errors import RecipeError

RECIPES = Path(__file__).resolve().parents[1]
IMPORTS = ", imports"  # ends the names of sides that only load libraries

# What prepare_data.py has imported once a tokenizer is loaded.
PREPARE_IMPORTS = """
import sys
import weft.recipes.prepare_data
from weft.recipes.data.tokenization import load_tokenizer
load_tokenizer(sys.argv[1])
"""
# A command, which then prints the most memory that it had; with nothing imported for that, which would count.
AND_PEAK = """
import runpy, sys
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
# What run_clm.py imports and does to text, with its default block size; the model is left out.
MAP_AND_GROUP = """
import itertools, sys
import datasets, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser, Trainer, TrainingArguments
path, name, block = sys.argv[1], sys.argv[2], 1024
tokenizer = AutoTokenizer.from_pretrained(name)
lines = datasets.load_dataset("text", data_files={"train": path})["train"]
tokens = lines.map(lambda batch: tokenizer(batch["text"]), batched=True, remove_columns=["text"])
def group(batch):
    joined = {key: list(itertools.chain(*rows)) for key, rows in batch.items()}
    total = len(joined["input_ids"]) // block * block
    blocks = {key: [row[i : i + block] for i in range(0, total, block)] for key, row in joined.items()}
    blocks["labels"] = blocks["input_ids"].copy()
    return blocks
print(len(tokens.map(group, batched=True)))
"""


def processor_seconds(command: list[str]) -> float:
    """User and system time of a command and everything it starts."""
    return processor_seconds_and_output(command)[0]


def processor_seconds_and_output(command: list[str]) -> tuple[float, str]:
    """The same, and what the command printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RecipeError(f"{' '.join(command[:1])} failed: {done.stderr.strip().splitlines()[-1]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def prepare_data_sides(arguments: BenchmarkArguments, folder: Path) -> dict[str, Callable[[], float]]:
    """The two ways of preparing text, and the share of each that is only loading libraries; with `megabytes`, Weft's
    way with text of these sizes."""
    path, tokenizer = arguments.train_files[0], arguments.tokenizer_name
    if arguments.megabytes:
        return {
            f"weft, {size} MB": partial(_seconds_of_size, Path(path), tokenizer, folder, size)
            for size in arguments.megabytes
        }
    recipe = [str(RECIPES / "prepare_data.py"), "--train_files", path, "--tokenizer_name", tokenizer, "--output_dir"]
    runs = iter(range(1_000_000))
    return {
        "weft": lambda: processor_seconds([*recipe, str(folder / f"corpus-{next(runs)}")]),
        "run_clm": lambda: processor_seconds(["-c", MAP_AND_GROUP, path, tokenizer]),
        f"weft{IMPORTS}": lambda: processor_seconds(["-c", PREPARE_IMPORTS, tokenizer]),
        f"run_clm{IMPORTS}": lambda: processor_seconds(["-c", MAP_AND_GROUP.split("path,")[0]]),
    }


def _seconds_of_size(source: Path, tokenizer: str, folder: Path, size: int) -> float:
    """Processor time of preparing so many megabytes; prints it with the most memory that the process had."""
    path, corpus = folder / f"{size}.txt", folder / f"corpus-{size}"
    write_growing_text(source, path, size)
    command = [str(RECIPES / "prepare_data.py"), "--train_files", str(path), "--tokenizer_name", tokenizer]
    seconds, printed = processor_seconds_and_output(["-c", AND_PEAK, *command, "--output_dir", str(corpus)])
    peak = int(printed.splitlines()[-1]) * 1024 / 1e6
    path.unlink()
    shutil.rmtree(corpus)  # a disk need not hold all sizes at a time
    print(f"{size} MB: {seconds:.2f} s, {seconds / size:.3f} s a MB, {peak:.0f} MB of memory at most", flush=True)
    return seconds
