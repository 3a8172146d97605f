"""Gemma 2 (https://huggingface.co/papers/2408.00118)."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from weft import WeftConfig
from weft.interop.earlier import every, other_windows
from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, SAME
from weft.interop.family import Family
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import module

SANDWICH = [
    *module("layers.{i}.input_layernorm"),
    *module("layers.{i}.post_attention_layernorm", "layers.{i}.attention_output_norm"),
    *module("layers.{i}.pre_feedforward_layernorm", "layers.{i}.post_attention_layernorm"),
    *module("layers.{i}.post_feedforward_layernorm", "layers.{i}.mlp_output_norm"),
]


def embedding_scale(stock: PreTrainedConfig) -> dict[str, Any]:
    """The scale that follows from the width, in float32, as the stock class holds it."""
    return {"embedding_scale": torch.tensor(stock.hidden_size**0.5, dtype=torch.float32).item()}


def to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    """Scales that the family derives from other fields."""
    return embedding_scale(stock) | {"attention_scale": stock.query_pre_attn_scalar**-0.5}


def to_stock(config: WeftConfig) -> dict[str, Any]:
    """The opposite: the number whose inverse root is the scale of the scores (whole, in every checkpoint so far)."""
    scalar = config.head_dim if config.attention_scale is None else config.attention_scale**-2
    return {"query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar}


FAMILY = Family(
    model_type="gemma2",
    same=(
        *(name for name in SAME if name != "hidden_act"),
        "rope_parameters",
        "layer_types",
        "sliding_window",
        "attn_logit_softcapping",
        "final_logit_softcapping",
    ),
    fields={**FIELDS, "hidden_act": "hidden_activation"},
    config={"qk_norm": False, "norm_position": "sandwich", "norm_offset": 1.0},
    requires={"use_bidirectional_attention": (None, False)},
    to_weft=to_weft,
    to_stock=to_stock,
    earlier_fault=other_windows(lambda c, i: every(2, 1)(i)),
    weights=[*OUTSIDE, *GATED_LAYER, *SANDWICH],
    heads=GENERIC_HEADS,
)
