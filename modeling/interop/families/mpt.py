"""MPT (https://www.databricks.com/blog/mpt-7b)."""

from typing import Any

from transformers import PreTrainedConfig

from weft.interop.family import Family, InteropError
from weft.interop.heads import DECODER_HEADS
from weft.interop.weights import QKV, module

ATTENTION = {"alibi": True, "clip_qkv": None, "qk_ln": False, "prefix_lm": False, "alibi_bias_max": 8}


def _to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    attention = stock.attn_config
    for name, value in ATTENTION.items():
        found = getattr(attention, name)
        if found != value and (found or value):
            raise InteropError(f"attn_config has {name}={found!r}, and Weft's layers are those of {name}={value!r}.")
    return {
        "intermediate_size": 4 * stock.d_model,
        "attention_scale": attention.softmax_scale,
        "attention_dropout": attention.attn_pdrop,
    }


FAMILY = Family(
    model_type="mpt",
    same=("vocab_size", "tie_word_embeddings", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id"),
    fields={
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "max_position_embeddings": "max_seq_len",
        "norm_eps": "layer_norm_epsilon",
        "hidden_dropout": "resid_pdrop",
    },
    config={
        **{"position_embedding_type": "alibi", "norm_type": "layernorm", "norm_bias": False, "qk_norm": False},
        **{"mlp_gated": False, "hidden_act": "gelu"},
    },
    requires={"logit_scale": None, "no_bias": True, "expansion_ratio": 4},
    to_weft=_to_weft,
    to_stock=lambda c: {
        "attn_config": {**ATTENTION, "softmax_scale": c.attention_scale, "attn_pdrop": c.attention_dropout}
    },
    body="transformer.",
    weights=[
        *module("wte", "embed_tokens"),
        *module("blocks.{i}.norm_1", "layers.{i}.input_layernorm"),
        *module("blocks.{i}.attn.Wqkv", QKV),
        *module("blocks.{i}.attn.out_proj", "layers.{i}.self_attn.o_proj"),
        *module("blocks.{i}.norm_2", "layers.{i}.post_attention_layernorm"),
        *module("blocks.{i}.ffn.up_proj", "layers.{i}.mlp.up_proj"),
        *module("blocks.{i}.ffn.down_proj", "layers.{i}.mlp.down_proj"),
        *module("norm_f", "norm"),
    ],
    heads=DECODER_HEADS,
)
