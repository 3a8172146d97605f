"""Qwen3 (https://huggingface.co/papers/2505.09388): Weft's default as it is."""

from weft.interop.earlier import FULL, SLIDING, other_windows
from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.family import Family
from weft.interop.heads import GENERIC_HEADS
from weft.interop.weights import modules

HEAD_NORMS = modules("layers.{i}.self_attn.q_norm", "layers.{i}.self_attn.k_norm")
FAMILY = Family(
    model_type="qwen3",
    same=(*SAME, "rope_parameters", "layer_types", "sliding_window"),
    fields=FIELDS,
    config={"qk_norm": True},
    to_stock=lambda config: {"use_sliding_window": "sliding_attention" in config.layer_types},
    # before, the masks of all layers had the window
    earlier_fault=other_windows(lambda c, i: FULL if c.sliding_window is None else SLIDING),
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS, *HEAD_NORMS],
    heads=GENERIC_HEADS,
)
