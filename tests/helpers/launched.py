"""Processes as a file for `accelerate launch` starts them, forked off the test's so that nothing is imported again, and
runs that note what each of them was given."""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from torch.distributed.tensor import DTensor

from helpers import runs
from helpers.forked import import_what_runs_import, own_locks
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.training.safeguards import StopAtNonFinite

NEEDS_DEEPSPEED = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is for Linux only")
SHARDING = ("fsdp2.yaml", pytest.param("zero3.yaml", marks=NEEDS_DEEPSPEED))
CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs" / "accelerate"


def launch_arguments(config: str, *words: str) -> argparse.Namespace:
    """What `accelerate launch --config_file CONFIG [words]` makes of the file, by its own reading."""
    words = ("--config_file", str(CONFIGS / config), *words, "script.py")
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return arguments


def launch_environment(config: str, *words: str) -> dict[str, str]:
    """The variables that it sets for the processes which it starts."""
    arguments = launch_arguments(config, *words)
    arguments.main_process_port = 0  # any that is free
    if arguments.use_deepspeed:
        _, made = prepare_deepspeed_cmd_env(arguments)
    elif arguments.use_fsdp or arguments.multi_gpu:
        made = prepare_multi_gpu_env(arguments)
    else:
        _, made = prepare_simple_launcher_cmd_env(arguments)
    return {name: value for name, value in made.items() if os.environ.get(name) != value}


def run_together(config: str, function: Callable[..., None], *arguments: Any, **fields: Any) -> None:
    """Call a function in each of two processes that form a group, as they would under this file."""
    import_what_runs_import()
    # where they find each other is a store of this process, as it is one of the launcher's, on a port that it holds
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {**launch_environment(config), "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    fork = multiprocessing.get_context("fork")
    started = [
        fork.Process(target=_call, args=({**shared, "RANK": rank, "LOCAL_RANK": rank}, function, arguments, fields))
        for rank in range(2)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    assert codes == [0, 0]


def _call(
    environment: dict[str, Any], function: Callable[..., None], arguments: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    own_locks()
    try:
        function(*arguments, **fields)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def watched_run(folder: Path, **fields: object) -> None:
    """Carry a run out, and note in its folder what this process computed on at each step, and with which weights."""
    rows: dict[int, list] = {}
    held: dict[str, list] = {}
    compute_loss, check = PretrainingTrainer.compute_loss, StopAtNonFinite.on_pre_optimizer_step

    def note_rows(trainer: PretrainingTrainer, model: Any, inputs: dict, *args: Any, **kwargs: Any) -> Any:
        rows.setdefault(trainer.state.global_step, []).extend(inputs["input_ids"].tolist())
        return compute_loss(trainer, model, inputs, *args, **kwargs)

    def note_weights(callback: StopAtNonFinite, *args: Any, model: Any, **kwargs: Any) -> None:
        for name, weight in model.named_parameters():
            if hasattr(weight, "ds_id"):  # ZeRO-3, which has no gradient left, but its place; whole weights are fetched
                held[name] = [weight.ds_numel, weight.ds_tensor.numel() + weight.numel(), _master(weight).numel()]
                continue
            parts = [one.to_local() if isinstance(one, DTensor) else one for one in (weight, weight.grad)]
            held[name] = [weight.numel(), *(part.numel() for part in parts)]
        check(callback, *args, model=model, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainingTrainer, "compute_loss", note_rows)
        patch.setattr(StopAtNonFinite, "on_pre_optimizer_step", note_weights)
        runs.run_here(output_dir=folder, **fields)
    rank = os.environ.get("RANK", "0")
    (folder / f"watched-{rank}.json").write_text(json.dumps({"rows": rows, "held": held}))


def _master(weight: torch.nn.Parameter) -> torch.Tensor:
    """The numbers of a weight that ZeRO-3 has this process update."""
    from deepspeed.utils import safe_get_local_fp32_param

    return safe_get_local_fp32_param(weight)


def watched(folder: Path, processes: int = 1) -> list[dict]:
    """What the processes of a `watched_run` noted: "rows" of each step, and "held": numbers of each weight, those of
    them that are here, and those of its gradient."""
    return [json.loads((folder / f"watched-{rank}.json").read_text()) for rank in range(processes)]


def as_stopped(finished: Path, folder: Path, step: int) -> Path:
    """A copy of a run as it was when it stopped after this step."""
    shutil.copytree(finished / f"checkpoint-{step}", folder / f"checkpoint-{step}")
    shutil.copy(finished / "run.json", folder)
    return folder
