"""What a recipe knows of its fellow processes before any process group exists."""

import ctypes
import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from weft.recipes.common.corpus import DESCRIPTION, Corpus
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.preparation import DataArguments, Read, documents_of, prepare

PR_SET_PDEATHSIG = 1
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h

_ended: list[Any] = []  # groups that were left


def world_size() -> int:
    """Number of processes that the launcher started, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the one process that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def launcher_uses(name: str) -> bool:
    """Whether the launcher was configured for it: FSDP, DEEPSPEED or CPU."""
    return os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true"


def of_first_process(value: Any) -> Any:
    """What the first process has there, in all processes."""
    return broadcast_object_list([value])[0]


def is_first_of_machine() -> bool:
    """Whether this is the one process of its machine that prepares what the others wait for."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def end_with_launcher() -> None:
    """Have the system send SIGTERM here when the launcher dies, so that no orphan goes on writing (Linux only).

    `accelerate launch` does not pass on the signal that ends it; the process it started would train on.
    """
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        end_with_parent()


def end_with_parent() -> None:
    """Have the system send SIGTERM here when the process that started this one dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def check_launcher(can_shard: bool = False) -> None:
    """Refuse what the launcher was configured for and the recipe does not do.

    Args:
        can_shard: whether the recipe trains weights that are sharded over processes.

    Raises:
        RecipeError: weights are sharded and the recipe does not train such.
    """
    for name in ("FSDP", "DEEPSPEED"):
        if not can_shard and launcher_uses(name):
            raise RecipeError(
                f"the launcher is configured for {name}, which this recipe does not train with: launch with ddp.yaml "
                "of recipes/configs/accelerate, or --multi_gpu."
            )


def share_cores(threads: int | None) -> int:
    """Set how many threads this process computes with on a CPU.

    `accelerate launch` lets each process have one, whatever the number of cores, unless OMP_NUM_THREADS says otherwise;
    here the processes of a machine share its cores evenly.

    Args:
        threads: as asked for; None: an even share.

    Returns:
        The number of threads.
    """
    if threads is None and "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def choose_bf16(asked: bool | None, on_gpu: bool) -> bool:
    """Whether to compute in bfloat16: as asked for, else as the launcher was told, else wherever the hardware can.

    Raises:
        RecipeError: the launcher asks for another precision.
    """
    from_launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if from_launcher not in ("no", "bf16"):
        raise RecipeError(f"the launcher asks for mixed precision {from_launcher}: choose bf16 or no.")
    able = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return (from_launcher == "bf16" or able) if asked is None else asked


def check_processes(arguments: TrainingArguments, processes: int) -> None:
    """Refuse processes that do not work together, and one that would share its work between GPUs by itself.

    Raises:
        RecipeError: says how to launch.
    """
    if arguments.world_size != processes:
        raise RecipeError(
            f"the launcher started {processes} processes but {arguments.world_size} work together: on a CPU start them "
            "with `accelerate launch --multi_gpu --num_processes N ... --use_cpu`."
        )
    if arguments.n_gpu > 1:
        raise RecipeError(
            f"one process sees {arguments.n_gpu} GPUs: launch one each (`accelerate launch --multi_gpu "
            f"--num_processes {arguments.n_gpu} ...`), or set CUDA_VISIBLE_DEVICES=0."
        )


def computes_on_gpu(use_cpu: bool) -> bool:
    """Whether this process computes on a GPU: there is one, and neither the run nor the launcher keeps it off."""
    return torch.cuda.is_available() and not (use_cpu or launcher_uses("CPU"))


def settle_on_processor() -> None:
    """Prepare this process for computing on a processor.

    DeepSpeed, which accelerate loads wherever it is installed, would guess what it computes on, and say that it did.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Have the C library keep large freed blocks for the next step instead of returning them to the system.

    A step on a CPU allocates the same hundred megabytes again and again (the logits above all), and fresh pages cost
    more than filling them. Linux with glibc only; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def prepare_before_group(arguments: DataArguments, folder: Path, read: Read = documents_of) -> Corpus:
    """Prepare a corpus under a launcher: the first process of each machine does it, the others wait for the folder.

    They look at the disk, so no collective operation can time out; when the first one fails, the launcher ends them.
    """
    if is_first_of_machine():
        return prepare(arguments, folder, not is_first_process(), read)
    while not (folder / DESCRIPTION).is_file():
        time.sleep(0.2)
    return Corpus.open(folder)


def check_same_corpus(corpus: Corpus) -> None:
    """Have all processes compare what they read: machines that prepare apart may train other tokenizers.

    Raises:
        RecipeError: in all processes, where the corpora or tokenizers differ.
    """
    files = [corpus.folder / "offsets.npy", corpus.folder / "tokenizer" / "tokenizer.json"]
    if not _is_same_everywhere(hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()):
        raise RecipeError(
            f"the machines hold different corpora in {corpus.folder}: prepare it once with recipes/prepare_data.py, "
            "copy it to each of them, and give it with --data."
        )


def check_same_checkpoint(checkpoint: str | None) -> None:
    """Have all processes compare where they resume from.

    Raises:
        RecipeError: in all processes, where they differ, as on machines that share no disk.
    """
    if not _is_same_everywhere(checkpoint or ""):
        raise RecipeError(
            "the machines see different checkpoints of this run: give an --output_dir on a disk that all of them share."
        )


def _is_same_everywhere(value: str) -> bool:
    if not torch.distributed.is_initialized():
        return True
    found: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return len(set(found)) == 1


def end_group() -> None:
    """Leave the group of processes, where there is one: what follows may take longer than its time limit.

    The object is kept. Where DDP's reducer is the last to hold it, its destructor waits for the threads of gloo
    without giving up the interpreter, which these may want in order to give back tensors: the process would hang, as
    two of 43 very short runs did on a busy machine (https://github.com/pytorch/pytorch/issues/56297).
    """
    if torch.distributed.is_initialized():
        _ended.append(torch.distributed.group.WORLD)
        torch.distributed.destroy_process_group()
