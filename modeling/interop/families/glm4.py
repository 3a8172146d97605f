"""GLM-4-0414 (https://huggingface.co/zai-org/GLM-4-9B-0414): GLM-4 with norms of outputs too."""

import dataclasses

from weft.interop.families import glm
from weft.interop.weights import module

FAMILY = dataclasses.replace(
    glm.FAMILY,
    model_type="glm4",
    config={**glm.FAMILY.config, "norm_position": "sandwich"},
    weights=[
        *glm.FAMILY.weights,
        *module("layers.{i}.post_self_attn_layernorm", "layers.{i}.attention_output_norm"),
        *module("layers.{i}.post_mlp_layernorm", "layers.{i}.mlp_output_norm"),
    ],
)
