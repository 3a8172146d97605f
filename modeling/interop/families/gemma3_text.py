"""Gemma 3 for text (https://huggingface.co/papers/2503.19786): Gemma 2 with QK-norm and two rotary sets."""

import dataclasses

from weft.interop.families import gemma2
from weft.interop.families.qwen3 import HEAD_NORMS
from weft.interop.heads import GENERIC_HEADS

FAMILY = dataclasses.replace(
    gemma2.FAMILY,
    model_type="gemma3_text",
    config={**gemma2.FAMILY.config, "qk_norm": True},
    weights=[*gemma2.FAMILY.weights, *HEAD_NORMS],
    heads={name: head for name, head in GENERIC_HEADS.items() if name != "tokens"},  # transformers has no such class
)
