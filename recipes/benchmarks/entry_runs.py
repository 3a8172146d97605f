"""Measures named entries, each in a process of its own, and writes one table of all."""

import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from weft.recipes.benchmarks.entries import ALL, Entry
from weft.recipes.benchmarks.machine import commit, machine, versions
from weft.recipes.benchmarks.road.arguments import RoadArguments
from weft.recipes.benchmarks.table import markdown
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json, write_json, write_text


def measure_entries(entries: Sequence[Entry], chosen: Sequence[Entry], folder: Path) -> None:
    """Measure the chosen ones of all entries one after another, but for those that were measured before with the same
    source, versions, machine and fields, and write ENTRY.json and ENTRY.log, benchmark.json with all that is there, and
    benchmark.md, a table of it, after each.

    Raises:
        RecipeError: some failed, once all others are measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    here = {"commit": commit(), "versions": versions(), "machine": machine()}
    reasons: dict[str, str] = {}
    failed = []
    for number, entry in enumerate(placed(entry, folder, here["commit"]) for entry in chosen):
        title = f"[{number + 1}/{len(chosen)}] {entry.name}"
        path = folder / f"{entry.name}.json"
        if (reason := lacks(entry)) is not None:
            reasons[entry.name] = reason
            print(f"{title} is not run: {reason}", flush=True)
        elif is_measured(path, entry, here):
            print(f"{title} was measured with this source before: kept", flush=True)
        else:
            print(f"{title}: {entry.what}", flush=True)
            if (reason := _measure(entry, path)) is not None:
                reasons[entry.name] = reason
                failed.append(entry.name)
        _write_all(entries, folder, reasons)
    print(f"\n{(folder / 'benchmark.md').read_text(encoding='utf-8')}\nwritten: {folder}")
    if failed:
        raise RecipeError(f"{', '.join(failed)} failed, as the logs in {folder} say: run the same command again.")


def placed(entry: Entry, folder: Path, source: str | None) -> Entry:
    """The entry with the folder that runs of its own go into, where it has such: one for each commit."""
    if entry.arguments.subject != "road" or entry.road.road_dir != RoadArguments().road_dir:
        return entry
    name = entry.name if source is None else f"{entry.name}-{source[:9]}"
    return dataclasses.replace(entry, road=dataclasses.replace(entry.road, road_dir=str(folder / name)))


def lacks(entry: Entry) -> str | None:
    """What a measurement needs and this machine has not; None: nothing."""
    if entry.arguments.device == "cuda" and not torch.cuda.is_available():
        return "there is no GPU"
    if entry.arguments.subject == "road" and entry.road.peer_folder is None:
        return "no --peer_folder was given, into which the others are cloned"
    if entry.arguments.subject == "chat" and importlib.util.find_spec("trl") is None:
        return "trl is not installed"
    return None


def is_measured(path: Path, entry: Entry, here: dict[str, Any]) -> bool:
    """Whether a file holds this entry as it would be measured now."""
    if here["commit"] is None or not path.is_file():
        return False
    found = read_json(path)
    wanted, settings = {**entry.fields, "output_file": str(path)}, found.get("settings", {})
    is_same = bool(settings) and all(wanted.get(name) == value for name, value in settings.items())
    return is_same and all(found.get(name) == value for name, value in here.items())


def _measure(entry: Entry, path: Path) -> str | None:
    """Measure an entry in a fresh process, which prints into its log too; why it failed, None where it did not."""
    words = [*entry.words(), f"--output_file={path}"]
    log = path.with_suffix(".log")
    with log.open("w", encoding="utf-8") as handle:
        print("python recipes/benchmark.py", *words, file=handle, flush=True)
        command = [sys.executable, "-m", "weft.recipes.benchmark", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, text=True, errors="replace", **pipes)
        last = ""
        try:
            for line in process.stdout:
                print(f"    {line}", end="", flush=True)
                handle.write(line)
                last = line.strip() or last
        except BaseException:
            process.kill()
            raise
    return None if process.wait() == 0 else last.removeprefix("error: ")


def _write_all(entries: Sequence[Entry], folder: Path, reasons: dict[str, str]) -> None:
    """Write what there is of all entries, in their order, as one file and as a table."""
    results = []
    for entry in entries:
        path, head = folder / f"{entry.name}.json", {"entry": entry.name, "what": entry.what}
        if entry.name in reasons:
            results.append({**head, "not_run": reasons[entry.name]})
        elif path.is_file():
            results.append({**head, **read_json(path)})
    write_json(folder / f"{ALL}.json", results)
    write_text(folder / f"{ALL}.md", f"{markdown(results)}\n")
