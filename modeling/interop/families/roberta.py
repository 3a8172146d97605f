"""RoBERTa (https://huggingface.co/papers/1907.11692): BERT whose positions begin behind the padding id."""

from weft.interop.families.bert import CONFIG, EMBEDDINGS, FIELDS, LAYER, POOLER, classifier_dropout
from weft.interop.family import COMMON, Family, Head
from weft.interop.weights import module, modules

DROPOUT = classifier_dropout()
POOLED = {"classifier_pooling": "cls", "classifier_transform": "tanh"}
FAMILY = Family(
    model_type="roberta",
    same=(*(name for name in COMMON if name != "max_position_embeddings"), "hidden_act", "type_vocab_size"),
    fields=FIELDS,
    config=CONFIG,
    requires={"is_decoder": False, "add_cross_attention": False},
    to_weft=lambda c: {
        **DROPOUT["to_weft"](c),
        "position_offset": c.pad_token_id + 1,
        "max_position_embeddings": c.max_position_embeddings - c.pad_token_id - 1,
    },
    to_stock=lambda c: {
        **DROPOUT["to_stock"](c),
        "max_position_embeddings": c.max_position_embeddings + c.position_offset,
        "pad_token_id": c.position_offset - 1,
    },
    body="roberta.",
    weights=[*EMBEDDINGS, *LAYER],
    heads={
        "base": Head(dropped=[POOLER]),
        "masked": Head(
            [
                *module("lm_head.dense", "head_transform.dense"),
                *module("lm_head.layer_norm", "head_transform.norm"),
                *module("lm_head.decoder", "lm_head"),
            ]
        ),
        "sequence": Head(
            [*module("classifier.dense", "classifier_transform.dense"), *module("classifier.out_proj", "score")], POOLED
        ),
        "choice": Head(
            [*module("roberta.pooler.dense", "classifier_transform.dense"), *module("classifier", "choice_score")],
            POOLED,
        ),
        "tokens": Head(modules("classifier")),
        "question": Head(modules("qa_outputs")),
    },
    ignored=[r"position_ids$", r"token_type_ids$", r"^lm_head\.bias$"],  # a copy of the decoder's,
)
