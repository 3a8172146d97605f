"""Weights of linear maps in 8 bits: a quarter of the memory, and of what each written token reads from it."""

import torch
from torch import nn

from weft.recipes.common.errors import RecipeError

FEW_ROWS = 8  # up to so many rows at once reading weights takes the time, beyond it multiplying does
# PyTorch's product of bfloat16 and 8-bit numbers reads so many at a time (with AVX-512; 8 with AVX2): with a width that
# is no multiple of it, it crashes or reads beyond the end of a row
WIDTH_UNIT = 16


class Int8Linear(nn.Module):
    """A linear map whose weights are integers from -127 to 127 times one scale for each output: half a step of rounding
    at most (absmax quantisation as of LLM.int8(), https://huggingface.co/papers/2208.07339, of the weights alone)."""

    weight: torch.Tensor
    scale: torch.Tensor
    ones: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("weight", (weight.float() / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale.to(weight.dtype))
        # scales in bfloat16 would be less exact; made here, because PyTorch cannot compile the product with made ones
        self.register_buffer("ones", torch.ones_like(scale, dtype=torch.bfloat16))
        self.bias = linear.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features]. On a CPU a few rows are multiplied in bfloat16 without writing the
        weights out, all else with the weights in the dtype of the states."""
        rows = states.reshape(-1, states.shape[-1])
        is_whole = rows.shape[1] % WIDTH_UNIT == 0
        if states.device.type == "cpu" and rows.shape[0] <= FEW_ROWS and is_whole:
            product = torch._weight_int8pack_mm(rows.bfloat16(), self.weight, self.ones).to(states.dtype)
        else:
            product = rows @ self.weight.to(states.dtype).T
        product = product * self.scale
        product = product if self.bias is None else product + self.bias
        return product.view(*states.shape[:-1], -1)


def quantize_int8(model: nn.Module) -> nn.Module:
    """Replace every linear map of a model in place, for inference; embeddings stay as they are.

    Raises:
        RecipeError: the model has no linear map of its own (a module that only looks like one is left alone).
    """
    found = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    if not found:
        raise RecipeError(f"{type(model).__name__} has no linear map to quantise: leave int8 out.")
    for name, linear in found:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, Int8Linear(linear))
    return model
