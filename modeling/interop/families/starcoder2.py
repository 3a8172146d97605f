"""StarCoder 2 (https://huggingface.co/papers/2402.19173): LayerNorm, biases and a plain feed-forward, else Mistral."""

from weft.interop.families.llama import GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.families.mistral import layer_types
from weft.interop.family import Family
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import module

FAMILY = Family(
    model_type="starcoder2",
    same=(*(n for n in SAME if n not in ("head_dim", "attention_bias")), "rope_parameters", "sliding_window"),
    fields={
        **{"norm_eps": "norm_epsilon", "attention_bias": "use_bias", "mlp_bias": "use_bias"},
        "hidden_dropout": "residual_dropout",
    },
    config={"norm_type": "layernorm", "qk_norm": False, "mlp_gated": False},
    to_weft=layer_types,
    to_stock=lambda config: {"embedding_dropout": config.hidden_dropout},
    weights=[
        *(*OUTSIDE, *GATED_LAYER, *PRE_NORMS),
        *module("layers.{i}.mlp.c_fc", "layers.{i}.mlp.up_proj"),
        *module("layers.{i}.mlp.c_proj", "layers.{i}.mlp.down_proj"),
    ],
    heads=GENERIC_HEADS,
)
