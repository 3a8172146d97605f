"""The output matrix of a model of any family: its logits for some tokens, without those of all."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

LARGE = 1e30  # a product with the output matrix that no cap leaves as it is
ROUNDING = 1e-4  # of the largest logit


class _Reached(Exception):
    """A forward pass has come to the output matrix."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = states


@dataclass
class Head:
    """The output matrix of a model, and what its forward does with the products.

    Logits are `scale * product + bias`, or with a cap `cap * tanh(product / cap) + bias`. What comes before the matrix
    (BERT's transform, T5's scale) is in the states that it is reached with.
    """

    model: PreTrainedModel
    matrix: nn.Module
    scale: float = 1.0
    cap: float | None = None
    bias: torch.Tensor | None = None

    @torch.no_grad()
    def reach(self, **inputs: Any) -> torch.Tensor:
        """What the model's forward multiplies with the output matrix [..., width]; it ends there."""
        states = _reach(self.model, self.matrix, inputs)
        if states is None:
            raise RuntimeError(f"{type(self.model).__name__} does not come to its output matrix with these inputs.")
        return states

    @torch.no_grad()
    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Logits [tokens, classes] of states [tokens, width]."""
        return self.follow(self.matrix(states))

    def follow(self, products: torch.Tensor) -> torch.Tensor:
        """What the model's forward makes of products with the matrix [..., classes]."""
        logits = products if self.scale == 1 else products * self.scale
        logits = logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap
        return logits if self.bias is None else logits + self.bias


@torch.no_grad()
def find_head(model: PreTrainedModel, **inputs: Any) -> Head | None:
    """See into the last step of a model; None where its logits are made in a way that is not known here.

    What the forward does behind the matrix is found by putting chosen numbers in the place of the products.

    Args:
        inputs: a batch of at least four tokens to try it with.
    """
    matrix = model.get_output_embeddings()
    states = None if matrix is None else _reach(model, matrix, inputs)
    expected = model(**inputs).logits
    if states is None or states.shape[:-1] != expected.shape[:-1]:
        return None
    wide = torch.promote_types(expected.dtype, torch.float32)
    draw = torch.Generator(expected.device).manual_seed(0)
    products = 30 * torch.randn(expected.shape, generator=draw, device=expected.device, dtype=wide)
    for row, number in enumerate((0, 1, LARGE)):
        products.flatten(0, -2)[row] = number
    with _in_place_of(matrix, lambda _: products.clone()):
        found = model(**inputs).logits.to(wide)
    bias, one, large = found.flatten(0, -2)[:3]
    at_one, limit = (one - bias).mean().item(), (large - bias).mean().item()
    shift = bias.to(expected.dtype) if bias.any() else None
    is_capped = abs(limit) < LARGE * abs(at_one) / 2
    scale = 1.0 if is_capped or abs(at_one - 1) < ROUNDING else at_one
    head = Head(model, matrix, scale, limit if is_capped else None, shift)
    is_followed = _agree(head.follow(products).flatten(0, -2)[3:], found.flatten(0, -2)[3:])
    tolerance = ROUNDING if expected.dtype == wide else 200 * ROUNDING
    return head if is_followed and _agree(head(states), expected, tolerance) else None


def _agree(found: torch.Tensor, expected: torch.Tensor, tolerance: float = ROUNDING) -> bool:
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def _reach(model: PreTrainedModel, matrix: nn.Module, inputs: dict[str, Any]) -> torch.Tensor | None:
    """The states that the matrix is called with; None where it is not called."""

    def stop(states: torch.Tensor) -> torch.Tensor:
        raise _Reached(states)

    with _in_place_of(matrix, stop):
        try:
            model(**inputs)
        except _Reached as reached:
            return reached.states
    return None


@contextlib.contextmanager
def _in_place_of(module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Have a module compute something else for a while."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
