"""OLMo 3 (https://huggingface.co/papers/2512.13961): OLMo 2, most layers of which see a window."""

import dataclasses
from typing import Any

from transformers import PreTrainedConfig

from weft.interop.earlier import FULL, SLIDING, earlier_fields, scaling_of
from weft.interop.families import olmo2
from weft.interop.family import flat_rope
from weft.interop.heads import GENERIC_HEADS


def _earlier(stock: PreTrainedConfig) -> dict[str, Any]:
    rope = stock.rope_parameters[FULL]
    return earlier_fields(stock) | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling_of(rope)}


def _earlier_fault(stock: PreTrainedConfig) -> str | None:
    plain = {"rope_type": "default", "rope_theta": stock.rope_parameters[FULL]["rope_theta"]}
    if SLIDING not in stock.layer_types or stock.rope_parameters[SLIDING] == plain:
        return None
    return "transformers 4 turns layers with a window by the frequency of the others, without a scaling"


FAMILY = dataclasses.replace(
    olmo2.FAMILY,
    model_type="olmo3",
    same=(*(n for n in olmo2.FAMILY.same if n != "rope_parameters"), "layer_types", "sliding_window"),
    to_weft=lambda c: {"rope_parameters": {kind: dict(c.rope_parameters[kind]) for kind in sorted(set(c.layer_types))}},
    to_stock=lambda c: {"rope_parameters": {kind: flat_rope(c, kind) for kind in (FULL, SLIDING)}},
    earlier=_earlier,
    earlier_fault=_earlier_fault,
    heads={name: head for name, head in GENERIC_HEADS.items() if name != "tokens"},  # transformers has no such class
)
