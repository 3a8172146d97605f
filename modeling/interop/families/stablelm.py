"""StableLM (https://huggingface.co/papers/2402.17834): Llama with LayerNorm, a quarter of each head turned."""

from weft.interop.families.llama import GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.family import Family, flat_rope, whole_or_part
from weft.interop.heads import GENERIC_HEADS

FAMILY = Family(
    model_type="stablelm",
    same=(*(n for n in SAME if n not in ("head_dim", "attention_bias")), "hidden_dropout", "rope_parameters"),
    fields={"norm_eps": "layer_norm_eps", "attention_bias": "use_qkv_bias"},
    config={"norm_type": "layernorm", "qk_norm": False, "attention_out_bias": False},
    requires={"qk_layernorm": False, "use_parallel_residual": False},
    to_stock=lambda config: {"rope_parameters": whole_or_part(flat_rope(config))},
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS],
    heads=GENERIC_HEADS,
)
