"""Programs that keep a machine busy while something is measured."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

# Computes until it is killed, or the process that began it is gone.
BUSY = "import os, sys\nprint(flush=True)\nwhile os.getppid() == int(sys.argv[1]): sum(range(9999))"


@contextlib.contextmanager
def busy_programs(number: int) -> Iterator[list[subprocess.Popen]]:
    """So many processes that compute all the time, while the context lasts."""
    words = [sys.executable, "-c", BUSY, str(os.getpid())]
    programs = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(number)]
    try:
        for program in programs:
            program.stdout.readline()  # it has begun
        yield programs
    finally:
        for program in programs:
            program.kill()
        for program in programs:
            program.communicate()
