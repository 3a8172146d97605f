"""GPT-2 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)."""

from weft.interop.family import Family
from weft.interop.heads import DECODER_HEADS
from weft.interop.weights import COLUMNS, QKV, module

FAMILY = Family(
    model_type="gpt2",
    same=("vocab_size", "tie_word_embeddings", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id"),
    fields={
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "hidden_act": "activation_function",
        "norm_eps": "layer_norm_epsilon",
        "hidden_dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
    },
    config={
        **{"position_embedding_type": "learned", "norm_type": "layernorm", "qk_norm": False, "mlp_gated": False},
        **{"attention_bias": True, "mlp_bias": True},
    },
    requires={"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    to_weft=lambda c: {
        "intermediate_size": c.n_inner or 4 * c.n_embd,
        "attention_scale": None if c.scale_attn_weights else 1.0,
    },
    to_stock=lambda c: {
        **{"n_inner": c.intermediate_size, "scale_attn_weights": c.attention_scale is None},
        **{"embd_pdrop": c.hidden_dropout},
    },
    body="transformer.",
    weights=[
        *module("wte", "embed_tokens"),
        *module("wpe", "position_embeddings"),
        *module("h.{i}.ln_1", "layers.{i}.input_layernorm"),
        *module("h.{i}.attn.c_attn", QKV, COLUMNS),
        *module("h.{i}.attn.c_proj", "layers.{i}.self_attn.o_proj", COLUMNS),
        *module("h.{i}.ln_2", "layers.{i}.post_attention_layernorm"),
        *module("h.{i}.mlp.c_fc", "layers.{i}.mlp.up_proj", COLUMNS),
        *module("h.{i}.mlp.c_proj", "layers.{i}.mlp.down_proj", COLUMNS),
        *module("ln_f", "norm"),
    ],
    heads=DECODER_HEADS,
    ignored=[r"\.attn\.(bias|masked_bias)$"],
)
