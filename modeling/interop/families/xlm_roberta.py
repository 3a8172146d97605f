"""XLM-RoBERTa (https://huggingface.co/papers/1911.02116): RoBERTa under a name of its own."""

import dataclasses

from weft.interop.families import roberta

FAMILY = dataclasses.replace(
    roberta.FAMILY,
    model_type="xlm-roberta",
)
