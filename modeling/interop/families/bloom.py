"""BLOOM (https://huggingface.co/papers/2211.05100)."""

from weft.interop.family import Family
from weft.interop.heads import DECODER_HEADS
from weft.interop.weights import BY_HEAD, QKV, module

FAMILY = Family(
    model_type="bloom",
    same=(
        "vocab_size",
        "hidden_size",
        "tie_word_embeddings",
        "initializer_range",
        "hidden_dropout",
        "attention_dropout",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
    ),
    fields={"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "norm_eps": "layer_norm_epsilon"},
    config={
        **{"position_embedding_type": "alibi", "norm_type": "layernorm", "qk_norm": False, "embedding_norm": True},
        **{"mlp_gated": False, "hidden_act": "gelu_pytorch_tanh", "attention_bias": True, "mlp_bias": True},
    },
    requires={"apply_residual_connection_post_layernorm": False, "pretraining_tp": 1, "slow_but_exact": False},
    to_weft=lambda c: {"intermediate_size": 4 * c.hidden_size},
    body="transformer.",
    weights=[
        *module("word_embeddings", "embed_tokens"),
        *module("word_embeddings_layernorm", "embedding_norm"),
        *module("h.{i}.input_layernorm", "layers.{i}.input_layernorm"),
        *module("h.{i}.self_attention.query_key_value", QKV, BY_HEAD),
        *module("h.{i}.self_attention.dense", "layers.{i}.self_attn.o_proj"),
        *module("h.{i}.post_attention_layernorm", "layers.{i}.post_attention_layernorm"),
        *module("h.{i}.mlp.dense_h_to_4h", "layers.{i}.mlp.up_proj"),
        *module("h.{i}.mlp.dense_4h_to_h", "layers.{i}.mlp.down_proj"),
        *module("ln_f", "norm"),
    ],
    heads=DECODER_HEADS,
)
