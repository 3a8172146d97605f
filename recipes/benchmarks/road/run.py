"""Go the road: each side, number of minutes and seed once, and go on where an earlier call ended."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from time import perf_counter as clock
from typing import Any

from weft.recipes.benchmarks.arguments import BenchmarkArguments
from weft.recipes.benchmarks.machine import commit, machine, versions
from weft.recipes.benchmarks.road.arguments import RoadArguments
from weft.recipes.benchmarks.road.report import as_result, as_table, draw, minutes_to_reach
from weft.recipes.benchmarks.road.scoring import SCORE, Score
from weft.recipes.benchmarks.road.side import Pace, RoadRun, Side
from weft.recipes.benchmarks.road.sides import ALL
from weft.recipes.benchmarks.road.text import RoadText, write_documents
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import only_one_process, read_json, size_and_time, write_json, write_text
from weft.recipes.common.processes import available_cores
from weft.recipes.training.model_arguments import PRESETS

TOLERANCE = 0.1  # of the minutes, by which a run may miss them before it is repeated
RESULTS, TABLE, CURVE, HELD_OUT = "results.json", "table.md", "curve.png", "held_out.jsonl"


def measure_road(arguments: BenchmarkArguments, road: RoadArguments) -> list[dict[str, Any]]:
    """Carry out the runs that are not there yet, and write the table and the curve of all that are, and all as one
    measurement to output_file.

    Returns:
        All runs of the folder.

    Raises:
        RecipeError: no side can run, a command fails, or the folder holds runs with other settings.
    """
    folder = Path(road.road_dir)
    if arguments.preset not in PRESETS:
        raise RecipeError(f"preset is {arguments.preset!r}: choose one of {', '.join(PRESETS)}.")
    sides = _available(road)
    folder.mkdir(parents=True, exist_ok=True)
    with only_one_process(folder / ".lock", str(folder)):
        runs = _Road(arguments, road, folder).measure(sides)
    if arguments.output_file is not None:
        place = {"subject": arguments.subject, "machine": machine(), "versions": versions(), "commit": commit()}
        settings = dataclasses.asdict(arguments) | dataclasses.asdict(road)
        write_json(Path(arguments.output_file), place | as_result(runs) | {"settings": settings})
    return runs


def _available(road: RoadArguments) -> list[Side]:
    """The sides that can run; says of each other one what it needs."""
    peers = None if road.peer_folder is None else Path(road.peer_folder).resolve()
    found = []
    for name in dict.fromkeys(road.sides):
        missing = ALL[name].missing(peers)
        if missing is None:
            found.append(ALL[name])
        else:
            print(f"{name} is left out: {missing}", flush=True)
    if not found:
        raise RecipeError(f"none of the sides {', '.join(road.sides)} can run: give them what they need, or add weft.")
    return found


class _Road:
    """A folder of runs of one text, one shape and one number of threads."""

    def __init__(self, arguments: BenchmarkArguments, road: RoadArguments, folder: Path) -> None:
        self.road, self.folder, self.preset = road, folder, arguments.preset
        self.threads = arguments.cpu_threads or available_cores()
        self.peers = None if road.peer_folder is None else Path(road.peer_folder).resolve()
        self.text = RoadText.read(arguments.train_files)
        files = {str(Path(name).resolve()): size_and_time(Path(name)) for name in arguments.train_files}
        settings = {"files": files, "preset": self.preset, "threads": self.threads}
        self.content: dict[str, Any] = {"settings": settings, "paces": {}, "runs": []}
        self.content |= {"machine": machine(), "versions": versions()}
        if (folder / RESULTS).is_file():
            self.content = read_json(folder / RESULTS)
            differing = [name for name, value in settings.items() if self.content["settings"].get(name) != value]
            if differing:
                raise RecipeError(
                    f"{folder} holds runs with other settings ({', '.join(differing)} differ): give another --road_dir."
                )

    def measure(self, sides: list[Side]) -> list[dict[str, Any]]:
        """Carry out what is missing; all runs of the folder."""
        write_documents(self.folder / HELD_OUT, self.text.held_out)
        runs = self.content["runs"]
        done = {(run["side"], run["minutes"], run["seed"]) for run in runs}
        failed: dict[str, RecipeError] = {}
        for minutes, seed, side in itertools.product(self.road.minutes, self.road.seeds, sides):
            if side.NAME in failed or (side.NAME, minutes, seed) in done:
                continue
            try:
                runs.append(self._measure(side, minutes, seed))
            except RecipeError as error:
                failed[side.NAME] = error
                print(f"failed: {error}", flush=True)
                continue
            done.add((side.NAME, minutes, seed))
            self._write()
        if runs:
            draw(runs, self.folder / CURVE)
            print(as_table(runs))
            told = minutes_to_reach(runs)
            if told is not None:
                print(told)
        if failed:
            raise RecipeError(f"not all was measured: {' '.join(map(str, failed.values()))}")
        return runs

    def _measure(self, side: Side, minutes: float, seed: int) -> dict[str, Any]:
        """Go once, and once more where that took another time than it should."""
        pace = self._pace(side)
        for is_last in (False, True):
            run = self._open(f"{side.NAME}-{minutes:g}-{seed}", seed)
            print(f"{side.NAME}, {minutes:g} minutes, seed {seed} ...", end=" ", flush=True)
            began = clock()
            noted = side.go(run, pace, 60 * minutes)
            seconds = clock() - began
            other = pace.after(seconds - noted["preparation"], noted["steps"])
            if is_last or other is None or abs(seconds / 60 - minutes) <= TOLERANCE * minutes:
                break
            print(f"took {seconds / 60:.2f} minutes: once more, at the pace that it went at", flush=True)
            pace = self._note_pace(side, other)
        score = self._score(side, run)
        print(f"{score.bits_per_byte:.4f} bits/byte in {seconds / 60:.2f} minutes", flush=True)
        shutil.rmtree(run.work)
        place = {"side": side.NAME, "minutes": minutes, "seed": seed, "bits_per_byte": score.bits_per_byte}
        return place | {"seconds": seconds, "commit": commit()} | noted | dataclasses.asdict(score)

    def _pace(self, side: Side) -> Pace:
        """How fast a side trains here; measured once in a folder."""
        paces = self.content["paces"]
        if side.NAME not in paces:
            print(f"{side.NAME}: measuring the time of its steps ...", flush=True)
            run = self._open(f"{side.NAME}-pace", self.road.seeds[0])
            self._note_pace(side, side.measure_pace(run))
            shutil.rmtree(run.work)
        return Pace(**paces[side.NAME])

    def _note_pace(self, side: Side, pace: Pace) -> Pace:
        self.content["paces"][side.NAME] = dataclasses.asdict(pace)
        self._write()
        return pace

    def _open(self, name: str, seed: int) -> RoadRun:
        """A run in an empty folder, with the text in the order of its seed."""
        work = (self.folder / "work" / name).resolve()
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        log = (logs / f"{name}.log").resolve()
        log.unlink(missing_ok=True)
        text = work / "train.jsonl"
        write_documents(text, self.text.shuffled(seed))
        return RoadRun(text, work, log, seed, self.threads, self.preset, self.peers)

    def _score(self, side: Side, run: RoadRun) -> Score:
        """Score in a process of its own, where the modules of the side are found."""
        folder, environment = side.surroundings(run.work, run.peers)
        peers = None if run.peers is None else str(run.peers)
        given = json.dumps([side.NAME, str(run.work), str((self.folder / HELD_OUT).resolve()), peers])
        run.command(f"scoring {side.NAME}", ["-m", f"{__package__}.scoring", given], folder, **environment)
        return Score(**read_json(run.work / SCORE))

    def _write(self) -> None:
        """Write all that was measured, and the table of it."""
        write_json(self.folder / RESULTS, self.content)
        if self.content["runs"]:
            write_text(self.folder / TABLE, as_table(self.content["runs"]) + "\n")
