"""Gemma 3 for text (https://huggingface.co/papers/2503.19786): Gemma 2 with QK-norm and two rotary sets."""

import dataclasses
from typing import Any

from transformers import PreTrainedConfig

from weft.interop.earlier import FULL, SLIDING, earlier_fields, every, interval_of, other_windows, scaling_of
from weft.interop.families import gemma2
from weft.interop.families.qwen3 import HEAD_NORMS
from weft.interop.heads import GENERIC_HEADS


def _pattern(layer_types: list[str]) -> tuple[int, int]:
    number = interval_of(layer_types, lambda n: n - 1)
    return number, number - 1


def _earlier(stock: PreTrainedConfig) -> dict[str, Any]:
    rope = stock.rope_parameters
    return earlier_fields(stock) | {
        "rope_theta": rope[FULL]["rope_theta"],
        "rope_local_base_freq": rope[SLIDING]["rope_theta"],
        "rope_scaling": scaling_of(rope[FULL]),
        "sliding_window_pattern": _pattern(stock.layer_types)[0],
    }


FAMILY = dataclasses.replace(
    gemma2.FAMILY,
    model_type="gemma3_text",
    earlier=_earlier,
    earlier_fault=other_windows(lambda c, i: every(*_pattern(c.layer_types))(i)),
    config={**gemma2.FAMILY.config, "qk_norm": True},
    weights=[*gemma2.FAMILY.weights, *HEAD_NORMS],
    heads={name: head for name, head in GENERIC_HEADS.items() if name != "tokens"},  # transformers has no such class
)
