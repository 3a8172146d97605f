"""Weights sharded over processes, in checkpoints that are not: by FSDP2 (fully_shard of PyTorch, through accelerate)
here, by ZeRO-3 in `zero`.

Every process holds a part of each weight and of its optimizer state. Checkpoints hold whole ones, as those of any run
do: they load with `from_pretrained`, and a run may go on under another launcher.
"""

import os
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.launch import launcher_uses
from weft.recipes.common.run_arguments import RunArguments
from weft.recipes.common.zero import ZeroTrainer, check_zero

# Optimizers of transformers that treat each number of a weight by itself, so that it does not matter where it is.
ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "sgd")


def shards_weights() -> bool:
    """Whether the launcher asks for weights that are sharded over processes."""
    return launcher_uses("FSDP") or launcher_uses("DEEPSPEED")


def describe_sharding() -> str:
    """What a run's plan says of it."""
    kind = "ZeRO-3" if launcher_uses("DEEPSPEED") else "FSDP2"
    return f", weights sharded over all processes ({kind})" if shards_weights() else ""


def check_sharding(run: RunArguments, trainer_fields: dict[str, Any]) -> None:
    """Refuse what sharded weights cannot be trained with here.

    Args:
        run: the recipe's own fields.
        trainer_fields: those of TrainingArguments that were given.

    Raises:
        RecipeError: an optimizer that needs whole matrices, or ways of sharding that have not been tried.
    """
    optim = trainer_fields.get("optim", ELEMENTWISE[0])
    if run.optimizer == "muon" or optim not in ELEMENTWISE:
        named = "muon" if run.optimizer == "muon" else optim
        raise RecipeError(
            f"{named} needs whole matrices, and the launcher shards them over the "
            "processes: give optimizer adamw (without optim), or launch with ddp.yaml."
        )
    for name in ("cautious_weight_decay", "average_decay"):
        if getattr(run, name):
            raise RecipeError(
                f"{name} is for whole weights, and the launcher shards them: leave it out, or launch with ddp.yaml."
            )
    if launcher_uses("DEEPSPEED"):
        check_zero(run, trainer_fields)
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError("the launcher asks for the first version of FSDP: set fsdp_version to 2, as fsdp2.yaml does.")
    instead = {
        "OFFLOAD_PARAMS": "leave the weights on the GPUs",
        "ACTIVATION_CHECKPOINTING": "give --gradient_checkpointing true to the recipe instead",
    }
    for name, advice in instead.items():
        if os.environ.get(f"FSDP_{name}", "false").lower() == "true":
            raise RecipeError(f"the launcher asks for fsdp_{name.lower()}: set it to false and {advice}.")


class ShardingTrainer(ZeroTrainer):
    """Trainer whose checkpoints are the same with and without sharding."""

    def create_accelerator_and_postprocess(self) -> None:
        """Shard on processors too, where accelerate does so on accelerators alone, and add gradients up in float32."""
        super().create_accelerator_and_postprocess()
        if not launcher_uses("FSDP"):
            return
        state = self.accelerator.state
        if state.distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            self.is_fsdp_enabled = True
        if self.is_fsdp_enabled and self.args.bf16:
            # inputs are left as they are: they hold the number of targets, which bfloat16 would round
            state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )

    def whole_model(self) -> PreTrainedModel | None:
        """The model with all its weights, in the first process; None in others where they are sharded.

        All processes have to call this.
        """
        if not self.is_fsdp_enabled:
            return super().whole_model()
        weights = self.accelerator.get_state_dict(self.model)
        return self.make_whole(weights) if self.accelerator.is_main_process else None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole model as a `from_pretrained` folder."""
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return super().save_model(output_dir, _internal_call)
        sharded, whole = self.model, self.whole_model()
        if whole is not None:
            self.model = whole
            try:
                self._save(output_dir)
            finally:
                self.model = sharded

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            return super()._save_optimizer_and_scheduler(output_dir)
        keep = self.accelerator.is_main_process

        def gather(part: DTensor) -> torch.Tensor | None:
            whole = part.full_tensor()
            return whole.cpu() if keep else None

        state = tree_map_only(DTensor, gather, self.optimizer.state_dict())
        self.write_states(state, output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        files = sorted(Path(resume_from_checkpoint).glob("*.safetensors")) if self.accelerator.is_main_process else []
        weights = {name: weight for file in files for name, weight in load_file(file).items()}
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(self.model, weights, options=options)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        is_sharded = self.is_fsdp_enabled
        # older versions of transformers map to the "cpu:0" of several processes, which torch.load does not know
        if checkpoint is None or self.is_deepspeed_enabled or not (is_sharded or self.args.device.type == "cpu"):
            return super()._load_optimizer_and_scheduler(checkpoint)
        # mapped, so that a process reads little more than its own part
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", mmap=is_sharded, weights_only=True)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for place, found in state["state"].items() if is_sharded else ():
            weight = weights[place]
            for name, value in found.items():
                if value.shape == weight.shape:
                    found[name] = distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)
        self.optimizer.load_state_dict(state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
