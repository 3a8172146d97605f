"""WeftConfig: every architectural choice of a Weft model in one typed, validated table."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

# Every class that a checkpoint can be loaded as. The whole table is written into every saved config, so that
# a folder saved by one head loads as any other; modeling_weft.py and the package's __init__ read it too.
AUTO_MAP = {
    "AutoConfig": "configuration_weft.WeftConfig",
    "AutoModel": "modeling_weft.WeftModel",
    "AutoModelForCausalLM": "modeling_weft.WeftForCausalLM",
    "AutoModelForMaskedLM": "modeling_weft.WeftForMaskedLM",
    "AutoModelForPreTraining": "modeling_weft.WeftForPreTraining",
    "AutoModelForSequenceClassification": "modeling_weft.WeftForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_weft.WeftForTokenClassification",
    "AutoModelForQuestionAnswering": "modeling_weft.WeftForQuestionAnswering",
    "AutoModelForMultipleChoice": "modeling_weft.WeftForMultipleChoice",
}

ROPE_TYPES = ("default", *ROPE_INIT_FUNCTIONS)
LAYER_TYPES = ("full_attention", "sliding_attention")
POOLINGS = ("cls", "mean", "last")


@strict
class WeftConfig(PreTrainedConfig):
    """Shape of a Weft model. The default is the plain modern decoder: RMSNorm, gated SiLU, rotary positions,
    grouped queries, QK-norm and no biases, which a stock Qwen3 (or, without `qk_norm`, Llama) also computes.

    Fields:
        vocab_size: number of token ids the embedding and the head have rows for.
        hidden_size: width of the residual stream.
        intermediate_size: width inside the feed-forward; the default is 8/3 of hidden_size, rounded up to a
            multiple of 64, which makes a gated feed-forward as large as a plain one of 4 times hidden_size.
        num_hidden_layers: number of layers.
        num_attention_heads: number of query heads.
        num_key_value_heads: number of key and value heads, shared by groups of query heads (GQA,
            https://huggingface.co/papers/2305.13245); the default is num_attention_heads.
        head_dim: width of one head; the default is hidden_size / num_attention_heads.
        hidden_act: activation of the feed-forward, a name known to transformers (silu, gelu, relu ...).
        max_position_embeddings: longest input, in tokens, that the model is meant for.
        initializer_range: standard deviation of the initial weights; the two projections that write to the
            residual stream get initializer_range / sqrt(2 * num_hidden_layers), as in GPT-2.
        norm_eps: added to the mean square inside every RMSNorm.
        qk_norm: normalise each query and key head before the rotation
            (https://huggingface.co/papers/2302.05442).
        attention_bias: biases in the four attention projections.
        mlp_bias: biases in the feed-forward projections.
        attention_dropout: share of attention weights dropped in training.
        hidden_dropout: share of activations dropped in training after the embedding and before each residual sum.
        is_causal: direction of attention of this checkpoint, which the base model and the fine-tuning heads follow:
            True (each token sees itself and what came before) or False (all tokens). WeftForCausalLM is causal,
            WeftForMaskedLM and WeftForPreTraining are not, whatever it says.
        masked_next_token: a masked token is predicted from the position before it, as a causal model predicts, so that
            one head serves both (GPT-BERT, https://huggingface.co/papers/2410.24159). WeftForMaskedLM then shifts its
            logits itself: those at i always predict token i.
        rope_parameters: rotary positions as transformers writes them: {"rope_type": ..., "rope_theta": ...,
            "factor": ..., "partial_rotary_factor": ...}.
        layer_types: for each layer "full_attention" or "sliding_attention"; the default is full_attention,
            or sliding_attention where a sliding_window is given.
        sliding_window: number of tokens, itself included, that a sliding_attention layer sees; without is_causal,
            so many tokens to each side.
        type_vocab_size: number of token types (segments) with an embedding of their own; 0: none. Where it is not 0 and
            no token_type_ids are given, all tokens are of type 0.
        lm_head_transform: a dense map, the activation and a norm before the head's output matrix, as in BERT.
        lm_head_bias: biases in the head: in its output matrix and in the dense map.
        classifier_dropout: share of activations dropped in training before the output matrix of a fine-tuning head.
        classifier_pooling: which hidden state stands for a document in sequence classification and multiple choice:
            "cls" (its first token's, as in BERT; not with is_causal), "mean" (the mean over its tokens) or "last" (its
            last token's, as in GPT-2 and Llama). None: "last" with is_causal, else "mean".
        tie_word_embeddings: one matrix for the embedding and the head.
        use_cache: return keys and values, so that generation does not compute them again.
        pad_token_id: id of padding.
        bos_token_id: id that starts a document.
        eos_token_id: id (or ids) that end a document.
    """

    model_type = "weft"
    keys_to_ignore_at_inference = ["past_key_values"]

    base_model_tp_plan = {
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.q_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.k_norm": "replicated_with_grad_allreduce",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }
    base_model_pp_plan = {
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "norm": (["hidden_states"], ["hidden_states"]),
    }

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int | None = None
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    norm_eps: float = 1e-6
    qk_norm: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0
    is_causal: bool = True
    masked_next_token: bool = False
    rope_parameters: dict | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    type_vocab_size: int = 0
    lm_head_transform: bool = False
    lm_head_bias: bool = False
    classifier_dropout: float | int = 0.0
    classifier_pooling: str | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = -(-self.hidden_size * 8 // (3 * 64)) * 64
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None and self.num_attention_heads:  # none at all is refused by validate_shape
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads="
                    f"{self.num_attention_heads}: change one of them, or give head_dim."
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.layer_types is None:
            layer_type = "full_attention" if self.sliding_window is None else "sliding_attention"
            self.layer_types = [layer_type] * self.num_hidden_layers
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)

    def validate_shape(self) -> None:
        """Refuse sizes that do not fit together.

        Raises:
            ValueError: a size below 1, a key-value head count that does not divide the query heads, an odd
                head_dim, a norm_eps or initializer_range that is not positive, or a dropout outside [0, 1).
        """
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed: it must be at least 1.")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads={self.num_key_value_heads} must divide num_attention_heads="
                f"{self.num_attention_heads}: each key-value head serves the same number of query heads."
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: rotary positions turn pairs, give an even one.")
        if self.type_vocab_size < 0:
            raise ValueError(f"type_vocab_size={self.type_vocab_size} is not allowed: it must be at least 0.")
        for name in ("norm_eps", "initializer_range"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed: it must be above 0.")
        for name in ("attention_dropout", "hidden_dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed: it must be in [0, 1).")

    def validate_choices(self) -> None:
        """Refuse names that nothing implements.

        Raises:
            ValueError: an unknown activation, rope_type, layer type or pooling, rotary parameters for each layer type
                or for more than the whole head, a sliding layer without a window, or a first token that stands for a
                document of which it has seen nothing.
        """
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is unknown: choose one of {', '.join(sorted(ACT2FN))}.")
        if any(isinstance(value, dict) for value in self.rope_parameters.values()):
            raise ValueError(
                f"rope_parameters has a dict for each of {', '.join(self.rope_parameters)}: give one dict for "
                "all layers."
            )
        rope_type = self.rope_parameters.get("rope_type", "default")
        if rope_type not in ROPE_TYPES:
            raise ValueError(
                f"rope_parameters has rope_type {rope_type!r}, which is unknown: choose one of {', '.join(ROPE_TYPES)}."
            )
        share = self.rope_parameters.get("partial_rotary_factor", 1.0)
        if not 0 < share <= 1:
            raise ValueError(f"rope_parameters has partial_rotary_factor {share}: it must be above 0 and at most 1.")
        unknown = sorted(set(self.layer_types) - set(LAYER_TYPES))
        if unknown:
            raise ValueError(f"layer_types names {', '.join(unknown)}: choose among {' and '.join(LAYER_TYPES)}.")
        if "sliding_attention" in self.layer_types and (self.sliding_window is None or self.sliding_window < 1):
            raise ValueError(
                f"layer_types has sliding_attention but sliding_window={self.sliding_window}: give the window's "
                "length in tokens, at least 1, or make every layer full_attention."
            )
        if self.classifier_pooling is not None and self.classifier_pooling not in POOLINGS:
            raise ValueError(
                f"classifier_pooling={self.classifier_pooling!r} is unknown: choose one of {', '.join(POOLINGS)}, or "
                "None for the one that fits is_causal."
            )
        if self.classifier_pooling == "cls" and self.is_causal:
            raise ValueError(
                "classifier_pooling='cls' cannot work with is_causal=True, where the first token has seen no other: "
                "choose 'last' or 'mean'."
            )
