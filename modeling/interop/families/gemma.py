"""Gemma (https://huggingface.co/papers/2403.08295): Llama with zero-centred norms and scaled embeddings."""

from weft.interop.families import gemma2
from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.family import Family
from weft.interop.heads import GENERIC_HEADS

FAMILY = Family(
    model_type="gemma",
    same=(*SAME, "rope_parameters"),
    fields=FIELDS,
    config={"qk_norm": False, "norm_offset": 1.0},
    requires=gemma2.FAMILY.requires,
    to_weft=gemma2.embedding_scale,
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS],
    heads=GENERIC_HEADS,
)
