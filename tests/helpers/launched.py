"""Processes as a file for `accelerate launch` starts them, forked off the test's: nothing is imported again."""

import argparse
import contextlib
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs" / "accelerate"


def launch_arguments(config: str, *words: str) -> argparse.Namespace:
    """What `accelerate launch --config_file CONFIG [words]` is told, by its own reading of the file."""
    words = ("--config_file", str(CONFIGS / config), *words, "script.py")
    return _validate_launch_command(launch_command_parser().parse_args(words))[0]


def launch_environment(config: str, *words: str) -> dict[str, str]:
    """The variables that it sets for the processes which it starts."""
    arguments = launch_arguments(config, "--main_process_port", "0", *words)
    if arguments.use_fsdp or arguments.multi_gpu:
        made = prepare_multi_gpu_env(arguments)
    else:
        _, made = prepare_simple_launcher_cmd_env(arguments)
    return {name: value for name, value in made.items() if os.environ.get(name) != value}


def run_together(config: str, function: Callable[..., None], *arguments: Any, processes: int = 2) -> None:
    """Call a function in each of several processes that form a group, as they would under this file."""
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": _free_port(), **launch_environment(config), "OMP_NUM_THREADS": 1}
    fork = multiprocessing.get_context("fork")
    started = [
        fork.Process(target=_run, args=({**shared, "RANK": rank, "LOCAL_RANK": rank}, function, arguments))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(240)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    assert codes == [0] * processes


def _run(environment: dict[str, Any], function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
