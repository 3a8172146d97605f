"""Marian (https://huggingface.co/papers/1804.00344), as in the OPUS-MT models."""

from weft.interop.families.bart import CONFIG, FIELDS, LM_HEAD, SAME, side, to_stock, to_weft
from weft.interop.family import Family, Head
from weft.interop.weights import Weight

FAMILY = Family(
    model_type="marian",
    same=SAME,
    fields={**FIELDS},
    config={**CONFIG, "position_embedding_type": "sinusoidal"},
    requires={"share_encoder_decoder_embeddings": True},
    to_weft=to_weft,
    to_stock=lambda c: {**to_stock(c), "decoder_vocab_size": c.vocab_size},
    weights=[Weight("shared.weight", ("encoder.embed_tokens.weight",)), *side("encoder"), *side("decoder")],
    heads={"base": Head(), "seq2seq": LM_HEAD},
    ignored=[r"embed_positions\.weight$"],
)
