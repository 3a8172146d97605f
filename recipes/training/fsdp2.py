"""Weights sharded over processes, in checkpoints that are not: by FSDP2 (fully_shard of PyTorch, through accelerate)
here, by ZeRO-3 in `zero3`.

Every process holds a part of each weight and of its optimizer state. Checkpoints hold whole ones, as those of any run
do: they load with `from_pretrained`, and a run may go on under another launcher.
"""

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

from weft.recipes.common.processes import launcher_uses
from weft.recipes.training.zero3 import ZeroTrainer


class ShardingTrainer(ZeroTrainer):
    """Trainer that takes whole checkpoints to FSDP2 and back, and to ZeRO-3 where the launcher asks for that."""

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

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """As accelerate gathers them."""
        return self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else super().whole_weights()

    def whole_optimizer_state(self) -> dict[str, Any]:
        """The optimizer's own, with each tensor gathered."""
        if not self.is_fsdp_enabled:
            return super().whole_optimizer_state()
        keep = self.accelerator.is_main_process

        def gather(part: DTensor) -> torch.Tensor | None:
            whole = part.full_tensor()
            return whole.cpu() if keep else None

        return tree_map_only(DTensor, gather, self.optimizer.state_dict())

    def take_optimizer_state(self, state: dict[str, Any]) -> None:
        """Put each tensor where the weight's parts are."""
        if self.is_fsdp_enabled:
            weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            for place, found in state["state"].items():
                mesh, placements = weights[place].device_mesh, weights[place].placements
                for name, value in found.items():
                    if value.shape == weights[place].shape:
                        found[name] = distribute_tensor(value, mesh, placements, src_data_rank=None)
        super().take_optimizer_state(state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        files = sorted(Path(resume_from_checkpoint).glob("*.safetensors")) if self.accelerator.is_main_process else []
        weights = {name: weight for file in files for name, weight in load_file(file).items()}
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(self.model, weights, options=options)
