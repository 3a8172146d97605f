"""A recipe in a process of its own, forked off the test's so that nothing is imported again. Where there is a GPU, such
a process cannot train."""

import importlib
import os
import runpy
import signal
import sys
import traceback
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from subprocess import TimeoutExpired
from threading import RLock, Thread

from tqdm import tqdm

from weft.recipes.pretraining.objectives import objectives


class Forked:
    """A recipe as its command would carry it out, in a session of its own; what the tests use of
    `subprocess.Popen(..., stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True)`."""

    def __init__(self, recipe: Path, words: list[str]) -> None:
        import_what_runs_import()
        reads, writes = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os.close(reads)
            _carry_out(recipe, words, writes)
        os.close(writes)
        self.stdout = os.fdopen(reads, encoding="utf-8", errors="replace")

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while the process runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        """Wait until it and all that it started have closed their output, and return that."""
        parts: list[str] = []
        reader = Thread(target=lambda: parts.append(self.stdout.read()), daemon=True)
        reader.start()
        reader.join(timeout)
        if reader.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            raise TimeoutExpired(str(self.pid), timeout)
        self.stdout.close()
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return parts[0], None


@cache
def import_what_runs_import() -> None:
    """Import what a run imports as late as when it draws, saves or unwraps its model: once, and not in each process."""
    objectives()
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg", "weft.recipes.pretraining.run", "deepspeed"):
        if find_spec(name.partition(".")[0]) is not None:  # DeepSpeed is for Linux only
            importlib.import_module(name)


def own_locks() -> None:
    """Give a forked process a lock of its own for progress bars. The one that it has from its parent is a lock of all
    their processes: where one of them is killed while it holds it, the others would wait for ever."""
    tqdm.set_lock(RLock())


def _carry_out(recipe: Path, words: list[str], output: int) -> None:
    """What the forked process does; it never returns."""
    code = 1
    try:
        own_locks()
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        sys.stdout = sys.stderr = os.fdopen(1, "w", encoding="utf-8", buffering=1)
        sys.argv = [str(recipe), *words]
        runpy.run_path(str(recipe), run_name="__main__")
        code = 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
        finally:
            os._exit(code)
