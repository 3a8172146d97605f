"""What a recipe knows of its fellow processes before any process group exists."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from weft.recipes.common.corpus import DESCRIPTION, Corpus
from weft.recipes.common.preparation import DataArguments, prepare

PR_SET_PDEATHSIG = 1


def world_size() -> int:
    """Number of processes that the launcher started, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the one process that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def end_with_launcher() -> None:
    """Have the system send SIGTERM here when the launcher dies, so that no orphan goes on writing (Linux only).

    `accelerate launch` does not pass on the signal that ends it; the process it started would train on.
    """
    if sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def prepare_before_group(arguments: DataArguments, folder: Path) -> Corpus:
    """Prepare a corpus under a launcher: the first process of each machine does it, the others wait for the folder.

    They look at the disk, so no collective operation can time out; when the first one fails, the launcher ends them.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        return prepare(arguments, folder, quiet=not is_first_process())
    while not (folder / DESCRIPTION).is_file():
        time.sleep(0.2)
    return Corpus.open(folder)
