"""What benchmark.py does once its fields are read: measure the sides of a subject in turn, and report them."""

import statistics
import tempfile
import time
from collections.abc import Container
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft.recipes.benchmarks import under_trainer
from weft.recipes.benchmarks.arguments import WHOLE_MODEL, BenchmarkArguments
from weft.recipes.benchmarks.decoding import PROMPT
from weft.recipes.benchmarks.machine import commit, machine, versions
from weft.recipes.benchmarks.preparation import IMPORTS
from weft.recipes.benchmarks.subjects import MEMORY_ROUNDS, peaks_of, sides_of
from weft.recipes.common.files import write_json

# Subjects whose sides compute in this process, so that its processor time is theirs.
IN_PROCESS = ("step", "forward", "score", "head", "generate", "finetune", "pairs")
# What ends the names of sides that do a part of what another does, and how the rest is called.
PARTS = {IMPORTS: "without loading libraries", PROMPT: "without the prompt"}

Times = dict[str, list[float]]


def measure(arguments: BenchmarkArguments) -> None:
    """Measure the sides of the subject round by round, print medians and ratios, and write them to output_file."""
    seconds, processor, result = _rounds(arguments)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    result |= {
        "subject": arguments.subject,
        "seconds": seconds,
        "medians": medians,
        "ratios": _ratios(seconds),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "settings": asdict(arguments),
    }
    for name, median in medians.items():
        print(f"{name:20} {median:8.3f} s (median of {arguments.rounds})")
    if processor:
        result |= {"processor_seconds": processor, "processor_ratios": _ratios(processor)}
    for name, ratio in result["ratios"].items():
        line = f"{name} / {reference_of(name, seconds)} = {told(ratio)}"
        in_processor_time = result.get("processor_ratios", {}).get(name)
        print(line + (f"; in processor time {told(in_processor_time)}" if in_processor_time else ""))
    for part, words in PARTS.items():
        rest = _without(seconds, part)
        for name, ratio in _ratios(rest).items():
            print(f"{words}: {name} / {reference_of(name, rest)} = {told(ratio)}")
            result.setdefault("ratios_of_the_rest", {})[f"{name}, {words}"] = ratio
            result.setdefault("seconds_of_the_rest", {})[words] = rest
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


def reference_of(name: str, sides: Container[str]) -> str | None:
    """What a side is compared with: Weft's of the same kind where there is one, else Weft; None: with nothing."""
    part = next((part for part in PARTS if name.endswith(part)), "")
    whole = name.removesuffix(part)
    same = ", ".join(["weft", *whole.split(", ")[1:]])
    found = f"{same if f'{same}{part}' in sides and same != whole else 'weft'}{part}"
    return found if found in sides and found != name else None


def told(ratio: dict[str, float]) -> str:
    """A ratio with its spread."""
    return f"{ratio['median']:.2f} (from {ratio['lowest']:.2f} to {ratio['highest']:.2f})"


def _ratios(times: Times) -> dict[str, dict[str, float]]:
    """Of each side that does more than to load libraries, each round's time over that of what it is compared with."""
    found = {}
    for name, theirs in times.items():
        reference = reference_of(name, times)
        if reference is not None and not name.endswith(IMPORTS):
            ratios = sorted(their / our for their, our in zip(theirs, times[reference]))
            found[name] = {"median": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
    return found


def _without(seconds: Times, part: str) -> Times:
    """The times of sides less those of their part; none where one is within the noise of the other."""
    rest = {
        name: [whole - less for whole, less in zip(found, seconds[name + part])]
        for name, found in seconds.items()
        if name + part in seconds
    }
    return rest if all(min(found) > 0 for found in rest.values()) else {}


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
