"""Stands in for the helpers with which transformers starts the processes of its distributed tests."""

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


def _get_distributed_device_type() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _get_distributed_backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")


def _set_rank_device(rank: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)


def _start_rank_processes(function: Callable[..., None], args: tuple[Any, ...], nprocs: int) -> None:
    """Run `function(rank, *args)` in `nprocs` new processes; what one of them raises is raised here."""
    torch.multiprocessing.spawn(_on_one_thread, args=(function, args), nprocs=nprocs)


def _on_one_thread(rank: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    function(rank, *args)


def run_distributed(world_size: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make of `function(rank, *args)` a function of `args` that runs it in a process group of `world_size`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            _start_rank_processes(_in_process_group, (function, args, world_size, store.port), world_size)

        return run

    return decorate


def _in_process_group(
    rank: int, function: Callable[..., None], args: tuple[Any, ...], world_size: int, port: int
) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    _set_rank_device(rank)
    store = dist.TCPStore("localhost", port, is_master=False)
    dist.init_process_group(_get_distributed_backend(), store=store, rank=rank, world_size=world_size)
    try:
        function(rank, *args)
    finally:
        dist.destroy_process_group()
