"""What a recipe knows of its fellow processes before any process group exists."""

import ctypes
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import torch

from weft.recipes.common.corpus import DESCRIPTION, Corpus
from weft.recipes.common.errors import RecipeError
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


def check_same_corpus(corpus: Corpus) -> None:
    """Have all processes of a group compare what they read: machines that prepare apart may train other tokenizers.

    Raises:
        RecipeError: in all processes, where the corpora or tokenizers differ.
    """
    if not torch.distributed.is_initialized():
        return
    files = [corpus.folder / "offsets.npy", corpus.folder / "tokenizer" / "tokenizer.json"]
    own = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    found: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, own)
    if len(set(found)) > 1:
        raise RecipeError(
            f"the machines hold different corpora in {corpus.folder}: prepare it once with recipes/prepare_data.py, copy "
            "it to each of them, and give it with --data."
        )
