"""Names of files as users give them: paths, folders and patterns."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.processes import is_first_process
from weft.recipes.common.wording import counted, some_of
from weft.recipes.data.text_files import file_format

_ANY_FOLDERS = re.compile(r"(?:^|(?<=/))\*\*/")


def expand_name(field: str, name: str, formats: Sequence[str]) -> list[str]:
    """List the files that a name stands for; a name without any stays, for `check_name` to refuse.

    Args:
        field: the field that the name was given in, for what is printed: how many files of a folder are left out.
        name: a path; a folder, which stands for all files below it with an ending of `formats`; or a pattern with *,
            ** (any folders), ? or [...], which stands for all files that it matches. Files of one name are sorted by
            their paths. Hidden ones, whose names begin with a dot, are passed over.
        formats: endings, compressions left out.
    """
    if not name or (Path(name).exists() and not Path(name).is_dir()):
        return [name]
    if not Path(name).is_dir():
        return _matching(name) or [name]
    taken, others = _files_of_folder(name, formats)
    if taken and others and is_first_process():
        print(
            f"{field}: of {name}, {counted(len(taken), 'file')} to read; {counted(len(others), 'other')} left out for "
            f"the ending ({_endings(others)})",
            flush=True,
        )
    return taken or [name]


def check_name(name: str, formats: Sequence[str]) -> None:
    """Raise RecipeError if a name is empty, or that of a folder without such files, or a pattern that none matches."""
    if not name:
        raise RecipeError("the name of a file is empty: give a path.")
    if Path(name).is_dir():
        others = _files_of_folder(name, formats)[1]
        there = f"there are only {_endings(others)}" if others else "it is empty"
        raise RecipeError(f"folder {name} has no file that ends in {', '.join(formats)}: {there}.")
    if not Path(name).exists() and _is_pattern(name):
        raise RecipeError(f"no file matches {name!r}: check the folder that the pattern starts from.")


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _matching(name: str) -> list[str]:
    if not _is_pattern(name):
        return []
    pattern = os.path.expanduser(name)  # noqa: PTH111  (a Path would drop the slash that ends a pattern)
    return _files(f"{pattern}/*" if Path(pattern).name == "**" else pattern)


def _files(pattern: str) -> list[str]:
    return sorted({str(Path(match)) for match in _matches(pattern) if Path(match).is_file()})


def _matches(pattern: str) -> Iterator[str]:
    top, *rest = _ANY_FOLDERS.split(pattern, maxsplit=1)
    found = glob.iglob(top) if top else [""]  # noqa: PTH207  (that of Path finds hidden files too)
    if not rest:
        yield from found
        return
    for folder in (each for place in found for each in _folders_below(Path(place))):
        yield from _matches(f"{glob.escape(str(folder))}/{rest[0]}")


def _files_of_folder(folder: str, formats: Sequence[str]) -> tuple[list[str], list[str]]:
    """List the files below a folder that end in a format, and the others."""
    found = _files(f"{glob.escape(folder)}/**/*")
    taken = [path for path in found if file_format(Path(path)) in formats]
    return taken, sorted(set(found) - set(taken))


def _folders_below(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """A folder and those below it but for hidden ones; links are followed, but not to a folder that they stand in."""
    try:
        status, paths = folder.stat(), list(folder.iterdir())
    except FileNotFoundError:  # gone since the folder around it was listed
        return
    own = (status.st_dev, status.st_ino)
    if own not in above:
        yield folder
        for path in paths:
            if path.is_dir() and not path.name.startswith("."):
                yield from _folders_below(path, above | {own})


def _endings(paths: Sequence[str]) -> str:
    return some_of(sorted({Path(path).suffix or "none" for path in paths}))
