"""A training step, a forward pass, or the head alone, of Weft beside a stock class of the same shape and weights."""

import copy
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
from weft.recipes.benchmarks.whole_rows import MASK, in_whole_rows
from weft.recipes.common.errors import RecipeError
from weft.recipes.training.throughput import seconds_of


class Training:
    """A model that is trained on one batch again and again, with the AdamW that the recipes use."""

    def __init__(self, model: PreTrainedModel, batch: dict[str, Any], device: str) -> None:
        self.model, self.batch, self.device = model.to(device).train(), batch, device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(self) -> float:
        """One training step; returns its loss."""
        loss = loss_of(self.model, self.batch, self.device)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()  # waits for a GPU


class Evaluation:
    """A model that computes the loss of one batch again and again, without gradients."""

    def __init__(self, model: PreTrainedModel, batch: dict[str, Any], device: str) -> None:
        self.model, self.batch, self.device = model.to(device).eval(), batch, device

    @torch.inference_mode()
    def step(self) -> float:
        """The loss of the batch."""
        return loss_of(self.model, self.batch, self.device).item()


WORK: dict[str, type[Training | Evaluation]] = {"step": Training, "forward": Evaluation}


def loss_of(model: PreTrainedModel, batch: dict[str, Any], device: str) -> torch.Tensor:
    """The loss of a batch, on a GPU in bfloat16."""
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        return model(**batch, use_cache=False).loss


def model_sides(subject: str, shape: Shape, device: str, steps: int) -> dict[str, Callable[[], float]]:
    """Training steps or evaluations of Weft, of Weft with whole rows where it cuts them, and of the stock class where
    that computes the same: each a function that takes `steps` of them and returns the seconds.

    Raises:
        RecipeError: they do not start with the same loss, so that their times would say nothing.
    """
    stock, work = make_stock(shape), WORK[subject]
    model, _ = import_model(stock, find_family(shape.family), shape.head)
    batch = shape.weft_batch(device)
    sides = {MASK: work(copy.deepcopy(model), batch, device)} if shape.may_be_cut else {}
    sides |= {shape.family: work(stock, shape.batch(device), device)} if shape.isolates else {}
    sides = {"weft": work(model, batch, device), **sides}
    steps_of = {name: in_whole_rows(name, side.step) for name, side in sides.items()}
    losses = {name: step() for name, step in steps_of.items()}
    for name, loss in losses.items():
        if not abs(losses["weft"] - loss) <= allowed_difference(device):
            raise RecipeError(f"weft starts with a loss of {losses['weft']:.6f}, {name} with {loss:.6f}: they differ.")

    for step in steps_of.values():
        seconds_of(WARM_UP, step)
    return {name: partial(seconds_of, steps, step) for name, step in steps_of.items()}


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


def memory_sides(shape: Shape) -> list[str]:
    """The sides of `model_sides`, by name."""
    return ["weft", *([MASK] if shape.may_be_cut else []), *([shape.family] if shape.isolates else [])]


def peak_megabytes(subject: str, shape: Shape, side: str, device: str, threads: int) -> float:
    """Memory that a step takes at most, in a fresh process: what it grew by from before there was a model (of a GPU:
    what was allocated there)."""
    return float(last_line_of(f"memory of {side}", __name__, [subject, asdict(shape), side, device, threads]))


def _work_here(subject: str, shape: Shape, side: str, device: str) -> float:
    """Take a few steps and return the megabytes that this process grew by."""
    before = process_megabytes("VmRSS")
    if side == shape.family:
        model, batch = make_stock(shape), shape.batch(device)
    else:
        config = find_family(shape.family).import_config(shape.stock_config(), shape.head)
        model, batch = weft_class(shape.head)._from_config(config), shape.weft_batch(device)
    step = in_whole_rows(side, WORK[subject](model, batch, device).step)
    for _ in range(WARM_UP + 1):
        step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return process_megabytes("VmHWM") - before


if __name__ == "__main__":
    _subject, _shape, _side, _device, _threads = json.loads(sys.argv[1])
    torch.set_num_threads(_threads)
    print(_work_here(_subject, Shape(**_shape), _side, _device))
