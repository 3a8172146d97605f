"""Errors that are the user's to mend: one sentence instead of a traceback."""

import atexit
import contextlib
import errno
import importlib
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

# What the system says of a file that cannot be written, or not be opened at all.
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_CLOSED = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "something of that name is there already",
    errno.EISDIR: "a folder stands where a file is needed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk reports an error",
}
# What libraries say that hide the system's error: those written in Rust, NumPy, and PyTorch.
_IN_RUST = re.compile(r"\(os error (\d+)\)")
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written|PytorchStreamWriter failed|unexpected pos \d+|iostream error")

# Seconds. The processes of a machine mostly meet the same error, and the launcher ends all of them with the first that
# ends: the first process says what it is, and the others do where that one goes on.
PATIENCE = 10.0
OF_BROKEN_PIPE = 141  # the status that a shell gives to a program whose reader has ended
_LINE_ENDS = {ord("\n"): "\\n", ord("\r"): "\\r"}


class RecipeError(Exception):
    """Something a user asked for cannot be done; the message says what was given, what is allowed and what to do.

    It is one line that can be written anywhere: line ends and halves of surrogate pairs, which names in files may hold,
    are escaped.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(str(sentence).translate(_LINE_ENDS).encode(errors="backslashreplace").decode())


class Stopped(Exception):  # no error: what was asked for
    """A run was stopped by a signal, and can go on: its process ends with the status that a shell gives to that."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.status = 128 + number


def first_line(error: BaseException) -> str:
    """What an error says in one line: its first, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(error: BaseException) -> str:
    """All that an error says, in one line."""
    return " ".join(str(error).split())


@contextlib.contextmanager
def refusing(
    what: str | None, *errors: type[Exception], advice: str = "", say: Callable[[BaseException], str] = first_line
) -> Iterator[None]:
    """Turn a library's errors into a RecipeError: what cannot be done (None: the error says it), why, and advice."""
    try:
        yield
    except errors as error:
        why = say(error)
        sentence = f"{what}: {why}" if what else why
        raise RecipeError(f"{what} ({why}): {advice}" if advice else sentence) from error


def unwritable(error: BaseException, place: Any = None) -> str | None:
    """The sentence for an error which says that a file cannot be written or opened; None: it says something else.

    Args:
        place: named instead of the file that the error names.
    """
    number = error.errno if isinstance(error, OSError) else None
    name = place or getattr(error, "filename2", None) or getattr(error, "filename", None) or "a file"
    if number is None:
        in_rust = _IN_RUST.search(str(error))
        number = int(in_rust[1]) if in_rust else errno.ENOSPC if _CUT_SHORT.search(str(error)) else None
    if number in _FULL:
        return f"{name} cannot be written, because {_FULL[number]}: free some space and run the same command again."
    if number in _CLOSED:
        return f"{name} cannot be opened or written, because {_CLOSED[number]}: name another place, or change that."
    return None


@contextlib.contextmanager
def refusing_unwritable(kept: Callable[[], str] = str, place: Any = None) -> Iterator[None]:
    """Turn errors which say that a file cannot be written or opened into a RecipeError, whichever library raises them.

    Args:
        kept: says what there is to go on from, behind that sentence.
        place: named instead of the file that the error names.
    """
    try:
        yield
    except Exception as error:
        sentence = None if isinstance(error, RecipeError) else unwritable(error, place)
        if sentence is None:
            raise
        raise RecipeError(sentence + kept()) from error


def optional_package(name: str, needed_by: str, *others: str) -> Any:
    """Import a package that is not installed with Weft, and `others` that are needed with it; raises RecipeError."""
    try:
        first, *_ = [importlib.import_module(each) for each in (name, *others)]
        return first
    except ImportError as error:
        what = f"the packages {' and '.join((name, *others))}" if others else f"the package {name}"
        raise RecipeError(f"{needed_by} needs {what}: pip install {' '.join((name, *others))}.") from error


def run_command(command: Callable[[], None]) -> None:
    """Run a recipe's main function; a RecipeError ends the process with its sentence and status 2, a signal with 128
    and its number, so that `finetune && publish` does not go on."""
    status = 0
    try:
        with refusing_unwritable():
            command()
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        status = OF_BROKEN_PIPE
    except RecipeError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(PATIENCE)
        print(f"error: {error}", file=sys.stderr, flush=True)
        status = 2
    except Stopped as stop:
        status = stop.status
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr, flush=True)
        status = 130
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _leave_group(status)
    if status:
        sys.exit(status)


def _nobody_reads() -> bool:
    """Whether the program that reads the standard output has ended, as `head` does; what is left to say is dropped."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # Windows cannot ask, and no file may be behind it
        asked = select.poll()
        asked.register(sys.stdout.fileno(), 0)  # of errors it tells always
        if asked.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return True
    return False


def _leave_group(status: int) -> NoReturn:
    """End a process of a group after all that is registered for its end, but without taking the interpreter down:
    threads of PyTorch's groups outlive these, and one that wants the interpreter then aborts the process (seen with
    gloo, rarely), for which the launcher kills the others."""
    threading._shutdown()  # as the interpreter does: tell pools of threads to end, and wait for all threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
