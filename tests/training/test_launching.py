"""What a recipe makes of its launcher, and what `make` offers."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import runs
from helpers.models import tiny_config

from weft import WeftForCausalLM
from weft.recipes.common import hardware, processes
from weft.recipes.common.errors import RecipeError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("asked", "launched", "omp", "processes", "expected"),
    [
        (None, True, "1", "1", 8),  # the launcher's own default: one thread, whatever the machine
        (None, True, "1", "2", 4),
        (None, True, "1", "100", 1),
        (None, True, "3", "1", 2),  # somebody chose a number: torch has it already (2 here)
        (None, False, "1", "1", 2),
        (5, True, "1", "2", 5),
    ],
)
def test_processes_share_the_cores_of_a_machine(monkeypatch, asked, launched, omp, processes, expected):
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if launched:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    torch.set_num_threads(2)
    assert hardware.share_cores(asked) == expected == torch.get_num_threads()


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_shards_weights_is_refused_by_a_recipe_that_does_not(monkeypatch, name):
    processes.check_launcher()
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    processes.check_launcher(can_shard=True)
    with pytest.raises(RecipeError, match=f"configured for {name}.*ddp.yaml"):
        processes.check_launcher()


ZERO3 = {"USE_DEEPSPEED": "true", "DEEPSPEED_ZERO_STAGE": "3"}


@pytest.mark.parametrize(
    ("changes", "fields", "said"),
    [
        ({}, {"optimizer": "muon"}, "muon needs whole matrices.*adamw.*ddp.yaml"),
        ({}, {"optim": "adafactor"}, "adafactor needs whole matrices"),
        ({}, {"cautious_weight_decay": "true"}, "cautious_weight_decay is for whole weights"),
        ({}, {"average_decay": 0.9}, "average_decay is for whole weights"),
        ({"FSDP_VERSION": "1"}, {}, "set fsdp_version to 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, {}, "fsdp_offload_params: set it to false"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, {}, "--gradient_checkpointing true"),
        (ZERO3, {"optimizer": "muon"}, "muon needs whole matrices.*adamw.*ddp.yaml"),
        (ZERO3, {"average_decay": 0.9}, "average_decay is for whole weights"),
        (ZERO3, {"budget": "3m"}, "budget does not work with ZeRO-3.*fsdp2.yaml"),
        (ZERO3, {"initial_tokens_per_step": 64}, "initial_tokens_per_step does not work with ZeRO-3.*fsdp2.yaml"),
        (ZERO3, {"torch_compile": "true"}, "torch_compile does not work with ZeRO-3"),
        ({**ZERO3, "DEEPSPEED_ZERO_STAGE": "2"}, {}, "zero_stage 2: set it to 3"),
        ({**ZERO3, "DEEPSPEED_CONFIG_FILE": "a.json"}, {}, "config_file a.json: set it to none, as zero3.yaml does"),
        ({**ZERO3, "GRADIENT_ACCUMULATION_STEPS": "4"}, {}, "gradient_accumulation_steps 4: set it to auto"),
        ({**ZERO3, "GRADIENT_CLIPPING": "0.5"}, {}, "gradient_clipping 0.5: set it to auto"),
        ({**ZERO3, "DYNAMO_BACKEND": "INDUCTOR"}, {}, "dynamo_backend inductor: set it to no"),
        ({**ZERO3, "MIXED_PRECISION": "bf16"}, {"bf16": "false"}, "mixed_precision bf16, and bf16 is false"),
        (ZERO3, {"torch_compile_backend": "eager"}, "torch_compile_backend does not work with ZeRO-3"),
        ({**ZERO3, "DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, {}, "offload_optimizer_device cpu: set it to none"),
        ({**ZERO3, "DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"}, {}, "offload_param_device nvme: set it to none"),
    ],
)
def test_what_sharded_weights_are_not_trained_with_is_refused(monkeypatch, corpus, tmp_path, changes, fields, said):
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    if "USE_DEEPSPEED" in changes:
        fsdp, changes = {}, {f"ACCELERATE_{name}": value for name, value in changes.items()}
    for name, value in {**fsdp, **changes}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "run"
    assert re.search(said, runs.run_error(data=corpus, output_dir=folder, **fields))
    assert not folder.exists()


@pytest.mark.parametrize(("use_cpu", "launched_for_cpu"), [(True, False), (False, True), (False, False)])
def test_a_run_keeps_off_the_gpu_where_it_or_its_launcher_says_so(monkeypatch, use_cpu, launched_for_cpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(launched_for_cpu))
    assert hardware.computes_on_gpu(use_cpu) == (not use_cpu and not launched_for_cpu)


def test_a_launcher_that_asks_for_float16_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    for on_gpu in (False, True):
        with pytest.raises(RecipeError, match="asks for mixed precision fp16: choose bf16 or no"):
            hardware.choose_bf16(None, on_gpu)


def test_machines_that_would_resume_from_different_steps_are_refused(monkeypatch):
    processes.check_same_checkpoint("runs/a/checkpoint-5")

    def gather(found, own):
        found[:] = [own, ""]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    processes.check_same_checkpoint(None)
    with pytest.raises(RecipeError, match="different checkpoints"):
        processes.check_same_checkpoint("runs/a/checkpoint-5")


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("mlp_gated", [True, False])
def test_parallel_plans_name_modules_that_exist(mlp_gated, added):
    fields = {"mlp_gated": mlp_gated, "attention_gate": added}
    model = WeftForCausalLM(tiny_config(qk_norm=True, **fields))
    mixing = tiny_config(**fields, value_residual=True).base_model_tp_plan
    assert "layers.*.self_attn" in mixing and "layers.*.self_attn" not in model.config.base_model_tp_plan
    names = {re.sub(r"\.\d+\.", ".*.", name) for name, _ in model.model.named_modules()}
    assert set(model.config.base_model_tp_plan) <= names
    assert {f"layers.*.self_attn.{name}_proj" for name in "qkvo"} <= set(model.config.base_model_tp_plan)
    assert ("layers.*.self_attn.head_gate" in model.config.base_model_tp_plan) is added
    assert set(model.config.base_model_pp_plan) <= {name for name, _ in model.model.named_children()}
    assert set(WeftForCausalLM._tp_plan) | set(WeftForCausalLM._pp_plan) <= {name for name, _ in model.named_children()}
    assert {type(layer).__name__ for layer in model.model.layers} == set(model._no_split_modules)


def test_heads_are_not_divided_where_something_is_for_all_of_them(tmp_path):
    for fields in ({"position_embedding_type": "alibi"}, {"position_embedding_type": "t5"}, {"qk_norm_over": "width"}):
        config = tiny_config(qk_norm=True, **fields)
        assert config.base_model_tp_plan is None and tiny_config().base_model_tp_plan is not None
        config.save_pretrained(tmp_path)
        assert "tp_plan" not in (tmp_path / "config.json").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target_that_the_readme_names():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[0] for line in listed.splitlines()}
    assert {
        "setup",
        "pretrain",
        "finetune",
        "tokenizer",
        "data",
        "generate",
        "test",
        "test-upstream",
        "test-old",
        "lint",
    } <= targets
    assert set(re.findall(r"(?m)(?:^|`)make ([a-z][a-z0-9-]+)", (ROOT / "README.md").read_text())) <= targets


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_finetune_passes_task_model_and_data_on_and_generate_keeps_its_own_model():
    def shown(*words):
        return subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    plain = shown("finetune")
    assert "recipes/finetune.py --task pydoc" in plain and "--model_name_or_path" not in plain
    full = " ".join(
        shown("finetune", "TASK=rte", "MODEL=runs/m", "DATA=d", "ARGS=--seeds 1 2").replace("\\", " ").split()
    )
    assert "finetune.py --task rte --model_name_or_path runs/m --data d --seeds 1 2" in full
    assert "--model runs/pretrain_clm" in shown("generate")
