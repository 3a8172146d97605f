"""Errors that are the user's to mend: one sentence instead of a traceback."""

import atexit
import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

# Seconds. The processes of a machine mostly meet the same error, and the launcher ends all of them with the first that
# ends: the first process says what it is, and the others do where that one goes on.
PATIENCE = 10.0


class RecipeError(Exception):
    """Something a user asked for cannot be done; the message says what was given, what is allowed and what to do."""


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


def optional_package(name: str, needed_by: str) -> Any:
    """Import a package that is not installed with Weft; raises RecipeError."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RecipeError(f"{needed_by} needs the package {name}: pip install {name}.") from error


def run_command(command: Callable[[], None]) -> None:
    """Run a recipe's main function; a RecipeError ends the process with its sentence and status 2, a signal with 128
    and its number, so that `finetune && publish` does not go on."""
    status = 0
    try:
        command()
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


def _leave_group(status: int) -> NoReturn:
    """End a process of a group after all that is registered for its end, but without taking the interpreter down:
    threads of PyTorch's groups outlive these, and one that wants the interpreter then aborts the process (seen with
    gloo, rarely), for which the launcher kills the others."""
    threading._shutdown()  # as the interpreter does: tell pools of threads to end, and wait for all threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
