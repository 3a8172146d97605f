"""Which files are as they were: by size and time of change, else by what they hold."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from weft.recipes.common.files import size_and_time

Stamp = list  # size in bytes, time of change in nanoseconds, SHA-256 of the content


def stamps_of(paths: Iterable[Path], known: dict[str, Stamp], within: Path | None = None) -> dict[str, Stamp]:
    """Stamp files, reading those whose size or time is not the known one.

    Args:
        known: stamps by name.
        within: a folder from which names are told; None: paths are names.
    """
    found = {}
    for path in paths:
        name, now = str(path.relative_to(within) if within else path), size_and_time(path)
        before = known.get(name)
        found[name] = before if before is not None and before[:2] == now else [*now, _digest(path)]
    return found


def same_content(some: dict[str, Stamp], others: dict[str, Stamp]) -> bool:
    """Whether two groups of files have the same names and contents."""
    return {name: stamp[2] for name, stamp in some.items()} == {name: stamp[2] for name, stamp in others.items()}


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
