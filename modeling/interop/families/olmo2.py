"""OLMo 2 (https://huggingface.co/papers/2501.00656): norms of outputs only, QK-norm over all heads."""

from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, SAME
from weft.interop.families.qwen3 import HEAD_NORMS
from weft.interop.family import Family
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import module

FAMILY = Family(
    model_type="olmo2",
    same=(*(name for name in SAME if name != "head_dim"), "rope_parameters"),
    fields=FIELDS,
    config={"qk_norm": True, "qk_norm_over": "width", "norm_position": "output"},
    weights=[
        *OUTSIDE,
        *GATED_LAYER,
        *HEAD_NORMS,
        *module("layers.{i}.post_attention_layernorm", "layers.{i}.attention_output_norm"),
        *module("layers.{i}.post_feedforward_layernorm", "layers.{i}.mlp_output_norm"),
    ],
    heads={"base": GENERIC_HEADS["base"], "causal": GENERIC_HEADS["causal"]},
)
