"""What a process computes on: threads, precision, and the memory that a processor's steps use again."""

import ctypes
import os
import sys

import torch

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.processes import available_cores, launcher_uses

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def share_cores(threads: int | None) -> int:
    """Set how many threads this process computes with on a CPU.

    `accelerate launch` lets each process have one, whatever the number of cores, unless OMP_NUM_THREADS says otherwise;
    here the processes of a machine share its cores evenly.

    Args:
        threads: as asked for; None: an even share.
    """
    if threads is None and "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1":
        threads = max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
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


def move_to(model: torch.nn.Module, device: str | None) -> torch.nn.Module:
    """Move a model to a device, by default a GPU if there is one; raises RecipeError if it cannot be used."""
    with refusing(f"device {device!r} cannot be used", RuntimeError, AssertionError):
        return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


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
