"""Llama (https://huggingface.co/papers/2302.13971), of any size and rotary scaling: Weft's default without QK-norm."""

from weft.interop.family import COMMON, Family
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import modules

GATED_LAYER = modules(
    *(f"layers.{{i}}.self_attn.{name}_proj" for name in "qkvo"),
    *(f"layers.{{i}}.mlp.{name}_proj" for name in ("gate", "up", "down")),
)
PRE_NORMS = modules("layers.{i}.input_layernorm", "layers.{i}.post_attention_layernorm")
OUTSIDE = modules("embed_tokens", "norm")
SAME = (*COMMON, "num_key_value_heads", "head_dim", "hidden_act", "attention_bias", "attention_dropout")
FIELDS = {"norm_eps": "rms_norm_eps"}
FAMILY = Family(
    model_type="llama",
    same=(*SAME, "mlp_bias", "rope_parameters"),
    fields=FIELDS,
    config={"qk_norm": False},
    requires={"pretraining_tp": 1},
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS],
    heads=GENERIC_HEADS,
)
