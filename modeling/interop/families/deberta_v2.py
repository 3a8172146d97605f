"""DeBERTa version 2 and 3 (https://huggingface.co/papers/2006.03654, https://huggingface.co/papers/2111.09543)."""

from typing import Any

from transformers import PreTrainedConfig

from weft.interop.families.bert import BIAS_COPY, CONFIG, FIELDS, LAYER, PREDICTIONS
from weft.interop.family import COMMON, Family, Head
from weft.interop.weights import Weight, module, modules


def _stock_name(weight: Weight) -> Weight:
    name = weight.stock
    for kind in ("query", "key", "value"):
        name = name.replace(f"self.{kind}.", f"self.{kind}_proj.")
    return Weight(name, weight.weft, weight.layout)


def _to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    largest = stock.max_relative_positions
    kinds = stock.pos_att_type or []
    return {
        "max_relative_positions": stock.max_position_embeddings if largest < 1 else largest,
        "position_buckets": max(0, getattr(stock, "position_buckets", -1)),
        "pos_att_type": sorted(kinds.split("|") if isinstance(kinds, str) else kinds),
        "norm_rel_ebd": "layer_norm" in getattr(stock, "norm_rel_ebd", "none"),
    }


POOLED = [*module("pooler.dense", "classifier_transform.dense")]
FAMILY = Family(
    model_type="deberta-v2",
    same=(*COMMON, "hidden_act", "type_vocab_size"),
    fields={**FIELDS, "classifier_dropout": "pooler_dropout"},
    config={**CONFIG, "position_embedding_type": "disentangled"},
    requires={
        **{"relative_attention": True, "position_biased_input": False, "share_att_key": True, "legacy": True},
        **{"conv_kernel_size": 0},
    },
    to_weft=_to_weft,
    to_stock=lambda c: {
        "max_relative_positions": c.max_relative_positions,
        "position_buckets": c.position_buckets or -1,
        "pos_att_type": list(c.pos_att_type),
        "norm_rel_ebd": "layer_norm" if c.norm_rel_ebd else "none",
    },
    body="deberta.",
    weights=[
        *module("embeddings.word_embeddings", "embed_tokens"),
        *module("embeddings.token_type_embeddings", "token_type_embeddings"),
        *module("embeddings.LayerNorm", "embedding_norm"),
        *map(_stock_name, LAYER),
        *module("encoder.rel_embeddings", "relative_embeddings.table"),
        *module("encoder.LayerNorm", "relative_embeddings.norm"),
    ],
    heads={
        "base": Head(),
        "masked": Head(PREDICTIONS),
        "sequence": Head(
            [*POOLED, *module("classifier", "score")], {"classifier_pooling": "cls", "classifier_transform": "gelu"}
        ),
        "choice": Head(
            [*POOLED, *module("classifier", "choice_score")],
            {"classifier_pooling": "cls", "classifier_transform": "gelu"},
        ),
        "tokens": Head(modules("classifier")),
        "question": Head(modules("qa_outputs")),
    },
    ignored=[r"position_ids$", BIAS_COPY],
)
