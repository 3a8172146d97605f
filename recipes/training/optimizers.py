"""Optimizers that a run may choose by name: AdamW, and Muon for the matrices of the layers with AdamW for the rest."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

# Newton-Schulz steps of Muon: x <- a x + b (x x^T) x + c (x x^T)^2 x
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM, LEAST_NORM = 0.95, 1e-7


def orthogonalise(matrices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Move the singular values of matrices [..., rows, columns] near to 1 (between about 0.7 and 1.2), and leave their
    singular vectors: five steps of a quintic Newton-Schulz iteration, computed in `dtype`."""
    first, second, third = COEFFICIENTS
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if is_tall else matrices).to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = first * x + (second * gram + third * (gram @ gram)) @ x
    return x.mT if is_tall else x


def iteration_dtype(weight: torch.Tensor) -> torch.dtype:
    """bfloat16 on a GPU that multiplies it fast; the weight's own elsewhere: processors are far slower in bfloat16."""
    is_fast = weight.device.type == "cuda" and weight.dtype == torch.float32 and torch.cuda.is_bf16_supported(False)
    return torch.bfloat16 if is_fast else weight.dtype


class MuonWithAdamW(torch.optim.AdamW):
    """Muon (https://kellerjordan.github.io/posts/muon) for groups with `is_muon`, AdamW for all others.

    Muon's step is momentum (Nesterov's), orthogonalised, and scaled by 0.2 sqrt(max(rows, columns)), so that it is as
    large as AdamW's: both take the same learning rate and weight decay (https://huggingface.co/papers/2502.16982).
    State and groups are those of any optimizer, so it is saved and resumed like one. Every process computes the same
    step of whole matrices: sharded weights are refused with a ValueError. The weights of a recurrent network are as
    many matrices below each other as it has gates (`stacked`), each orthogonalised by itself.

    Groups with `is_cautious` decay a weight only where its step goes towards zero, or nowhere
    (https://huggingface.co/papers/2510.12402).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of all groups."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["is_muon"]]
        cautious = [group for group in self.param_groups if group["is_cautious"] and group["weight_decay"]]
        decays = [group["weight_decay"] for group in cautious]
        before = [[weight.clone() for weight in group["params"]] for group in cautious]
        try:
            for group in cautious:
                group["weight_decay"] = 0.0
            loss = super().step(closure)
        finally:
            self.param_groups = groups
            for group, decay in zip(cautious, decays):
                group["weight_decay"] = decay
        for group, olds in zip(cautious, before):
            for weight, old in zip(group["params"], olds):
                weight.sub_(_cautious(old, old - weight), alpha=float(group["lr"]) * group["weight_decay"])
        for group in groups:
            if group["is_muon"]:
                self._muon_step(group)
        return loss

    def _muon_step(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[torch.Size, torch.dtype, torch.device], list[nn.Parameter]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is None:
                continue
            if type(weight.data) is not torch.Tensor:
                raise ValueError(
                    f"Muon needs whole matrices, not a {type(weight.data).__name__}: give optimizer adamw."
                )
            by_shape[weight.shape, weight.dtype, weight.device].append(weight)
        rate = float(group["lr"])
        for weights in by_shape.values():
            updates = []
            for weight in weights:
                state = self.state[weight]
                if not state:  # AdamW wants the number of steps in every state that it loads
                    state |= {"step": torch.tensor(0.0), "momentum_buffer": torch.zeros_like(weight)}
                state["step"] += 1
                state["momentum_buffer"].lerp_(weight.grad, 1 - MOMENTUM)
                updates.append(weight.grad.lerp(state["momentum_buffer"], MOMENTUM))
            # all matrices of a shape at once: many small products cost more than one large
            matrices = torch.stack(updates).unflatten(1, (group.get("stacked", 1), -1))
            stack = orthogonalise(matrices, iteration_dtype(weights[0])).to(weights[0].dtype).flatten(1, 2)
            scale = 0.2 * math.sqrt(max(matrices.shape[-2:]))
            for weight, update in zip(weights, stack):
                shrinks = _cautious(weight, update) if group["is_cautious"] else weight
                weight.sub_(shrinks, alpha=rate * group["weight_decay"]).add_(update, alpha=-rate * scale)


def _cautious(weight: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """The weight where subtracting the update moves it towards zero or not at all, else 0."""
    return weight.where(weight * update >= 0, 0)


def make_optimizer(
    model: nn.Module,
    decayed: Iterable[str],
    kind: str,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    is_cautious: bool = False,
) -> MuonWithAdamW:
    """The optimizer of a model: of kind "muon" Muon for the matrices inside of its layers and AdamW for embeddings,
    output matrices, convolutions, norms and biases; of kind "adamw" AdamW for all. `decayed`: names of the parameters
    that decay."""
    decayed, groups = set(decayed), defaultdict(list)
    gates = {id(each): cell.gates for cell in model.modules() if hasattr(cell, "gates") for each in cell.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_inside = parameter.ndim == 2 and name in decayed and ".layers." in f".{name}"
            is_muon = kind == "muon" and is_inside
            groups[is_muon, name in decayed, gates.get(id(parameter), 1) if is_muon else 1].append(parameter)
    return MuonWithAdamW(
        [
            {
                "params": parameters,
                "is_muon": is_muon,
                "stacked": stacked,
                "is_cautious": is_cautious,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (is_muon, decays, stacked), parameters in sorted(groups.items(), reverse=True)
        ],
        lr=learning_rate,
        betas=betas,
        # a fused step would have a loss scaler leave its work to AdamW, and Muon's gradients would stay scaled
        fused=not any(parameter.is_cuda for parameter in model.parameters()),
    )
