"""Phi-3 and Phi-4 (https://huggingface.co/papers/2404.14219): Llama whose matrices are fused, with a window for all."""

from typing import Any

from transformers import PreTrainedConfig

from weft.interop.earlier import earlier_fields
from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.families.mistral import layer_types
from weft.interop.family import Family, flat_rope
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import QKV, module

ORIGINAL = "original_max_position_embeddings"
FUSED_MLP = module("layers.{i}.mlp.gate_up_proj", ["layers.{i}.mlp.gate_proj", "layers.{i}.mlp.up_proj"])


def _earlier(stock: PreTrainedConfig) -> dict[str, Any]:
    rope = stock.rope_parameters  # version 4 takes these three alone
    scaling = {"type": "longrope"} | {name: rope.get(name) for name in ("short_factor", "long_factor")}
    return earlier_fields(stock) | {"rope_scaling": scaling if rope["rope_type"] == "longrope" else None}


FAMILY = Family(
    model_type="phi3",
    same=(*(n for n in SAME if n not in ("head_dim", "attention_bias")), "rope_parameters", "sliding_window"),
    fields={**FIELDS, "hidden_dropout": "resid_pdrop"},
    config={"qk_norm": False},
    to_weft=layer_types,
    to_stock=lambda c: {
        "rope_parameters": flat_rope(c),
        ORIGINAL: flat_rope(c).get(ORIGINAL, c.max_position_embeddings),
    },
    earlier=_earlier,
    weights=[
        *(*OUTSIDE, *PRE_NORMS, *GATED_LAYER, *FUSED_MLP),
        *module("layers.{i}.self_attn.qkv_proj", QKV),
    ],
    heads=GENERIC_HEADS,
)
