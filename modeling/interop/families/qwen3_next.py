"""Qwen3-Next (https://huggingface.co/Qwen/Qwen3-Next-80B-A3B-Instruct) without experts: Qwen3.5's layers, the DeltaNet
matrices of which lie in one another. What Qwen released has experts, and is refused."""

import dataclasses
from typing import Any

from transformers import PreTrainedConfig

from weft.interop.families import qwen3_5_text
from weft.interop.families.qwen3_5_text import SHARED, delta_weight
from weft.interop.family import InteropError
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import BY_KEY_HEAD


def _to_weft(stock: PreTrainedConfig) -> dict[str, Any]:
    every = stock.decoder_sparse_step if stock.num_experts else stock.num_hidden_layers + 1
    sparse = [i for i in range(stock.num_hidden_layers) if i not in stock.mlp_only_layers and (i + 1) % every == 0]
    if sparse:
        raise InteropError(f"layer {sparse[0]} chooses among {stock.num_experts} experts, and Weft's layers are dense.")
    return qwen3_5_text.to_weft(stock)


FAMILY = dataclasses.replace(
    qwen3_5_text.FAMILY,
    model_type="qwen3_next",
    to_weft=_to_weft,
    to_stock=lambda config: {
        **qwen3_5_text.FAMILY.to_stock(config),
        "mlp_only_layers": list(range(config.num_hidden_layers)),
    },
    weights=[
        *SHARED,
        delta_weight("in_proj_qkvz", "q", "k", "v", "g", layout=BY_KEY_HEAD),
        delta_weight("in_proj_ba", "b", "a", layout=BY_KEY_HEAD),
    ],
    heads=GENERIC_HEADS,
)
