"""A Weft checkpoint in a shape that a stock class knows computes what that class computes: logits, loss, gradients."""

from typing import Any

import pytest
import torch
from helpers.models import FULL, SLIDING, random_ids, shake, tiny_config
from helpers.stock import assert_close, assert_same_numbers, run, shared_fields
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from weft import WeftConfig, WeftForCausalLM

HEAD_DIM = 8
MAX_POSITIONS = 64
SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8.0, "beta_slow": 0.5},
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 2.0, 3.0, 4.0],
    },
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    "proportional": {"factor": 2.0, "partial_rotary_factor": 0.5},
}


def as_qwen3(config: WeftConfig) -> Qwen3Config:
    """The stock config of a Weft with QK-norm."""
    return Qwen3Config(
        **shared_fields(
            config,
            attention_bias=config.attention_bias,
            layer_types=list(config.layer_types),
            use_sliding_window=config.sliding_window is not None,
            sliding_window=config.sliding_window,
        )
    )


def as_llama(config: WeftConfig) -> LlamaConfig:
    """The stock config of a Weft without QK-norm."""
    return LlamaConfig(**shared_fields(config, attention_bias=config.attention_bias, mlp_bias=config.mlp_bias))


def as_mistral(config: WeftConfig) -> MistralConfig:
    """The stock config of a Weft without QK-norm whose layers all slide."""
    return MistralConfig(**shared_fields(config, sliding_window=config.sliding_window))


STOCK: dict[str, tuple[Any, type[PreTrainedModel]]] = {
    "qwen3": (as_qwen3, Qwen3ForCausalLM),
    "llama": (as_llama, LlamaForCausalLM),
    "mistral": (as_mistral, MistralForCausalLM),
}


def config_for(family: str, **changes: Any) -> WeftConfig:
    """A tiny Weft config in the shape of a stock family."""
    return tiny_config(qk_norm=family == "qwen3", max_position_embeddings=MAX_POSITIONS, **changes)


def make_pair(
    family: str, config: WeftConfig, dtype: torch.dtype, backend: str = "eager"
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A stock model with random weights, and a Weft that has strictly loaded its state dict."""
    convert, stock_class = STOCK[family]
    stock = shake(stock_class._from_config(convert(config), attn_implementation=backend)).eval()
    weft = WeftForCausalLM._from_config(config, attn_implementation=backend).eval()
    weft.load_state_dict(stock.state_dict(), strict=True)
    return stock.to(dtype), weft.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen3", {}),
        ("qwen3", {"attention_bias": True, "num_key_value_heads": 1, "head_dim": 16}),
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4, "hidden_act": "gelu"}),
        ("mistral", {"sliding_window": 5}),
        ("qwen3", {"sliding_window": 5, "layer_types": [SLIDING, FULL]}),
    ],
    ids=["qwen3", "qwen3-bias-mqa", "llama", "llama-bias-mha-gelu", "mistral-sliding", "qwen3-mixed"],
)
def test_logits_loss_and_gradients(
    family: str, changes: dict[str, Any], tied: bool, backend: str, dtype: torch.dtype
) -> None:
    stock, weft = make_pair(family, config_for(family, tie_word_embeddings=tied, **changes), dtype, backend)
    ids = random_ids(2, 17)
    assert_same_numbers(stock, weft, dtype, input_ids=ids, labels=ids)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("rope_type", ["default", *ROPE_INIT_FUNCTIONS])
def test_every_rope_type(rope_type: str, family: str, dtype: torch.dtype) -> None:
    """Also past the original length, and back below it: some scalings keep state between calls."""
    rope_parameters = {"rope_type": rope_type, "rope_theta": 500.0, **SCALINGS[rope_type]}
    stock, weft = make_pair(family, config_for(family, rope_parameters=rope_parameters), dtype)
    for length in (12, 40, MAX_POSITIONS + 20, MAX_POSITIONS + 30, 12):
        ids = random_ids(1, length, seed=length)
        assert_same_numbers(stock, weft, dtype, input_ids=ids, labels=ids)


def test_rope_types_are_told_apart() -> None:
    """The scalings above really change the numbers, so that the comparison with the stock classes says something."""
    ids = random_ids(1, MAX_POSITIONS + 20)
    seen: list[torch.Tensor] = []
    for rope_type, scaling in SCALINGS.items():
        rope_parameters = {"rope_type": rope_type, "rope_theta": 500.0, **scaling}
        model = shake(WeftForCausalLM(config_for("qwen3", rope_parameters=rope_parameters))).eval()
        seen.append(model(ids).logits)
    for index, logits in enumerate(seen):
        assert all((logits - other).abs().max() > 1e-2 for other in seen[:index])


def phi3_weights(weft: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Weft's weights under the names of Phi-3, which stacks the query, key and value, and the gate and up matrices."""
    state = weft.state_dict()
    for prefix in [f"model.layers.{index}." for index in range(weft.config.num_hidden_layers)]:
        parts = [state.pop(f"{prefix}self_attn.{name}_proj.weight") for name in "qkv"]
        state[f"{prefix}self_attn.qkv_proj.weight"] = torch.cat(parts)
        parts = [state.pop(f"{prefix}mlp.{name}_proj.weight") for name in ("gate", "up")]
        state[f"{prefix}mlp.gate_up_proj.weight"] = torch.cat(parts)
    return state


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("rope_type", ["default", "longrope"])
def test_partial_rotary_factor(rope_type: str, dtype: torch.dtype) -> None:
    """Phi-3 turns only the first part of each head."""
    rope_parameters = {"rope_type": rope_type, "rope_theta": 500.0, "partial_rotary_factor": 0.5, **SCALINGS[rope_type]}
    if rope_type == "longrope":
        rope_parameters |= {"short_factor": [1.0, 1.2], "long_factor": [1.5, 3.0]}
    config = config_for("phi3", rope_parameters=rope_parameters)
    fields = shared_fields(config, original_max_position_embeddings=16)
    stock_config: PreTrainedConfig = Phi3Config(**{key: fields[key] for key in fields if key != "head_dim"})
    weft = shake(WeftForCausalLM._from_config(config, attn_implementation="eager")).eval()
    stock = Phi3ForCausalLM._from_config(stock_config, attn_implementation="eager").eval()
    stock.load_state_dict(phi3_weights(weft), strict=True)
    stock, weft = stock.to(dtype), weft.to(dtype)
    for length in (12, 40):
        ids = random_ids(2, length)
        expected, actual = run(stock, dtype, input_ids=ids), run(weft, dtype, input_ids=ids)
        assert_close(actual.logits, expected.logits, "logits")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("items", [None, 23, torch.tensor(23)], ids=["mean", "int", "tensor"])
@pytest.mark.parametrize("shifted", [False, True], ids=["labels", "shift_labels"])
def test_loss_arguments(shifted: bool, items: Any, dtype: torch.dtype) -> None:
    """Ignored labels, a given number of targets and labels that are already shifted."""
    stock, weft = make_pair("qwen3", config_for("qwen3"), dtype)
    ids = random_ids(2, 17)
    labels = ids.masked_fill(torch.rand(ids.shape) < 0.3, -100)
    inputs: dict[str, Any] = {"input_ids": ids, "labels": labels}
    if shifted:
        inputs["shift_labels"] = random_ids(2, 17, seed=1).masked_fill(torch.rand(ids.shape) < 0.3, -100)
    if items is not None:
        inputs["num_items_in_batch"] = items
    assert_same_numbers(stock, weft, dtype, **inputs)


def test_loss_of_a_batch_is_the_sum_of_its_parts() -> None:
    """With `num_items_in_batch`, how a batch is cut changes neither the loss nor the gradients."""
    model = shake(WeftForCausalLM(tiny_config())).double()
    ids = random_ids(4, 11)
    labels = ids.clone()
    labels[0, :9] = -100
    labels[2, 3:] = -100
    items = int((labels[:, 1:] != -100).sum())

    def gradients(parts: list[slice]) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        total = 0.0
        for part in parts:
            loss = model(ids[part], labels=labels[part], num_items_in_batch=items).loss
            loss.backward()
            total += loss.item()
        return total, [parameter.grad.clone() for parameter in model.parameters()]

    whole_loss, whole = gradients([slice(0, 4)])
    mean_loss = model(ids, labels=labels).loss.item()
    parts_loss, parts = gradients([slice(0, 1), slice(1, 2), slice(2, 4)])
    assert whole_loss == pytest.approx(mean_loss, abs=1e-12) == pytest.approx(parts_loss, abs=1e-12)
    for one, other in zip(whole, parts):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_half_precision_is_as_exact_as_the_stock_class(family: str, dtype: torch.dtype) -> None:
    """Against the float64 numbers, half-precision logits are no further off than the stock class's are."""
    stock, weft = make_pair(family, config_for(family), torch.float64)
    ids = random_ids(4, 32)
    exact = run(weft, torch.float64, input_ids=ids).logits
    with torch.no_grad():
        stock_error = (stock.to(dtype)(ids).logits.double() - exact).pow(2).mean().sqrt().item()
        weft_error = (weft.to(dtype)(ids).logits.double() - exact).pow(2).mean().sqrt().item()
    assert weft_error <= 1.2 * stock_error


def test_the_lift_is_needed_and_complete() -> None:
    """Without it a stock class in float64 is only good to float32; with it, it agrees with itself in float64."""
    stock, weft = make_pair("llama", config_for("llama"), torch.float64)
    ids = random_ids(2, 17)
    exact = run(weft, torch.float64, input_ids=ids).logits
    assert (stock(ids).logits - exact).abs().max() > 1e-9
