"""What benchmark.py does once its fields are read: measure the sides of a subject in turn, and report them."""

import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft.recipes.benchmarks import under_trainer
from weft.recipes.benchmarks.arguments import WHOLE_MODEL, BenchmarkArguments
from weft.recipes.benchmarks.machine import commit, machine, versions
from weft.recipes.benchmarks.ratios import Times, ratios_of, ratios_of_the_rest, told
from weft.recipes.benchmarks.subjects import MEMORY_ROUNDS, peaks_of, sides_of
from weft.recipes.common.files import write_json

# Subjects whose sides compute in this process, so that its processor time is theirs.
IN_PROCESS = ("step", "forward", "score", "head", "generate", "finetune", "pairs", "chat")


def measure(arguments: BenchmarkArguments) -> None:
    """Measure the sides of the subject round by round, print medians and ratios, and write them to output_file."""
    seconds, processor, result = _rounds(arguments)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    stock = arguments.family if arguments.subject == "generate" else None
    ratios = ratios_of(seconds, stock) | ratios_of_the_rest(seconds, stock)
    result |= {
        "subject": arguments.subject,
        "seconds": seconds,
        "medians": medians,
        "ratios": ratios,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "settings": asdict(arguments),
    }
    for name, median in medians.items():
        print(f"{name:20} {median:8.3f} s (median of {arguments.rounds})")
    in_processor_time = ratios_of(processor, stock)
    if processor:
        result |= {"processor_seconds": processor, "processor_ratios": in_processor_time}
    for name, ratio in ratios.items():
        line = f"{ratio['rest']}: " if "rest" in ratio else ""
        line += f"{ratio['theirs']} / {ratio['ours']} = {told(ratio)}"
        print(line + (f"; in processor time {told(in_processor_time[name])}" if name in in_processor_time else ""))
    if arguments.subject in WHOLE_MODEL and arguments.measure_memory:
        result["peak_megabytes"] = _memory(arguments)
    if arguments.output_file is not None:
        write_json(Path(arguments.output_file), result)


def _rounds(arguments: BenchmarkArguments) -> tuple[Times, Times, dict[str, Any]]:
    """The seconds of each side in each round, the same of the processor where it is this process that computes, and
    what a subject found besides. Every other round goes through the sides backwards."""
    with tempfile.TemporaryDirectory() as folder:
        sides = sides_of(arguments, Path(folder))
        seconds: Times = {name: [] for name in sides}
        processor: Times = {name: [] for name in sides}
        for number in range(arguments.rounds):
            for name in list(sides)[:: -1 if number % 2 else 1]:
                before = time.process_time()
                seconds[name].append(sides[name]())
                processor[name].append(time.process_time() - before)
            if number == 0 and arguments.subject == "trainer":
                under_trainer.check_losses(sides)
            times = ", ".join(f"{name} {found[-1]:.3f} s" for name, found in seconds.items())
            print(f"round {number + 1}: {times}", flush=True)
        more = {"under_trainer": under_trainer.summarize(sides)} if arguments.subject == "trainer" else {}
    return seconds, processor if arguments.subject in IN_PROCESS else {}, more


def _memory(arguments: BenchmarkArguments) -> dict[str, list[float]]:
    """Measure and print the peak of memory of each side."""
    found = peaks_of(arguments)
    peaks = {name: statistics.median(megabytes) for name, megabytes in found.items()}
    for name, peak in peaks.items():
        print(f"{name:20} {peak:8.0f} MB at most (median of {MEMORY_ROUNDS})")
    for name, peak in peaks.items():
        if name != "weft":
            print(f"{name} / weft = {peak / peaks['weft']:.2f} in memory")
    return found
