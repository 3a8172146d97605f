"""SmolLM3 (https://huggingface.co/blog/smollm3): Llama, some layers of which have no positions."""

from weft.interop.families.llama import FIELDS, GATED_LAYER, OUTSIDE, PRE_NORMS, SAME
from weft.interop.family import Family
from weft.interop.heads import GENERIC_HEADS

FAMILY = Family(
    model_type="smollm3",
    same=(
        *(name for name in SAME if name != "head_dim"),
        "mlp_bias",
        "rope_parameters",
        "layer_types",
        "sliding_window",
    ),
    fields=FIELDS,
    config={"qk_norm": False},
    to_weft=lambda c: {"layers_without_positions": [i for i in range(c.num_hidden_layers) if not c.no_rope_layers[i]]},
    to_stock=lambda c: {
        "no_rope_layers": [int(i not in c.layers_without_positions) for i in range(c.num_hidden_layers)],
        "use_sliding_window": "sliding_attention" in c.layer_types,
    },
    weights=[*OUTSIDE, *GATED_LAYER, *PRE_NORMS],
    heads=GENERIC_HEADS,
)
