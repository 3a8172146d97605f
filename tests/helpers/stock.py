"""Comparison with stock classes.

They cast to float32 inside (softmax, norms, rotary angles, loss). In float64 those casts are lifted to float64 on both
sides, so that what is compared is the formula and not the rounding.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from weft import WeftConfig

# Of the largest value compared. Logits and gradients sum some dozens of products, in another order here than there.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-5}


class LiftFloat32(TorchFunctionMode):
    """Inside, every request for float32 (`.float()`, `.to(torch.float32)`, `softmax(dtype=...)`) gives float64."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.Tensor.float:
            return args[0].double()
        args = tuple(torch.float64 if argument is torch.float32 else argument for argument in args)
        kwargs = {key: torch.float64 if value is torch.float32 else value for key, value in (kwargs or {}).items()}
        return function(*args, **kwargs)


def shared_fields(config: WeftConfig, **renamed: Any) -> dict[str, Any]:
    """The fields of a stock config that describes the same network as `config`."""
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "max_position_embeddings",
        "attention_dropout",
        "tie_word_embeddings",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
    )
    rope_parameters = dict(config.rope_parameters)
    return {
        **{name: getattr(config, name) for name in names},
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope_parameters,
        **renamed,
    }


def assert_close(actual: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """Equal to rounding: the largest difference is compared with the largest value."""
    difference = (actual - expected).abs().max().item()
    bound = TOLERANCE[expected.dtype] * max(1.0, expected.abs().max().item())
    assert difference <= bound, f"{what} differs by {difference:.3g}, allowed are {bound:.3g}"


def run(model: PreTrainedModel, dtype: torch.dtype, **inputs: Any) -> Any:
    """Forward, in float64 with all inner float32 lifted, and backward where there is a loss."""
    if dtype is torch.float64:
        with LiftFloat32():
            output = model(**inputs)
    else:
        output = model(**inputs)
    if output.loss is not None:
        model.zero_grad()
        output.loss.backward()
    return output


def assert_same_numbers(stock: PreTrainedModel, weft: PreTrainedModel, dtype: torch.dtype, **inputs: Any) -> None:
    """Logits, loss and the gradient of every parameter are the same."""
    expected, actual = run(stock, dtype, **inputs), run(weft, dtype, **inputs)
    assert_close(actual.logits, expected.logits, "logits")
    if expected.loss is None:
        return
    assert expected.loss.dtype == actual.loss.dtype == dtype
    assert_close(actual.loss, expected.loss, "loss")
    gradients = {name: parameter.grad for name, parameter in stock.named_parameters()}
    assert set(gradients) == {name for name, _ in weft.named_parameters()}
    for name, parameter in weft.named_parameters():
        assert gradients[name].abs().max() > 0, f"the gradient of {name} says nothing"
        assert_close(parameter.grad, gradients[name], f"gradient of {name}")
