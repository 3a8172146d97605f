"""GPT-NeoX and Pythia (https://huggingface.co/papers/2204.06745)."""

from weft.interop.earlier import earlier_fields
from weft.interop.family import COMMON, Family, Head
from weft.interop.heads import DECODER_HEADS
from weft.interop.weights import BY_HEAD, QKV, module, modules

NAMED_OTHERWISE = ("rope_theta", "partial_rotary_factor")
FAMILY = Family(
    model_type="gpt_neox",
    same=(*COMMON, "hidden_act", "attention_bias", "hidden_dropout", "attention_dropout", "rope_parameters"),
    fields={"norm_eps": "layer_norm_eps", "parallel_residual": "use_parallel_residual"},
    config={"norm_type": "layernorm", "qk_norm": False, "mlp_gated": False, "mlp_bias": True},
    earlier=lambda c: {
        **{name: earlier_fields(c)[name] for name in earlier_fields(c) if name not in NAMED_OTHERWISE},
        "rotary_emb_base": c.rope_parameters["rope_theta"],
        "rotary_pct": c.rope_parameters["partial_rotary_factor"],
    },
    body="gpt_neox.",
    weights=[
        *module("embed_in", "embed_tokens"),
        *module("layers.{i}.input_layernorm"),
        *module("layers.{i}.post_attention_layernorm"),
        *module("layers.{i}.attention.query_key_value", QKV, BY_HEAD),
        *module("layers.{i}.attention.dense", "layers.{i}.self_attn.o_proj"),
        *module("layers.{i}.mlp.dense_h_to_4h", "layers.{i}.mlp.up_proj"),
        *module("layers.{i}.mlp.dense_4h_to_h", "layers.{i}.mlp.down_proj"),
        *module("final_layer_norm", "norm"),
    ],
    heads={**DECODER_HEADS, "causal": Head([*modules("lm_head"), *module("embed_out", "lm_head")])},
    ignored=[r"\.attention\.(bias|masked_bias)$", r"inv_freq$"],
)
