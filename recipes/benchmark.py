"""Measure Weft beside what people use today, in one go: interleaved rounds, medians, ratios, and the machine.

    python recipes/benchmark.py --subject prepare_data --train_files text.txt --tokenizer_name runs/tokenizer

Subject prepare_data: processor time (all cores) of prepare_data.py against the way of transformers' run_clm.py, which
maps the tokenizer over the lines of the file with `datasets` and then groups them into blocks. Both run in fresh
processes with empty caches; loading the libraries is counted, and measured alone as well.
"""

import importlib.metadata
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from weft.recipes.common.arguments import parse_arguments
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.common.files import write_json

RECIPES = Path(__file__).resolve().parent
PACKAGES = ("weft-lm", "torch", "transformers", "tokenizers", "datasets")

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


@dataclass
class BenchmarkArguments:
    """What to measure."""

    subject: str = field(default="prepare_data", metadata={"help": "prepare_data"})
    train_files: list[str] = field(default_factory=list, metadata={"help": "a .txt file"})
    tokenizer_name: str | None = field(default=None, metadata={"help": "folder or Hub id of the tokenizer"})
    rounds: int = field(default=5, metadata={"help": "times that each side is measured"})
    output_file: str | None = field(default=None, metadata={"help": "write all measurements as JSON here"})


def processor_seconds(command: list[str]) -> float:
    """User and system time of a command and everything it starts."""
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
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare_data_sides(arguments: BenchmarkArguments, folder: Path) -> dict[str, Callable[[], float]]:
    """The two ways of preparing text, and the share of each that is only loading libraries."""
    if len(arguments.train_files) != 1 or arguments.tokenizer_name is None:
        raise RecipeError("subject prepare_data needs one --train_files and a --tokenizer_name.")
    path, tokenizer = arguments.train_files[0], arguments.tokenizer_name
    recipe = [str(RECIPES / "prepare_data.py"), "--train_files", path, "--tokenizer_name", tokenizer, "--output_dir"]
    runs = iter(range(1_000_000))
    return {
        "weft": lambda: processor_seconds([*recipe, str(folder / f"corpus-{next(runs)}")]),
        "run_clm": lambda: processor_seconds(["-c", MAP_AND_GROUP, path, tokenizer]),
        "weft, imports": lambda: processor_seconds([str(RECIPES / "prepare_data.py"), "--help"]),
        "run_clm, imports": lambda: processor_seconds(["-c", MAP_AND_GROUP.split("path,")[0]]),
    }


SIDES = ("weft", "run_clm")
SUBJECTS = {"prepare_data": prepare_data_sides}


def main() -> None:
    arguments = parse_arguments(__doc__, [BenchmarkArguments]).groups[0]
    if arguments.subject not in SUBJECTS:
        raise RecipeError(f"subject {arguments.subject!r} is unknown: choose one of {', '.join(SUBJECTS)}.")
    with tempfile.TemporaryDirectory() as folder:
        sides = SUBJECTS[arguments.subject](arguments, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(arguments.rounds):
            for name, measure in sides.items():
                seconds[name].append(measure())
            print(f"round {number + 1}: " + ", ".join(f"{name} {found[-1]:.2f} s" for name, found in seconds.items()))
    ratios = sorted(theirs / ours for ours, theirs in zip(seconds["weft"], seconds["run_clm"]))
    work = {name: statistics.median(seconds[name]) - statistics.median(seconds[f"{name}, imports"]) for name in SIDES}
    result = {
        "subject": arguments.subject,
        "processor_seconds": seconds,
        "medians": {name: statistics.median(found) for name, found in seconds.items()},
        "ratio_without_imports": work["run_clm"] / work["weft"],
        "ratio": {"median": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    for name, median in result["medians"].items():
        print(f"{name:20} {median:8.2f} s of processor time (median of {arguments.rounds})")
    print(f"run_clm / weft = {result['ratio']['median']:.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"without loading libraries: {result['ratio_without_imports']:.2f}")
    if arguments.output_file is not None:
        write_json(Path(arguments.output_file), result)


if __name__ == "__main__":
    run_command(main)
