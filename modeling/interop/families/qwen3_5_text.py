"""Qwen3.5 for text (https://huggingface.co/Qwen/Qwen3.5-9B), dense: layers of gated DeltaNet among attention layers of
Qwen3 whose outputs are gated element by element."""

from typing import Any

from transformers import PreTrainedConfig

from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.families.olmo_hybrid import DECAY, HYBRID, LINEAR
from weft.interop.families.qwen3 import HEAD_NORMS
from weft.interop.family import Family, flat_rope, whole_or_part
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import BY_HEAD, Weight, module, modules

DELTA = "layers.{i}.linear_attn."
QUERY = "layers.{i}.self_attn.q_proj"


def to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    """Rotary positions without what says how images are divided, which is nothing to text; and the norms' epsilon."""
    rope = {name: value for name, value in stock.rope_parameters.items() if not name.startswith("mrope_")}
    return {"rope_parameters": rope, "linear_norm_eps": stock.rms_norm_eps}


SHARED = [
    *(*OUTSIDE, *PRE_NORMS, *HEAD_NORMS, *DECAY, *(each for each in GATED_LAYER if QUERY not in each.stock)),
    *module(QUERY, [QUERY, "layers.{i}.self_attn.head_gate"], BY_HEAD),
    *modules(DELTA + "conv1d", DELTA + "norm"),
    *module(DELTA + "out_proj", DELTA + "o_proj"),
]


def delta_weight(stock: str, *parts: str, **layout: Any) -> Weight:
    """A matrix of the stock class's DeltaNet with those of Weft's in it."""
    return Weight(f"{DELTA}{stock}.weight", tuple(f"{DELTA}{part}_proj.weight" for part in parts), **layout)


FAMILY = Family(
    model_type="qwen3_5_text",
    same=(*(name for name in SAME if name not in ("hidden_act", "attention_bias")), *LINEAR, "layer_types"),
    fields=FIELDS,
    config={
        **{"qk_norm": True, "norm_offset": 1.0, "attention_gate": True, "attention_gate_over": "element"},
        "hidden_act": "silu",
    },
    requires={"hidden_act": "silu", "attention_bias": False},  # the convolution has the same activation
    to_weft=to_weft,
    to_stock=lambda config: {"rope_parameters": whole_or_part(flat_rope(config))},
    weights=[
        *SHARED,
        delta_weight("in_proj_qkv", "q", "k", "v"),
        delta_weight("in_proj_z", "g"),
        delta_weight("in_proj_b", "b"),
        delta_weight("in_proj_a", "a"),
    ],
    layer_types=HYBRID,
    heads={name: head for name, head in GENERIC_HEADS.items() if name != "tokens"},  # transformers has no such class
)
