"""OPT (https://huggingface.co/papers/2205.01068)."""

from typing import Any

from transformers import PreTrainedConfig

from weft.interop.family import COMMON, Family, InteropError
from weft.interop.heads import DECODER_HEADS
from weft.interop.weights import Weight, module

NORMS = {
    "pre": ("input_layernorm", "post_attention_layernorm"),
    "post": ("attention_residual_norm", "mlp_residual_norm"),
}


def _to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    if stock.word_embed_proj_dim not in (None, stock.hidden_size):
        raise InteropError(
            f"word_embed_proj_dim={stock.word_embed_proj_dim} differs from hidden_size={stock.hidden_size}, and Weft's "
            "embeddings are as wide as its layers."
        )
    return {
        "attention_bias": stock.enable_bias,
        "mlp_bias": stock.enable_bias,
        "norm_position": "pre" if stock.do_layer_norm_before else "post",
    }


def _norms(place: str) -> list[Weight]:
    return [
        *module("decoder.layers.{i}.self_attn_layer_norm", f"layers.{{i}}.{NORMS[place][0]}"),
        *module("decoder.layers.{i}.final_layer_norm", f"layers.{{i}}.{NORMS[place][1]}"),
    ]


FAMILY = Family(
    model_type="opt",
    same=(*(name for name in COMMON if name not in ("intermediate_size", "initializer_range")), "attention_dropout"),
    fields={
        "intermediate_size": "ffn_dim",
        "hidden_act": "activation_function",
        "hidden_dropout": "dropout",
        "norm_affine": "layer_norm_elementwise_affine",
        "initializer_range": "init_std",
    },
    config={
        **{"position_embedding_type": "learned", "position_offset": 2, "norm_type": "layernorm", "norm_eps": 1e-5},
        **{"qk_norm": False, "mlp_gated": False},
    },
    requires={"_remove_final_layer_norm": False},
    to_weft=_to_weft,
    to_stock=lambda c: {
        "enable_bias": c.attention_bias,
        "do_layer_norm_before": c.norm_position == "pre",
        "word_embed_proj_dim": c.hidden_size,
    },
    weights=[
        *module("decoder.embed_tokens", "embed_tokens"),
        *module("decoder.embed_positions", "position_embeddings"),
        *(
            weight
            for name, own in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "o"))
            for weight in module(f"decoder.layers.{{i}}.self_attn.{name}", f"layers.{{i}}.self_attn.{own}_proj")
        ),
        *module("decoder.layers.{i}.fc1", "layers.{i}.mlp.up_proj"),
        *module("decoder.layers.{i}.fc2", "layers.{i}.mlp.down_proj"),
        *_norms("pre"),
        *_norms("post"),
        *module("decoder.final_layer_norm", "norm"),
    ],
    heads={name: head for name, head in DECODER_HEADS.items() if name != "tokens"},  # transformers has no such class
)
