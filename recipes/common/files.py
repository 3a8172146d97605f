"""Files and folders that are whole or absent: written under a temporary name, flushed, then renamed."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from weft.recipes.common.errors import RecipeError, refusing_unwritable

GIT_LFS = b"version https://git-lfs"
GIT_LFS_ADVICE = "a pointer of Git LFS, not the file itself: run `git lfs pull` in its repository"


def write_text(path: Path, text: str) -> None:
    """Write a text file in one move: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.partial")
    with _named_when_whole(temporary, path):
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json_text(value, indent=2) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON with characters as they are, but for halves of surrogate pairs, which names of files may hold and UTF-8 does
    not have."""
    return json.dumps(value, indent=indent, ensure_ascii=False).encode(errors="backslashreplace").decode()


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def is_git_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git leaves in place of a large one that it did not fetch."""
    with path.open("rb") as handle:
        return handle.read(len(GIT_LFS)) == GIT_LFS


def refuse_unwritable(path: Path) -> None:
    """Refuse, before any work is done, a file or folder to come that cannot be written; nothing is left there.

    Raises:
        RecipeError: says why.
    """
    with refusing_unwritable(place=path), tempfile.TemporaryFile(dir=existing_part(path)):
        pass


def existing_part(path: Path) -> Path:
    """The folder that a path begins with and that is there, as far as it goes."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def size_and_time(path: Path) -> list[int]:
    """What changes when a file is written again."""
    return [path.stat().st_size, path.stat().st_mtime_ns]


def flush_to_disk(path: Path) -> None:
    """Have the disk hold a file, or a folder and everything below it, before anything else is written."""
    for entry in (path, *(path.rglob("*") if path.is_dir() else ())):
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def move_folder(source: Path, target: Path) -> None:
    """Give a finished folder its name: flushed first, so that a crash leaves it whole or absent."""
    flush_to_disk(source)
    source.rename(target)
    flush_to_disk_of_parent(target)


def flush_to_disk_of_parent(path: Path) -> None:
    """Have the disk hold the name of a file or folder."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a crash half-way does not leave a torn one under its name."""
    doomed = path.with_name(f".{path.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def new_text_file(target: Path) -> Iterator[TextIO]:
    """A text file to write line by line, which gets its name `target` when the block ends well.

    Until then its name is `target` with `.partial` behind. A block that is interrupted leaves that; a disk that is full
    or fails does not.
    """
    partial = target.with_name(f"{target.name}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with _named_when_whole(partial, target), partial.open("w", encoding="utf-8") as handle:
        yield handle


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A file to write under another name, which gets its name `target` when the block ends well and vanishes when it
    does not."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _named_when_whole(partial, target):
            yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _named_when_whole(partial: Path, target: Path) -> Iterator[None]:
    """Give a file that the block writes its name, once the disk holds it; where that fails, remove it."""
    try:
        yield
        flush_to_disk(partial)
        partial.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name `target` when the block ends well and vanishes when it does not."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        move_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def only_one_process(lock: Path, what: str, patience: float = 60.0) -> Iterator[None]:
    """Hold a lock file while the context lasts; the system frees it when the process ends, however it ends.

    Where what is done meanwhile is refused (RecipeError), no lock or folder stays that was not there before.

    Args:
        lock: the file, in which the process writes its id.
        what: the thing that is being written, for messages.
        patience: seconds to wait for another process to finish.

    Raises:
        RecipeError: another process holds it for longer than that.
    """
    refuse_unwritable(lock.parent)
    new = [path for path in (lock, *lock.absolute().parents) if not path.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    file_lock = FileLock(lock, on_acquired=_write_process_id, poll_interval=0.2)
    try:
        held = file_lock.acquire(blocking=False)
    except Timeout:
        print(f"waiting for process {_process_id(lock)}, which is writing {what}", flush=True)
        try:
            held = file_lock.acquire(timeout=patience)
        except Timeout as error:
            raise RecipeError(
                f"process {_process_id(lock)} is writing {what}: wait until it ends, or stop it."
            ) from error
    with held:
        try:
            yield
        except RecipeError:
            _remove_if_empty(new)
            raise


def _remove_if_empty(paths: Sequence[Path]) -> None:
    """Remove a lock file (processes that wait for it notice), then the folders around it that hold nothing else."""
    with contextlib.suppress(OSError):
        for path in paths:
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def _write_process_id(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())


def _process_id(lock: Path) -> str:
    return lock.read_text(encoding="utf-8").strip() or "unknown"
