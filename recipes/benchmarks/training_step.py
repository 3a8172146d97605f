"""A training step, or the head alone, of Weft beside a stock class of the same shape and weights."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from weft.interop import find_family, weft_class
from weft.interop.convert import import_model
from weft.losses import IGNORE_INDEX, linear_cross_entropy, masked_lm_loss
from weft.recipes.benchmarks.stock_models import (
    WARM_UP,
    Shape,
    allowed_difference,
    last_line_of,
    make_stock,
    process_megabytes,
)
from weft.recipes.common.errors import RecipeError
from weft.recipes.training.throughput import seconds_of


class Training:
    """A model that is trained on one batch again and again, with the AdamW that the recipes use."""

    def __init__(self, model: PreTrainedModel, batch: dict[str, Any], device: str) -> None:
        self.model, self.batch, self.device = model.to(device).train(), batch, device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(self) -> float:
        """One training step; returns its loss."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss = self.model(**self.batch, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()  # waits for a GPU


def step_sides(shape: Shape, device: str, steps: int) -> dict[str, Callable[[], float]]:
    """Training steps of both, each a function that takes `steps` of them and returns the seconds.

    Raises:
        RecipeError: the two do not start with the same loss, so that their times would say nothing.
    """
    stock = make_stock(shape)
    model, _ = import_model(stock, find_family(shape.family), shape.head)
    trainings = {
        "weft": Training(model, shape.weft_batch(device), device),
        shape.family: Training(stock, shape.batch(device), device),
    }
    ours, theirs = (training.step() for training in trainings.values())
    if abs(ours - theirs) > allowed_difference(device):
        raise RecipeError(f"weft starts with a loss of {ours:.6f}, {shape.family} with {theirs:.6f}: they differ.")

    for training in trainings.values():
        seconds_of(WARM_UP, training.step)
    return {name: lambda step=training.step: seconds_of(steps, step) for name, training in trainings.items()}


def head_sides(shape: Shape, device: str, steps: int) -> dict[str, Callable[[], float]]:
    """Output matrix and loss alone, forward and backward: in chunks, and as stock classes compute them."""
    from transformers.loss.loss_utils import ForCausalLMLoss, ForMaskedLMLoss

    torch.manual_seed(0)
    head = nn.Linear(shape.width, shape.vocabulary, bias=False, device=device)
    hidden = torch.randn(shape.batch_size, shape.length, shape.width, device=device)
    labels = shape.batch(device)["labels"]
    targets = labels if shape.head == "masked" else nn.functional.pad(labels, (0, 1), value=IGNORE_INDEX)[..., 1:]
    chosen = targets.flatten() != IGNORE_INDEX
    stock_loss = ForMaskedLMLoss if shape.head == "masked" else ForCausalLMLoss

    def ours(states: torch.Tensor) -> torch.Tensor:
        if shape.head == "masked":
            return linear_cross_entropy(states.flatten(0, 1)[chosen], head, targets.flatten()[chosen])[0]
        return linear_cross_entropy(states, head, targets)[0]

    def measure(loss_of: Callable[[torch.Tensor], torch.Tensor]) -> None:
        loss = loss_of(hidden.clone().requires_grad_())
        loss.backward()
        loss.item()
        head.weight.grad = None

    sides = {
        "weft": ours,
        "weft, logits": lambda states: masked_lm_loss(head(states), targets, shape.vocabulary),
        "stock": lambda states: stock_loss(head(states), labels, shape.vocabulary),
    }
    calls = {name: partial(measure, loss_of) for name, loss_of in sides.items()}
    for call in calls.values():
        seconds_of(steps, call)
    return {name: partial(seconds_of, steps, call) for name, call in calls.items()}


def peak_megabytes(shape: Shape, side: str, device: str, threads: int) -> float:
    """Memory that training takes at most, in a fresh process: what it grew by from before there was a model (of a GPU:
    what was allocated there)."""
    return float(last_line_of(f"memory of {side}", __name__, [asdict(shape), side, device, threads]))


def _train_here(shape: Shape, side: str, device: str) -> float:
    """Train for a few steps and return the megabytes that this process grew by."""
    before = process_megabytes("VmRSS")
    if side == "weft":
        config = find_family(shape.family).import_config(shape.stock_config(), shape.head)
        training = Training(weft_class(shape.head)._from_config(config), shape.weft_batch(device), device)
    else:
        training = Training(make_stock(shape), shape.batch(device), device)
    for _ in range(WARM_UP + 1):
        training.step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return process_megabytes("VmHWM") - before


if __name__ == "__main__":
    _shape, _side, _device, _threads = json.loads(sys.argv[1])
    torch.set_num_threads(_threads)
    print(_train_here(Shape(**_shape), _side, _device))
