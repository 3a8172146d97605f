"""Errors that are the user's to mend: one sentence instead of a traceback."""

import os
import sys
from collections.abc import Callable


class RecipeError(Exception):
    """Something a user asked for cannot be done; the message says what was given, what is allowed and what to do."""


def first_line(error: BaseException) -> str:
    """What an error says in one line: its first, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def run_command(command: Callable[[], None]) -> None:
    """Run a recipe's main function; a RecipeError ends the process with its sentence and status 2."""
    try:
        command()
    except RecipeError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # a machine's processes meet the same error; one says it
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr, flush=True)
        sys.exit(130)
