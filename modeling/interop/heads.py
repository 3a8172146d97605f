"""Heads that many families have alike, under the names that transformers gives them."""

from weft.interop.family import Head
from weft.interop.weights import module, modules

LM_HEAD = Head(modules("lm_head"))
SCORE = Head(modules("score"), {"classifier_bias": False, "classifier_pooling": "last"})
# Of decoders that share transformers' generic heads (Llama's kind). Their class for questions names its body otherwise
# than all others, and is not converted.
GENERIC_HEADS = {"base": Head(), "causal": LM_HEAD, "sequence": SCORE, "tokens": Head(module("score", "classifier"))}
# Of the decoders before them.
DECODER_HEADS = {
    "base": Head(),
    "causal": LM_HEAD,
    "sequence": SCORE,
    "tokens": Head(modules("classifier")),
    "question": Head(modules("qa_outputs")),
}
