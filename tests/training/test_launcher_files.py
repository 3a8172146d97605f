"""The files for `accelerate launch` are read by accelerate as their comments say, and name commands that exist."""

import os
import re
import shlex
import stat
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from helpers.launched import CONFIGS, launch_arguments, launch_environment
from torch.distributed.fsdp import StateDictType
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from weft.recipes.common.processes import check_launcher
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.checks import check_sharding
from weft.recipes.training.sharding import shards_weights

ROOT = CONFIGS.parents[2]
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))
# distributed type, processes, machines
EXPECTED = {
    "cpu.yaml": (DistributedType.NO, 1, 1),
    "cpu_2.yaml": (DistributedType.MULTI_GPU, 2, 1),
    "ddp.yaml": (DistributedType.MULTI_GPU, 8, 1),
    "fsdp2.yaml": (DistributedType.FSDP, 8, 1),
    "gpu.yaml": (DistributedType.NO, 1, 1),
    "multi_node.yaml": (DistributedType.MULTI_GPU, 16, 2),
    "zero3.yaml": (DistributedType.DEEPSPEED, 8, 1),
}


def test_every_file_is_what_it_says() -> None:
    found = {name: load_config_from_file(str(CONFIGS / name)) for name in NAMES}
    assert {
        name: (config.distributed_type, config.num_processes, config.num_machines) for name, config in found.items()
    } == EXPECTED
    assert [name for name, config in found.items() if config.use_cpu] == ["cpu.yaml"]


@pytest.mark.parametrize("name", NAMES)
def test_the_launcher_starts_what_the_file_says_and_pretraining_accepts_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--main_process_ip", "127.0.0.1") if name == "multi_node.yaml" else ()
    arguments, environment = launch_arguments(name, *words), launch_environment(name, *words)
    kind, processes, machines = EXPECTED[name]
    found = (arguments.use_fsdp, arguments.use_deepspeed, arguments.multi_gpu)
    kinds = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MULTI_GPU)
    assert found == tuple(kind == each for each in kinds)
    assert (arguments.num_processes, arguments.num_machines) == (processes, machines)
    assert environment.get("ACCELERATE_USE_CPU") == {"cpu.yaml": "True", "gpu.yaml": "False"}.get(name)
    assert environment.get("CUDA_VISIBLE_DEVICES") == ("0" if name == "gpu.yaml" else None)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    check_launcher(can_shard=True)
    assert shards_weights() == (name in ("fsdp2.yaml", "zero3.yaml"))


def test_weights_are_sharded_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in launch_environment("fsdp2.yaml").items():
        monkeypatch.setenv(variable, value)
    check_sharding(RunArguments(), {})
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.transformer_cls_names_to_wrap == ["WeftLayer"]
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT


def test_zero_shards_weights_too_and_takes_the_rest_from_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in launch_environment("zero3.yaml").items():
        monkeypatch.setenv(variable, value)
    check_sharding(RunArguments(), {})
    config = DeepSpeedPlugin().deepspeed_config
    assert config["zero_optimization"]["stage"] == 3
    assert config["gradient_accumulation_steps"] == config["gradient_clipping"] == "auto"


@pytest.mark.parametrize("name", [*NAMES, "multi_node.slurm"])
def test_the_head_of_every_file_shows_its_command(name: str) -> None:
    text = (CONFIGS / name).read_text()
    head = text.split("\n\n")[0] if name.endswith(".slurm") else text[: text.index("\n\n")]
    command = " ".join(shlex.split(head.replace("#", " ").replace("'", "")))
    assert re.search(
        rf"(accelerate launch --config_file|sbatch) recipes/configs/accelerate/{re.escape(name)} ", command
    )
    named = set(re.findall(r"recipes/[\w/]+\.\w+", text))
    assert len(named) > 1 and all((ROOT / path).is_file() for path in named)


def test_an_installed_package_has_the_files() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = table["weft.recipes.configs"]
    for path in CONFIGS.iterdir():
        assert any(fnmatch(f"accelerate/{path.name}", pattern) for pattern in patterns), path.name


def write_command(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)


def test_slurm_starts_one_launcher_on_each_machine(tmp_path: Path) -> None:
    """With the scheduler's commands replaced: srun that calls its command for two machines, a launcher that prints."""
    write_command(tmp_path, "scontrol", "printf 'one\\ntwo\\n'")
    write_command(tmp_path, "srun", 'shift; for node in 0 1; do SLURM_NODEID=$node "$@"; done')
    write_command(tmp_path, "accelerate", "printf '%s|' \"$@\"; echo")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NODELIST": "x"}
    command = ["bash", str(CONFIGS / "multi_node.slurm"), "recipes/pretrain_clm.py", "--train_files", "a b.txt"]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    launched = [line.strip("|").split("|") for line in output.splitlines()]
    assert [words[words.index("--machine_rank") + 1] for words in launched] == ["0", "1"]
    for words in launched:
        assert words[:3] == ["launch", "--config_file", "recipes/configs/accelerate/multi_node.yaml"]
        assert words[words.index("--num_processes") + 1] == "8" and words[words.index("--main_process_ip") + 1] == "one"
        assert words[-3:] == ["recipes/pretrain_clm.py", "--train_files", "a b.txt"]
        arguments = launch_arguments("multi_node.yaml", *words[3:-3])
        assert (arguments.num_machines, arguments.num_processes, arguments.same_network) == (2, 8, True)
