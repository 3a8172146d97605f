"""ModernBERT (https://huggingface.co/papers/2412.13663)."""

from typing import Any

from transformers import PreTrainedConfig

from weft.interop.earlier import FULL, SLIDING, earlier_fields, every, interval_of, other_windows
from weft.interop.family import COMMON, Family, Head, InteropError
from weft.interop.weights import QKV, module


def _to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    if stock.classifier_activation != stock.hidden_activation:
        raise InteropError("the heads have an activation of their own (classifier_activation), which Weft's have not.")
    return {
        "sliding_window": stock.sliding_window,
        "lm_head_transform_bias": stock.classifier_bias,
        "classifier_transform": stock.classifier_activation,
        "classifier_transform_bias": stock.classifier_bias,
    }


def _to_stock(config: Any) -> dict[str, Any]:
    window = config.sliding_window or 64
    rope = config.rope_parameters_by_layer_type()
    transform = config.classifier_transform is not None
    return {
        "local_attention": 2 * window,
        "rope_parameters": {name: rope.get(name, rope.get("all")) for name in ("full_attention", "sliding_attention")},
        "classifier_bias": config.classifier_transform_bias if transform else config.lm_head_transform_bias,
        "classifier_activation": config.hidden_act,
    }


def _earlier(stock: PreTrainedConfig) -> dict[str, Any]:
    return earlier_fields(stock) | {
        "global_rope_theta": stock.rope_parameters[FULL]["rope_theta"],
        "local_rope_theta": stock.rope_parameters[SLIDING]["rope_theta"],
        "global_attn_every_n_layers": interval_of(stock.layer_types, lambda n: 0),
    }


HEAD = [*module("head.dense", "classifier_transform.dense"), *module("head.norm", "classifier_transform.norm")]
FAMILY = Family(
    model_type="modernbert",
    same=(
        *COMMON,
        "norm_eps",
        "norm_bias",
        "attention_bias",
        "mlp_bias",
        "attention_dropout",
        "layer_types",
        "rope_parameters",
        "classifier_dropout",
        "classifier_pooling",
    ),
    fields={"hidden_act": "hidden_activation", "hidden_dropout": "mlp_dropout", "lm_head_bias": "decoder_bias"},
    config={
        **{"is_causal": False, "qk_norm": False, "norm_type": "layernorm", "embedding_norm": True, "first_norm": False},
        **{"lm_head_transform": True, "classifier_transform_norm": True, "classifier_transform_tokens": True},
    },
    requires={"sparse_prediction": False},
    to_weft=_to_weft,
    to_stock=_to_stock,
    earlier=_earlier,
    earlier_fault=other_windows(lambda c, i: every(interval_of(c.layer_types, lambda n: 0), 0)(i), since="5"),
    weights=[
        *module("embeddings.tok_embeddings", "embed_tokens"),
        *module("embeddings.norm", "embedding_norm"),
        *module("layers.{i}.attn_norm", "layers.{i}.input_layernorm"),
        *module("layers.{i}.attn.Wqkv", QKV),
        *module("layers.{i}.attn.Wo", "layers.{i}.self_attn.o_proj"),
        *module("layers.{i}.mlp_norm", "layers.{i}.post_attention_layernorm"),
        *module("layers.{i}.mlp.Wi", ["layers.{i}.mlp.gate_proj", "layers.{i}.mlp.up_proj"]),
        *module("layers.{i}.mlp.Wo", "layers.{i}.mlp.down_proj"),
        *module("final_norm", "norm"),
    ],
    heads={
        "base": Head(),
        "masked": Head(
            [
                *module("head.dense", "head_transform.dense"),
                *module("head.norm", "head_transform.norm"),
                *module("decoder", "lm_head"),
            ]
        ),
        "sequence": Head([*HEAD, *module("classifier", "score")]),
        "choice": Head([*HEAD, *module("classifier", "choice_score")]),
        "tokens": Head([*HEAD, *module("classifier")]),
        "question": Head([*HEAD, *module("classifier", "qa_outputs")]),
    },
)
