"""Granite 3 and 4, dense (https://huggingface.co/ibm-granite/granite-3.3-8b-base): Llama with scales of its own."""

from typing import Any

from weft import WeftConfig
from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.family import Family
from weft.interop.heads import GENERIC_HEADS


def _to_stock(config: WeftConfig) -> dict[str, Any]:
    scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    divisor = 1 / config.lm_head_scale  # whole, in every checkpoint so far
    whole = round(divisor) if abs(divisor - round(divisor)) < 1e-6 else divisor
    return {"attention_multiplier": scale, "logits_scaling": whole}


FAMILY = Family(
    model_type="granite",
    same=(*(name for name in SAME if name != "head_dim"), "mlp_bias", "rope_parameters"),
    fields={
        **{**FIELDS, "embedding_scale": "embedding_multiplier", "residual_scale": "residual_multiplier"},
        "attention_scale": "attention_multiplier",
    },
    config={"qk_norm": False},
    to_weft=lambda config: {"lm_head_scale": 1 / config.logits_scaling},
    to_stock=_to_stock,
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS],
    heads={"base": GENERIC_HEADS["base"], "causal": GENERIC_HEADS["causal"]},
)
