"""What benchmark.py does once its fields are read: measure the sides of a subject in turn, and report them."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from weft.recipes.benchmarks import batching, decoding, training_step, under_trainer
from weft.recipes.benchmarks.arguments import BenchmarkArguments
from weft.recipes.benchmarks.preparation import IMPORTS, prepare_data_sides
from weft.recipes.benchmarks.stock_models import Shape
from weft.recipes.common.files import write_json
from weft.recipes.common.hardware import keep_freed_memory, share_cores

MEMORY_ROUNDS = 3
PACKAGES = ("weft-lm", "torch", "transformers", "tokenizers", "datasets")


def finetune_sides(arguments: BenchmarkArguments, folder: Path) -> dict[str, Callable[[], float]]:
    """The ways of making batches of short examples, or of pairs."""
    share_cores(arguments.cpu_threads)
    keep_freed_memory()
    first, *rest = map(Path, arguments.train_files)
    settings = (arguments.tokenizer_name, arguments.preset, arguments.batch_size or 32)
    if rest:
        return batching.pair_sides(first, *rest, *settings, arguments.steps or 8)
    return batching.batching_sides(first, arguments.text_column, *settings, arguments.steps or 50)


def stock_sides(arguments: BenchmarkArguments, folder: Path) -> dict[str, Callable[[], float]]:
    """Weft and a stock class at the same work."""
    share_cores(arguments.cpu_threads)
    make = {"step": training_step.step_sides, "head": training_step.head_sides, "generate": decoding.generate_sides}[
        arguments.subject
    ]
    return make(_shape(arguments), _device(), arguments.steps or 1)


def trainer_sides(arguments: BenchmarkArguments, folder: Path) -> dict[str, Callable[[], float]]:
    """Weft and a stock class under transformers' Trainer."""
    settings = (arguments.documents, arguments.steps or 8, arguments.torch_compile, arguments.measure_memory)
    return under_trainer.trainer_sides(_shape(arguments), arguments.attention, *settings, arguments.cpu_threads)


def _shape(arguments: BenchmarkArguments) -> Shape:
    sizes = (arguments.num_layers, arguments.width, arguments.vocab_size, arguments.length)
    return Shape(arguments.family, *sizes, arguments.batch_size or 8)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def memory(arguments: BenchmarkArguments) -> dict[str, list[float]]:
    """Peak megabytes of training on each side, MEMORY_ROUNDS times."""
    shape, device, threads = _shape(arguments), _device(), share_cores(arguments.cpu_threads)
    found: dict[str, list[float]] = {"weft": [], arguments.family: []}
    for _ in range(MEMORY_ROUNDS):
        for name, peaks in found.items():
            peaks.append(training_step.peak_megabytes(shape, name, device, threads))
    return found


SIDES = {"prepare_data": prepare_data_sides, "finetune": finetune_sides, "pairs": finetune_sides}
SIDES |= {"trainer": trainer_sides, **dict.fromkeys(("step", "head", "generate"), stock_sides)}


def measure(arguments: BenchmarkArguments) -> None:
    """Measure the sides of the subject round by round, print medians and ratios, and write them to output_file."""
    with tempfile.TemporaryDirectory() as folder:
        sides = SIDES[arguments.subject](arguments, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(arguments.rounds):
            for name, side in sides.items():
                seconds[name].append(side())
            if number == 0 and arguments.subject == "trainer":
                under_trainer.check_losses(sides)
            print(f"round {number + 1}: " + ", ".join(f"{name} {found[-1]:.3f} s" for name, found in seconds.items()))
    medians = {name: statistics.median(found) for name, found in seconds.items()}

    def ours(name: str) -> str:
        """What a side is compared with: Weft's of the same kind, where there is one."""
        same = name.replace(arguments.family, "weft", 1)
        return same if same in medians and same != name else "weft"

    result = {
        "subject": arguments.subject,
        "seconds": seconds,
        "medians": medians,
        "ratios": {name: _ratio(found, seconds[ours(name)]) for name, found in seconds.items() if name != "weft"},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "commit": _commit(),
        "settings": asdict(arguments),
    }
    for name, median in medians.items():
        print(f"{name:20} {median:8.3f} s (median of {arguments.rounds})")
    for name, ratio in result["ratios"].items():
        if not name.endswith(IMPORTS):
            print(
                f"{name} / {ours(name)} = {ratio['median']:.2f} (from {ratio['lowest']:.2f} to {ratio['highest']:.2f})"
            )
    if f"weft{IMPORTS}" in medians:
        work = {name: medians[name] - medians[f"{name}{IMPORTS}"] for name in medians if not name.endswith(IMPORTS)}
        result["ratio_without_imports"] = work["run_clm"] / work["weft"]
        print(f"without loading libraries: {result['ratio_without_imports']:.2f}")
    if arguments.subject == "step" and arguments.measure_memory:
        result["peak_megabytes"] = memory(arguments)
        peaks = {name: statistics.median(found) for name, found in result["peak_megabytes"].items()}
        for name, peak in peaks.items():
            print(f"{name:20} {peak:8.0f} MB at most (median of {MEMORY_ROUNDS})")
        print(f"{arguments.family} / weft = {peaks[arguments.family] / peaks['weft']:.2f} in memory")
    if arguments.subject == "trainer":
        result["under_trainer"] = under_trainer.summarize(sides)
    if arguments.output_file is not None:
        write_json(Path(arguments.output_file), result)


def _commit() -> str | None:
    """The commit of the source that runs, None where it is not in a repository."""
    here = str(Path(__file__).parent)
    found = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or None


def _ratio(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """Of each round, theirs over ours."""
    ratios = sorted(their / our for their, our in zip(theirs, ours))
    return {"median": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
