"""Olmo Hybrid (https://huggingface.co/allenai/Olmo-Hybrid-7B): layers of gated DeltaNet, normalised as in Llama, among
attention layers of OLMo 2, with rotary positions or without."""

import torch
from transformers import PreTrainedConfig

from weft.interop.earlier import FULL
from weft.interop.families import olmo2
from weft.interop.families.llama import FIELDS, PRE_NORMS, SAME
from weft.interop.family import Family, flat_rope
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import Weight, module, modules

LINEAR = ("conv_kernel_dim", "num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim")
LINEAR = tuple(f"linear_{name}" for name in LINEAR)
DECAY = [Weight(name, (name,)) for name in ("layers.{i}.linear_attn.A_log", "layers.{i}.linear_attn.dt_bias")]
HYBRID = (FULL, "linear_attention")
CONVOLUTION = "linear_attn.conv1d.weight"


def _released(tensors: dict[str, torch.Tensor], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Convolutions of queries, keys and values apart; transformers would cut them into three parts of one size, which
    only transformers can read."""
    keys = config.linear_num_key_heads * config.linear_key_head_dim
    values = config.linear_num_value_heads * config.linear_value_head_dim
    apart = {}
    for name in [name for name in tensors if name.endswith(CONVOLUTION)]:
        parts = zip("qkv", tensors[name].split([keys, keys, values]), strict=True)
        apart |= {name.replace("conv1d", f"{part}_conv1d"): tensor.contiguous() for part, tensor in parts}
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(CONVOLUTION)} | apart


FAMILY = Family(
    model_type="olmo_hybrid",
    same=(*(n for n in SAME if n not in ("head_dim", "hidden_act")), *LINEAR, "linear_allow_neg_eigval", "layer_types"),
    fields=FIELDS,
    config={
        **{**olmo2.FAMILY.config, "linear_norm_position": "pre"},
        **{"hidden_act": "silu", "linear_norm_eps": 1e-5},
    },
    requires={"hidden_act": "silu"},  # which the convolution has too
    to_weft=lambda c: (
        {"position_embedding_type": "none"}
        if c.rope_parameters["rope_theta"] is None
        else {"rope_parameters": dict(c.rope_parameters)}
    ),
    to_stock=lambda c: {
        "rope_parameters": {"rope_type": "default", "rope_theta": None}
        if c.position_embedding_type == "none"
        else flat_rope(c)
    },
    weights=[
        *olmo2.FAMILY.weights,
        *PRE_NORMS,
        *modules(*(f"layers.{{i}}.linear_attn.{name}_proj" for name in "qkvgbao"), "layers.{i}.linear_attn.conv1d"),
        *DECAY,
        *module("layers.{i}.linear_attn.o_norm", "layers.{i}.linear_attn.norm"),
    ],
    layer_types=HYBRID,
    released=_released,
    heads={"base": GENERIC_HEADS["base"], "causal": GENERIC_HEADS["causal"]},
)
