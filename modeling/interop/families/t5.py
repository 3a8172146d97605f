"""T5, versions 1.0 and 1.1 (https://huggingface.co/papers/1910.10683)."""

from typing import Any

from transformers import PreTrainedConfig

from weft import WeftConfig
from weft.interop.family import Family, Head
from weft.interop.weights import Weight, module, modules


def _to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    start = getattr(stock, "decoder_start_token_id", None)
    return {
        "mlp_gated": stock.is_gated_act,
        "hidden_act": stock.dense_act_fn,
        "lm_head_scale": stock.d_model**-0.5 if stock.scale_decoder_outputs else 1.0,
        "decoder_start_token_id": stock.pad_token_id if start is None else start,
    }


def _to_stock(config: WeftConfig) -> dict[str, Any]:
    activation = "gelu" if config.mlp_gated and config.hidden_act == "gelu_new" else config.hidden_act
    return {
        "feed_forward_proj": ("gated-" if config.mlp_gated else "") + activation,
        "scale_decoder_outputs": config.lm_head_scale != 1,
        "decoder_start_token_id": config.decoder_start_token_id,
    }


def _earlier_fault(stock: PreTrainedConfig) -> str | None:
    if not stock.scale_decoder_outputs or stock.tie_word_embeddings:
        return None
    return (
        "transformers 4 leaves out the factor before the head (scale_decoder_outputs), since the head is no embedding"
    )


def _side(name: str, feed_forward: int) -> list[Weight]:
    block, own = f"{name}.block.{{i}}.layer", f"{name}.layers.{{i}}"
    weights = [
        *module(f"{name}.embed_tokens", "encoder.embed_tokens"),
        *module(f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias", f"{name}.position_bias.table"),
        *module(f"{block}.0.layer_norm", f"{own}.input_layernorm"),
        *module(f"{block}.{feed_forward}.layer_norm", f"{own}.post_attention_layernorm"),
        *module(f"{name}.final_layer_norm", f"{name}.norm"),
    ]
    for letter in "qkvo":
        weights += module(f"{block}.0.SelfAttention.{letter}", f"{own}.self_attn.{letter}_proj")
    for theirs, ours in (("wi", "up"), ("wi_1", "up"), ("wi_0", "gate"), ("wo", "down")):
        weights += module(f"{block}.{feed_forward}.DenseReluDense.{theirs}", f"{own}.mlp.{ours}_proj")
    if name == "decoder":
        weights += module(f"{block}.1.layer_norm", f"{own}.cross_input_norm")
        for letter in "qkvo":
            weights += module(f"{block}.1.EncDecAttention.{letter}", f"{own}.cross_attn.{letter}_proj")
    return weights


FAMILY = Family(
    model_type="t5",
    same=(
        "vocab_size",
        "num_decoder_layers",
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
        "classifier_dropout",
        "tie_word_embeddings",
        "pad_token_id",
        "eos_token_id",
    ),
    fields={
        "hidden_size": "d_model",
        "head_dim": "d_kv",
        "intermediate_size": "d_ff",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_dropout": "dropout_rate",
        "attention_dropout": "dropout_rate",
        "norm_eps": "layer_norm_epsilon",
    },
    config={**{"is_encoder_decoder": True, "position_embedding_type": "t5", "qk_norm": False, "attention_scale": 1.0}},
    # transformers 4 scales what the head is given if it is the embedding, and only then
    tied=lambda config: config.tie_word_embeddings and config.lm_head_scale != 1,
    earlier_fault=_earlier_fault,
    to_weft=_to_weft,
    to_stock=_to_stock,
    body="",
    weights=[Weight("shared.weight", ("encoder.embed_tokens.weight",)), *_side("encoder", 1), *_side("decoder", 2)],
    heads={"base": Head(), "seq2seq": Head(modules("lm_head"))},
)
