"""What a recipe knows of its fellow processes before any process group exists, and how it leaves that.

torch and accelerate take seconds to import, and the first questions are asked before anything is refused: they are
imported where a group is asked for.
"""

import ctypes
import os
import signal
import sys
from typing import Any

import transformers

from weft.recipes.common.errors import RecipeError

PR_SET_PDEATHSIG = 1

_ended: list[Any] = []  # groups that were left


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    from accelerate.utils import broadcast_object_list

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


def check_processes(arguments: "transformers.TrainingArguments", processes: int) -> None:
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


def check_same_checkpoint(checkpoint: str | None) -> None:
    """Have all processes compare where they resume from.

    Raises:
        RecipeError: in all processes, where they differ, as on machines that share no disk.
    """
    if not is_same_everywhere(checkpoint or ""):
        raise RecipeError(
            "the machines see different checkpoints of this run: give an --output_dir on a disk that all of them share."
        )


def is_same_everywhere(value: str) -> bool:
    """Whether all processes of the group give the same value; all of them have to call this."""
    import torch

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
    import torch

    if torch.distributed.is_initialized():
        _ended.append(torch.distributed.group.WORLD)
        torch.distributed.destroy_process_group()
