"""GLM-4 (https://huggingface.co/papers/2406.12793): half of each head turned, in neighbouring pairs."""

from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.families.phi3 import FUSED_MLP
from weft.interop.family import Family, flat_rope, whole_or_part
from weft.interop.heads import GENERIC_HEADS

FAMILY = Family(
    model_type="glm",
    same=(*SAME, "rope_parameters"),
    fields=FIELDS,
    config={"qk_norm": False, "attention_out_bias": False, "position_interleaved": True},
    to_stock=lambda config: {"rope_parameters": whole_or_part(flat_rope(config))},
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS, *FUSED_MLP],
    heads=GENERIC_HEADS,
)
