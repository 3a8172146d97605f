"""Named measurements of a YAML file, each with fields of benchmark.py, and which of them are asked for."""

import dataclasses
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.recipes.benchmarks.arguments import BenchmarkArguments, takes
from weft.recipes.benchmarks.road.arguments import RoadArguments
from weft.recipes.common.command_line import Parsed, load_yaml, parse_arguments, words_of
from weft.recipes.common.errors import RecipeError, refusing

GROUPS = [BenchmarkArguments, RoadArguments]
DEFAULTS = {name: value for group in GROUPS for name, value in dataclasses.asdict(group()).items()}
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
ALL = "benchmark"  # the name of the files that hold all entries
OWN = ("subject", "output_file")  # fields that each entry has of its own


@dataclass(frozen=True)
class Entry:
    """A measurement: its name, what it shows in a few words, and its fields."""

    name: str
    what: str
    arguments: BenchmarkArguments
    road: RoadArguments = dataclasses.field(default_factory=RoadArguments)

    @property
    def fields(self) -> dict[str, Any]:
        """All fields with their values."""
        return dataclasses.asdict(self.arguments) | dataclasses.asdict(self.road)

    def words(self) -> list[str]:
        """The fields that are not as they are by default, as words of a command line."""
        given = {name: value for name, value in self.fields.items() if value != DEFAULTS[name]}
        return words_of(given, self.name, DEFAULTS)


def read_entries(path: Path, parsed: Parsed | None = None) -> list[Entry]:
    """The entries of a file. A field that was given on the command line replaces that of each entry whose subject takes
    it; raises RecipeError."""
    if parsed is not None:
        parsed.refuse_together(OWN, "entries", "each entry has its own")
    content = load_yaml(path)
    if not isinstance(content, dict) or not content:
        raise RecipeError(f"{path} holds no entries: give each as `name:` and its fields below, indented.")
    entries = []
    for name, fields in content.items():
        where = f"{path}, entry {name}"
        if not isinstance(name, str) or not NAME.fullmatch(name) or name == ALL:
            raise RecipeError(f"{where}: name it by small letters, digits, - and ., it becomes the name of files.")
        words = words_of(fields, where, [*DEFAULTS, "what"], ["what"])
        what = fields.get("what")
        if not isinstance(what, str):
            raise RecipeError(f"{where} does not say what it shows: give `what:` and a few words.")
        with refusing(where, RecipeError):
            of_entry = parse_arguments(None, GROUPS, argv=words)
            arguments, road = of_entry[BenchmarkArguments], of_entry[RoadArguments]
            if arguments.output_file is not None:
                raise RecipeError("output_file cannot be given: it is named after the entry.")
            if parsed is not None:
                arguments, road = (_with_given(group, parsed, arguments.subject) for group in (arguments, road))
            arguments.check()
            road.check(arguments.subject)
        entries.append(Entry(name, what, arguments, road))
    return entries


def _with_given(group: Any, parsed: Parsed, subject: str) -> Any:
    """A group of fields with those of the command line that a subject takes in place of its own."""
    names = [field.name for field in dataclasses.fields(group) if field.name in parsed.given]
    if isinstance(group, RoadArguments) and subject != "road":
        names = []
    values = {name: getattr(parsed[type(group)], name) for name in names if takes(subject, name)}
    return dataclasses.replace(group, **values)


def choose(entries: Sequence[Entry], only: Sequence[str]) -> list[Entry]:
    """The entries with these names, in the order of the file; commas separate names too, and * stands for anything.
    None: all. Raises RecipeError for a name that no entry has."""
    patterns = [pattern for word in only for pattern in word.split(",") if pattern]
    names = [entry.name for entry in entries]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise RecipeError(f"there is no entry {pattern!r}: choose among {', '.join(names)}.")
    return [entry for entry in entries if not patterns or any(fnmatch.fnmatch(entry.name, each) for each in patterns)]
