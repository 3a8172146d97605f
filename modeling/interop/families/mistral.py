"""Mistral (https://huggingface.co/papers/2310.06825): Llama whose layers see a window."""

from typing import Any

from transformers import PreTrainedConfig

from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.family import Family
from weft.interop.heads import GENERIC_HEADS


def layer_types(stock: PreTrainedConfig) -> dict[str, Any]:
    """All layers see a window, or none."""
    kind = "full_attention" if stock.sliding_window is None else "sliding_attention"
    return {"layer_types": [kind] * stock.num_hidden_layers}


FAMILY = Family(
    model_type="mistral",
    same=(*(name for name in SAME if name != "attention_bias"), "rope_parameters", "sliding_window"),
    fields=FIELDS,
    config={"qk_norm": False},
    to_weft=layer_types,
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS],
    heads=GENERIC_HEADS,
)
