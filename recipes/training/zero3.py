"""Weights sharded over processes by DeepSpeed's ZeRO-3, in checkpoints that are not: those of any other run.

DeepSpeed writes checkpoints of its own, which only it reads, and only with as many processes. Here every weight and its
optimizer state are gathered one after the other, and the first process writes them as it would without sharding.
It is an optional package, and so imported where it is used.
"""

import itertools
import warnings
from typing import Any

import torch
from torch import nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from weft.recipes.common.processes import launcher_uses
from weft.recipes.training.checkpoints import WholeCheckpoints

# Weights of fewer numbers, such as those of norms, stay whole in each process: fetching them costs more than they take.
SMALL = 100_000


def keep_models_whole() -> None:
    """Have transformers make models as it does without DeepSpeed; it would shard them as soon as it knows of it.

    Then the first weights are those of any run, and the first process can make a whole model.
    """
    unset_hf_deepspeed_config()


class ZeroTrainer(WholeCheckpoints):
    """Trainer that takes whole checkpoints to ZeRO-3 and back."""

    _weights: list[list[nn.Parameter]]  # of each group of the optimizer

    def create_accelerator_and_postprocess(self) -> None:
        """Add gradients up in float32, and on processors do without kernels that would have to be compiled first."""
        if launcher_uses("DEEPSPEED"):
            import deepspeed

            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        super().create_accelerator_and_postprocess()
        if not self.is_deepspeed_enabled:
            return
        config = self.accelerator.state.deepspeed_plugin.deepspeed_config
        config["communication_data_type"] = "fp32"
        config["data_types"] = {"grad_accum_dtype": "fp32"}
        config["zero_optimization"]["stage3_param_persistence_threshold"] = SMALL
        keep_models_whole()
        warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Remember the weights of each group: ZeRO puts long rows of numbers in their place."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.is_deepspeed_enabled:
            self._weights = [list(group["params"]) for group in optimizer.param_groups]
        return optimizer

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if not self.is_deepspeed_enabled:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        from deepspeed.utils import safe_set_local_fp32_param

        if resume_from_checkpoint is not None:  # weights while they are whole, their states when there are parts
            self._load_from_checkpoint(resume_from_checkpoint)
        # it makes its float32 weights of what they are rounded to for computing
        exact = {
            name: weight.detach().cpu().clone() for name, weight in self.model.named_parameters() if self.args.bf16
        }
        made = super()._prepare_for_training(max_steps, train_dataloader, None)
        for name, weight in self.model.named_parameters():
            if name in exact:
                safe_set_local_fp32_param(weight, _part_of_this_process(exact.pop(name), weight))
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return made

    def _prepare_input(self, data: Any) -> Any:
        """Leave numbers as they are: some are counts, which bfloat16 would round."""
        if self.is_deepspeed_enabled and isinstance(data, torch.Tensor):
            return data.to(self.args.device)
        return super()._prepare_input(data)

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """The float32 weights, one after the other."""
        if not self.is_deepspeed_enabled:
            return super().whole_weights()
        from deepspeed.utils import safe_get_full_fp32_param

        gathered = {}
        for name, weight in self.model.named_parameters():
            whole = safe_get_full_fp32_param(weight)
            if self.accelerator.is_main_process:
                gathered[name] = whole.cpu()
        return gathered

    def whole_optimizer_state(self) -> dict[str, Any]:
        """Put together as the optimizer would have it that was made before ZeRO took it."""
        if not self.is_deepspeed_enabled:
            return super().whole_optimizer_state()
        from deepspeed.utils import safe_get_full_optimizer_state

        zero, places, states, groups = self.model_wrapped.optimizer, itertools.count(), {}, []
        kept = next(iter(zero.optimizer.state.values()), {})
        for group, weights in zip(zero.param_groups, self._weights, strict=True):
            groups.append({**group, "params": []})
            for weight, place in zip(weights, places):
                groups[-1]["params"].append(place)
                found = {name: safe_get_full_optimizer_state(weight, name) for name in kept if name != "step"}
                if self.accelerator.is_main_process and kept:
                    step = torch.tensor(float(kept["step"]))
                    states[place] = {"step": step, **{name: value.cpu() for name, value in found.items()}}
        return {"state": states, "param_groups": groups}

    def take_optimizer_state(self, state: dict[str, Any]) -> None:
        """Make the state of ZeRO's long rows of numbers, which there is none of before the first step."""
        if not self.is_deepspeed_enabled:
            return super().take_optimizer_state(state)
        from deepspeed.utils import safe_set_local_optimizer_state

        zero = self.model_wrapped.optimizer
        for group, found in zip(zero.param_groups, state["param_groups"], strict=True):
            group.update({name: value for name, value in found.items() if name not in ("params", "fused")})
        kept = next(iter(state["state"].values()), {})
        is_fused = any(group.get("fused") for group in zero.param_groups)  # then the count of steps lies on the GPU
        for row in zero.fp32_partitioned_groups_flat:
            zero.optimizer.state[row] = {name: torch.zeros_like(row) for name in kept}
            if "step" in kept:
                zero.optimizer.state[row]["step"] = kept["step"].to(row.device if is_fused else "cpu", copy=True)
        for place, weight in enumerate(itertools.chain(*self._weights)):
            for name, value in state["state"].get(place, {}).items():
                if name != "step":
                    safe_set_local_optimizer_state(weight, _part_of_this_process(value, weight), name)


def _part_of_this_process(whole: torch.Tensor, weight: nn.Parameter) -> torch.Tensor:
    """The numbers that ZeRO-3 gives to this process: equal parts of the weight in one row, filled up with zeros."""
    size = weight.ds_tensor.numel()
    part = torch.zeros(size)
    mine = whole.flatten()[size * torch.distributed.get_rank(weight.ds_process_group) :][:size]
    part[: len(mine)] = mine
    return part


def norm_of_gradient(weights: list[nn.Parameter], optimizer: Any) -> torch.Tensor | float | None:
    """The norm of the last step's whole gradient where ZeRO-3 shards these weights, else None.

    It has none of the gradients when its step is over, and makes no step at all where one was not finite.
    """
    if not weights or not hasattr(weights[0], "ds_id"):
        return None
    zero = optimizer.optimizer
    return float("nan") if zero.overflow else zero._global_grad_norm
