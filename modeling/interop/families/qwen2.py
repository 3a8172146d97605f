"""Qwen2 and Qwen2.5 (https://huggingface.co/papers/2407.10671): Llama with biases of queries, keys and values."""

import dataclasses

from weft.interop.families import qwen3
from weft.interop.families.llama import GATED_LAYER, OUTSIDE, PRE_NORMS

FAMILY = dataclasses.replace(
    qwen3.FAMILY,
    model_type="qwen2",
    same=tuple(name for name in qwen3.FAMILY.same if name not in ("head_dim", "attention_bias")),
    config={"qk_norm": False, "attention_bias": True, "attention_out_bias": False},
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS],
)
