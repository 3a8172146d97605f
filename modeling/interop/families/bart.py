"""BART (https://huggingface.co/papers/1910.13461)."""

import math
from typing import Any

from transformers import PreTrainedConfig

from weft import WeftConfig
from weft.interop.family import Family, Head, InteropError
from weft.interop.weights import ONE_ROW, Weight, module, modules


def to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    """What the encoder and the decoder must have in common, and the scale of the embeddings."""
    for name in ("attention_heads", "ffn_dim"):
        two = getattr(stock, f"encoder_{name}"), getattr(stock, f"decoder_{name}")
        if two[0] != two[1]:
            raise InteropError(
                f"encoder_{name}={two[0]} and decoder_{name}={two[1]} differ, and Weft's encoder and decoder have one "
                "shape."
            )
    return {"embedding_scale": math.sqrt(stock.d_model) if stock.scale_embedding else 1.0}


def to_stock(config: WeftConfig) -> dict[str, Any]:
    """The same shape twice."""
    return {
        "decoder_attention_heads": config.num_attention_heads,
        "decoder_ffn_dim": config.intermediate_size,
        "scale_embedding": config.embedding_scale != 1,
    }


def side(name: str) -> list[Weight]:
    """A stack, "encoder" or "decoder", but for its positions."""
    layer, own = f"{name}.layers.{{i}}", f"{name}.layers.{{i}}"
    attentions = {"self_attn": ("self_attn", "attention"), "encoder_attn": ("cross_attn", "cross")}
    weights = [*module(f"{name}.embed_tokens", "encoder.embed_tokens")]
    for stock, (weft, norm) in attentions.items():
        for theirs, ours in (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("out_proj", "o_proj")):
            weights += module(f"{layer}.{stock}.{theirs}", f"{own}.{weft}.{ours}")
        weights += module(f"{layer}.{stock}_layer_norm", f"{own}.{norm}_residual_norm")
    return [
        *weights,
        *module(f"{layer}.fc1", f"{own}.mlp.up_proj"),
        *module(f"{layer}.fc2", f"{own}.mlp.down_proj"),
        *module(f"{layer}.final_layer_norm", f"{own}.mlp_residual_norm"),
    ]


FIELDS = {
    "hidden_size": "d_model",
    "intermediate_size": "encoder_ffn_dim",
    "num_hidden_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "num_attention_heads": "encoder_attention_heads",
    "hidden_act": "activation_function",
    "hidden_dropout": "dropout",
    "initializer_range": "init_std",
}
SAME = (
    "vocab_size",
    "max_position_embeddings",
    "attention_dropout",
    "tie_word_embeddings",
    *("decoder_start_token_id", "pad_token_id", "bos_token_id", "eos_token_id"),
)
CONFIG = {
    **{"is_encoder_decoder": True, "norm_type": "layernorm", "norm_position": "post", "norm_eps": 1e-5},
    **{"qk_norm": False, "mlp_gated": False, "attention_bias": True, "mlp_bias": True, "lm_head_bias": True},
}
LM_HEAD = Head([*modules("lm_head"), Weight("final_logits_bias", ("lm_head.bias",), ONE_ROW)])

FAMILY = Family(
    model_type="bart",
    same=(*SAME, "classifier_dropout"),
    fields=FIELDS,
    config={**CONFIG, "position_embedding_type": "learned", "position_offset": 2, "embedding_norm": True},
    to_weft=to_weft,
    to_stock=to_stock,
    weights=[
        Weight("shared.weight", ("encoder.embed_tokens.weight",)),
        *side("encoder"),
        *side("decoder"),
        *(
            weight
            for name in ("encoder", "decoder")
            for weight in (
                *module(f"{name}.embed_positions", f"{name}.position_embeddings"),
                *module(f"{name}.layernorm_embedding", f"{name}.embedding_norm"),
            )
        ),
    ],
    heads={
        "base": Head(),
        "seq2seq": LM_HEAD,
        "sequence": Head(
            [
                *module("classification_head.dense", "classifier_transform.dense"),
                *module("classification_head.out_proj", "score"),
            ],
            {"classifier_pooling": "last", "classifier_transform": "tanh"},
        ),
        "question": Head(modules("qa_outputs")),
    },
)
