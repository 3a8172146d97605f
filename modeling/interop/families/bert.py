"""BERT (https://huggingface.co/papers/1810.04805)."""

from weft.interop.family import COMMON, Family, Head
from weft.interop.weights import module, modules

EMBEDDINGS = [
    *module("embeddings.word_embeddings", "embed_tokens"),
    *module("embeddings.position_embeddings", "position_embeddings"),
    *module("embeddings.token_type_embeddings", "token_type_embeddings"),
    *module("embeddings.LayerNorm", "embedding_norm"),
]
LAYER = [
    *module("encoder.layer.{i}.attention.self.query", "layers.{i}.self_attn.q_proj"),
    *module("encoder.layer.{i}.attention.self.key", "layers.{i}.self_attn.k_proj"),
    *module("encoder.layer.{i}.attention.self.value", "layers.{i}.self_attn.v_proj"),
    *module("encoder.layer.{i}.attention.output.dense", "layers.{i}.self_attn.o_proj"),
    *module("encoder.layer.{i}.attention.output.LayerNorm", "layers.{i}.attention_residual_norm"),
    *module("encoder.layer.{i}.intermediate.dense", "layers.{i}.mlp.up_proj"),
    *module("encoder.layer.{i}.output.dense", "layers.{i}.mlp.down_proj"),
    *module("encoder.layer.{i}.output.LayerNorm", "layers.{i}.mlp_residual_norm"),
]
PREDICTIONS = [
    *module("cls.predictions.transform.dense", "head_transform.dense"),
    *module("cls.predictions.transform.LayerNorm", "head_transform.norm"),
    *module("cls.predictions.decoder", "lm_head"),
]
CONFIG = {
    **{"position_embedding_type": "learned", "is_causal": False, "qk_norm": False, "mlp_gated": False},
    **{"norm_type": "layernorm", "norm_position": "post", "embedding_norm": True},
    **{"attention_bias": True, "mlp_bias": True, "lm_head_transform": True, "lm_head_bias": True},
}
FIELDS = {
    "norm_eps": "layer_norm_eps",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
# The output bias once more, which transformers reads only to tie it to the one above
BIAS_COPY = r"^cls\.predictions\.bias$"
POOLER = r"(^|\.)pooler\."


def classifier_dropout(stock: str = "classifier_dropout") -> dict:
    """The two directions of a dropout that is that of the hidden states where nothing is said."""
    return {
        "to_weft": lambda c: {
            "classifier_dropout": c.hidden_dropout_prob if getattr(c, stock) is None else getattr(c, stock)
        },
        "to_stock": lambda c: {stock: c.classifier_dropout},
    }


FAMILY = Family(
    model_type="bert",
    same=(*COMMON, "hidden_act", "type_vocab_size"),
    fields=FIELDS,
    config=CONFIG,
    requires={"is_decoder": False, "add_cross_attention": False},
    **classifier_dropout(),
    body="bert.",
    weights=[*EMBEDDINGS, *LAYER],
    heads={
        "base": Head(dropped=[POOLER]),
        "masked": Head(PREDICTIONS),
        "pretraining": Head(
            [
                *PREDICTIONS,
                *module("bert.pooler.dense", "pooler.dense"),
                *module("cls.seq_relationship", "seq_relationship"),
            ]
        ),
        "sequence": Head(
            [*module("bert.pooler.dense", "classifier_transform.dense"), *module("classifier", "score")],
            {"classifier_pooling": "cls", "classifier_transform": "tanh"},
        ),
        "choice": Head(
            [*module("bert.pooler.dense", "classifier_transform.dense"), *module("classifier", "choice_score")],
            {"classifier_pooling": "cls", "classifier_transform": "tanh"},
        ),
        "tokens": Head(modules("classifier")),
        "question": Head(modules("qa_outputs")),
    },
    ignored=[r"position_ids$", r"token_type_ids$", BIAS_COPY],
)
