"""WeftConfig: every architectural choice of a Weft model in one typed, validated table."""

import copy
from typing import Any

import transformers
from packaging.version import Version

NEEDED = "5.17"
if Version(transformers.__version__) < Version(NEEDED):  # what is imported below is not in it
    raise ImportError(
        f"a Weft checkpoint needs transformers {NEEDED} or newer, and this is {transformers.__version__}: upgrade it, "
        "or write the checkpoint as a stock model, which transformers 4 reads, with Weft's `convert.py export` (llama, "
        "qwen3, bert ...)."
    )

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from .configuration_checks import STATE_TYPES, ConfigChecks

# Every class that a checkpoint can be loaded as. The whole table is written into every saved config, so that
# a folder saved by one head loads as any other; modeling_weft.py and the package's __init__ read it too.
HEADS = ("CausalLM", "MaskedLM", "PreTraining", "SequenceClassification", "TokenClassification")
HEADS += ("QuestionAnswering", "MultipleChoice")
AUTO_MAP = {"AutoConfig": "configuration_weft.WeftConfig", "AutoModel": "modeling_weft.WeftModel"}
AUTO_MAP |= {f"AutoModelFor{head}": f"modeling_weft.WeftFor{head}" for head in HEADS}
AUTO_MAP["AutoModelForSeq2SeqLM"] = "modeling_weft.WeftForConditionalGeneration"
# Two of them stand for one class of several, by the config.
AUTO_MAP |= {f"AutoModelFor{name}": f"modeling_weft.WeftAuto{name}" for name in ("PreTraining", "TextEncoding")}

# how tensor parallelism divides a stack; some readers take the first name that a module's begins with
TP_PLAN = {f"layers.*.self_attn.{name}": "colwise" for name in ("q_proj", "k_proj", "v_proj", "head_gate")}
TP_PLAN |= {f"layers.*.mlp.{name}_proj": "colwise" for name in ("gate", "up")}
TP_PLAN |= {f"layers.*.{name}_proj": "rowwise" for name in ("self_attn.o", "mlp.down")}
TP_PLAN |= {f"layers.*.self_attn{of}": "replicated_with_grad_allreduce" for of in (".q_norm", ".k_norm", "")}
# how a pipeline divides it
PP_PLAN = {"embed_tokens": (["input_ids"], ["inputs_embeds"]), "norm": (["hidden_states"], ["hidden_states"])}
PP_PLAN["layers"] = (["hidden_states", "attention_mask"], ["hidden_states"])


@strict
class WeftConfig(ConfigChecks, PreTrainedConfig):
    """Shape of a Weft model. The default is the plain modern decoder: RMSNorm, gated SiLU, rotary positions, grouped
    queries, QK-norm and no biases, which a stock Qwen3 (or, without `qk_norm`, Llama) also computes.
    Fields:
        vocab_size, hidden_size: number of token ids with rows in embedding and head; width of the residual stream.
        intermediate_size: width inside the feed-forward; the default is 8/3 of hidden_size, rounded up to a multiple of
            64, which makes a gated feed-forward as large as a plain one of 4 times hidden_size.
        num_hidden_layers, num_attention_heads: number of layers; number of query heads.
        num_key_value_heads: number of key and value heads, shared by groups of query heads (GQA,
            https://huggingface.co/papers/2305.13245); the default is num_attention_heads.
        head_dim: width of one head; the default is hidden_size / num_attention_heads.
        hidden_act: activation of the feed-forward, a name known to transformers (silu, gelu, relu ...).
        max_position_embeddings: longest input, in tokens, that the model is meant for.
        initializer_range: standard deviation of the initial weights; the two projections that write to the residual
            stream get initializer_range / sqrt(2 * num_hidden_layers), as in GPT-2.
        norm_type: "rmsnorm", or "layernorm".
        norm_affine, norm_bias: whether norms scale what they have normalised; whether LayerNorm shifts it too.
        norm_offset: added to the scale of RMSNorm, whose weights then start at 1 - norm_offset (1.0 in Gemma).
        norm_eps: added to the mean square inside every norm.
        norm_position: what is normalised: "pre", each sublayer's input (GPT-2, Llama); "post", the sum after it (BERT);
            "sandwich", input and output (Gemma 2); "output", its output only (OLMo 2).
        linear_norm_position: the same of linear_attention layers; the default is norm_position ("pre" in Olmo Hybrid).
        first_norm: whether the first layer's attention has a norm of its input (not in ModernBERT).
        embedding_norm, embedding_scale: normalise what the layers are given (BERT, BLOOM); factor of token embeddings.
        residual_scale: factor of what each sublayer adds to the residual stream (Granite).
        parallel_residual: attention and feed-forward read the same input and are added together (GPT-NeoX).
        mlp_gated: three matrices, of which one gates (SwiGLU, GeGLU), or two.
        qk_norm: normalise queries and keys before the rotation (https://huggingface.co/papers/2302.05442).
        qk_norm_over: "head", each head by itself (Qwen3), or "width", all heads together (OLMo 2).
        attention_gate: each head's output is multiplied by a sigmoid of a map of the layer's input
            (https://huggingface.co/papers/2505.06708): lower loss, but no stock class computes it by "head".
        attention_gate_over: one gate for each "head", or for each "element" of its output (Qwen3-Next).
        value_residual: layers behind the first mix its values into their own, each by two learned weights
            (https://huggingface.co/papers/2410.17897): lower loss, but no stock class computes it.
        attention_scale: factor of the scores; None: 1 / sqrt(head_dim). 1.0 in T5.
        attn_logit_softcapping: scores are squashed to lie between this and its negative (Gemma 2); not on sdpa.
        final_logit_softcapping: the same of the head's logits.
        attention_bias, mlp_bias: biases in the attention projections; in those of the feed-forward.
        attention_out_bias: a bias in the attention's output projection; the default is attention_bias (false in Qwen2).
        attention_dropout: share of attention weights dropped in training.
        hidden_dropout: share of activations dropped in training after the embedding and before each residual sum.
        is_causal: whether a token sees itself and what came before, or all, in the base model and fine-tuning heads;
            WeftForCausalLM is causal, WeftForMaskedLM and WeftForPreTraining are not, whatever it says.
        masked_next_token: a masked token is predicted from the position before it, as a causal model predicts, so that
            one head serves both (GPT-BERT, https://huggingface.co/papers/2410.24159). The logits at i stay those of i.
        position_embedding_type: "rope" (rotary, RoFormer), "learned" (BERT, GPT-2), "sinusoidal" (the first
            Transformer), "none", "alibi" (https://huggingface.co/papers/2108.12409), "t5" (relative buckets,
            https://huggingface.co/papers/1910.10683), or "disentangled" (https://huggingface.co/papers/2006.03654).
        layers_without_positions: numbers of layers that have no rotary positions or bias (SmolLM3).
        rope_parameters: rotary positions as transformers writes them: {"rope_type": ..., "rope_theta": ...,
            "factor": ..., "partial_rotary_factor": ...}; or one such dict for each layer type.
        position_interleaved: rotary pairs are (2i, 2i + 1) (RoFormer, GPT-J) instead of (i, i + half); sines and
            cosines alternate (the original) instead of all sines first (Marian).
        position_offset: rows of the learned table before that of the first position (2 in OPT and BART).
        relative_attention_num_buckets: of "t5": how many numbers each head has.
        relative_attention_max_distance: of "t5": the distance from which on all share one number.
        relative_attention_per_layer: of "t5": each layer has numbers of its own.
        position_buckets: of "disentangled": distances beyond half as many share logarithmic buckets; 0: none do.
        max_relative_positions: of "disentangled": the largest distance; the default is max_position_embeddings.
        pos_att_type: of "disentangled": "c2p" and "p2c", what is compared with the vectors of distances: queries, keys.
        norm_rel_ebd: of "disentangled": normalise these vectors.
        layer_types: for each layer what mixes its tokens: "full_attention", "sliding_attention" (the default if
            sliding_window is given), "linear_attention" (gated DeltaNet, https://huggingface.co/papers/2412.06464) or
            "recurrent". The last two keep a state instead of keys and values, and have no positions.
        sliding_window: tokens, itself included, that a sliding_attention layer sees; without is_causal to each side.
        linear_num_key_heads, linear_key_head_dim: of "linear_attention": heads of queries and keys (default: half of
            num_attention_heads); the width of each (default: head_dim).
        linear_num_value_heads, linear_value_head_dim: heads of values there, several of which may share a key head
            (default: linear_num_key_heads); the width of each (default: twice linear_key_head_dim).
        linear_conv_kernel_dim: tokens, itself included, that a token's queries, keys and values are made of.
        linear_allow_neg_eigval: a token may turn what the state says of its key into the opposite, not only replace it
            (https://huggingface.co/papers/2411.12537).
        linear_norm_eps: of the norm of each of these heads; the default is norm_eps.
        recurrent_cell, recurrent_hidden_size: of "recurrent": "lstm", "gru" (https://huggingface.co/papers/1406.1078)
            or "rnn" (Elman's); width of its state (default: hidden_size), of both directions together.
        type_vocab_size: number of token types (segments), or 0; where no token_type_ids are given all are of type 0.
        lm_head_transform: a dense map, the activation and a norm before the head's output matrix, as in BERT.
        lm_head_transform_bias, lm_head_bias: a bias in that map (default: lm_head_bias); in the head's output matrix.
        lm_head_scale: factor of what the head is given (1 / sqrt(hidden_size) in T5 v1.0).
        classifier_dropout: share of activations dropped in training before the output matrix of a fine-tuning head.
        classifier_pooling: which hidden state heads of whole documents read: "cls" (the first token's, as in BERT; not
            with is_causal), "mean" (over all tokens) or "last" (as in Llama). None: "last" with is_causal, else "mean".
        classifier_transform: activation of a dense map, if any, before heads of whole documents (BERT: "tanh"), which
            are sequence classification and multiple choice.
        classifier_transform_norm, classifier_transform_bias: a norm behind that map; a bias in it.
        classifier_transform_tokens: the same map also before the heads that read every token (ModernBERT).
        classifier_bias: a bias in the output matrix of sequence and token classification.
        is_encoder_decoder: an encoder of num_hidden_layers and a causal decoder that attends to it.
        num_decoder_layers, decoder_start_token_id: layers of it (default: num_hidden_layers); what it begins with.
        tie_word_embeddings: one matrix for the embedding and the head.
        use_cache: return keys and values, so that generation does not compute them again.
        pad_token_id, bos_token_id, eos_token_id: id of padding; of a document's first token; of its last (or more)."""

    model_type = "weft"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"d_model": "hidden_size"}  # the name that exporters of encoder-decoders read

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
    norm_type: str = "rmsnorm"
    norm_affine: bool = True
    norm_bias: bool = True
    norm_offset: float | int = 0.0
    norm_eps: float = 1e-6
    norm_position: str = "pre"
    linear_norm_position: str | None = None
    first_norm: bool = True
    embedding_norm: bool = False
    embedding_scale: float | int = 1.0
    residual_scale: float | int = 1.0
    parallel_residual: bool = False
    mlp_gated: bool = True
    qk_norm: bool = True
    qk_norm_over: str = "head"
    attention_gate: bool = False
    attention_gate_over: str = "head"
    value_residual: bool = False
    attention_scale: float | int | None = None
    attn_logit_softcapping: float | int | None = None
    final_logit_softcapping: float | int | None = None
    attention_bias: bool = False
    attention_out_bias: bool | None = None
    mlp_bias: bool = False
    attention_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0
    is_causal: bool = True
    masked_next_token: bool = False
    position_embedding_type: str = "rope"
    layers_without_positions: list[int] | tuple[int, ...] = ()
    rope_parameters: dict | None = None
    position_interleaved: bool = False
    position_offset: int = 0
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    relative_attention_per_layer: bool = False
    position_buckets: int = 0
    max_relative_positions: int | None = None
    pos_att_type: list[str] | tuple[str, ...] = ("c2p", "p2c")
    norm_rel_ebd: bool = True
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    linear_num_key_heads: int | None = None
    linear_key_head_dim: int | None = None
    linear_num_value_heads: int | None = None
    linear_value_head_dim: int | None = None
    linear_conv_kernel_dim: int = 4
    linear_allow_neg_eigval: bool = False
    linear_norm_eps: float | None = None
    recurrent_cell: str = "lstm"
    recurrent_hidden_size: int | None = None
    type_vocab_size: int = 0
    lm_head_transform: bool = False
    lm_head_transform_bias: bool | None = None
    lm_head_bias: bool = False
    lm_head_scale: float | int = 1.0
    classifier_dropout: float | int = 0.0
    classifier_pooling: str | None = None
    classifier_transform: str | None = None
    classifier_transform_norm: bool = False
    classifier_transform_bias: bool = True
    classifier_transform_tokens: bool = False
    classifier_bias: bool = True
    is_encoder_decoder: bool = False
    num_decoder_layers: int | None = None
    decoder_start_token_id: int | None = None
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
        if self.num_attention_heads:
            self.derive_state_sizes()
        if self.attention_out_bias is None:
            self.attention_out_bias = self.attention_bias
        if self.linear_norm_position is None:
            self.linear_norm_position = self.norm_position
        if self.max_relative_positions is None:
            self.max_relative_positions = self.max_position_embeddings
        if self.lm_head_transform_bias is None:
            self.lm_head_transform_bias = self.lm_head_bias
        if self.is_encoder_decoder and self.num_decoder_layers is None:
            self.num_decoder_layers = self.num_hidden_layers
        self.layers_without_positions, self.pos_att_type = list(self.layers_without_positions), list(self.pos_att_type)
        self.base_model_tp_plan = self.make_tp_plan()
        self.base_model_pp_plan = PP_PLAN if self.fits_pipeline() else None
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)
        by_type = self.rope_parameters_by_layer_type()
        if "all" not in by_type:
            self.rope_parameters = by_type  # some versions of transformers put defaults for all beside them

    def derive_state_sizes(self) -> None:
        """Fill in what is not given of layers without keys and values: linear attention has about as many weights as
        attention whose keys have all heads."""
        if self.linear_num_key_heads is None:
            self.linear_num_key_heads = max(1, self.num_attention_heads // 2)
        if self.linear_num_value_heads is None:
            self.linear_num_value_heads = self.linear_num_key_heads
        if self.linear_key_head_dim is None:
            self.linear_key_head_dim = self.head_dim
        if self.linear_value_head_dim is None:
            self.linear_value_head_dim = 2 * self.linear_key_head_dim
        if self.linear_norm_eps is None:
            self.linear_norm_eps = self.norm_eps
        if self.recurrent_hidden_size is None:
            self.recurrent_hidden_size = self.hidden_size

    @property
    def attention_layers(self) -> list[int]:
        """The numbers of the layers that have keys and values."""
        types = self.layer_types[: self.num_hidden_layers]
        return [index for index, layer_type in enumerate(types) if layer_type not in STATE_TYPES]

    @property
    def has_states(self) -> bool:
        """Whether a layer keeps a state in their place."""
        return bool(set(STATE_TYPES) & set(self.layer_types))

    def make_tp_plan(self) -> dict[str, str] | None:
        """How tensor parallelism divides the model: not at all, where all heads share a bias or a norm."""
        share_norm = self.qk_norm and self.qk_norm_over == "width"
        if self.position_embedding_type in ("alibi", "t5") or share_norm:
            return None
        absent = ("gate_proj",) * (not self.mlp_gated) + ("head_gate",) * (not self.attention_gate)
        absent += ("_norm",) * (not self.qk_norm) + ("self_attn",) * (not self.value_residual)  # for value_mix alone
        plan = {name: how for name, how in TP_PLAN.items() if not name.endswith(absent)}
        stacks = ("encoder.", "decoder.") if self.is_encoder_decoder else ("",)
        return {stack + name: how for stack in stacks for name, how in plan.items()}

    def fits_pipeline(self) -> bool:
        """Whether later stages need nothing but the hidden states, and what the first one adds is not added again."""
        more = self.embedding_norm or self.type_vocab_size or self.lm_head_transform or self.is_encoder_decoder
        plain = self.is_causal and not (more or self.value_residual or self.has_states)
        return plain and self.position_embedding_type in ("rope", "none")

    def of_stack(self, is_decoder: bool) -> "WeftConfig":
        """The config of one of the two stacks of an encoder-decoder."""
        config = copy.copy(self)
        config.is_encoder_decoder, config.is_causal = False, is_decoder
        if is_decoder and self.num_decoder_layers != self.num_hidden_layers:
            config.layer_types = self.layer_types[:1] * self.num_decoder_layers  # the number is checked against them
            config.num_hidden_layers = self.num_decoder_layers
        config.base_model_tp_plan = config.make_tp_plan()
        return config

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> "WeftConfig":
        """What caches are made for: the decoder, where there are two stacks that differ."""
        if not decoder or encoder:
            return self
        differs = self.is_encoder_decoder and self.num_decoder_layers != self.num_hidden_layers
        config = self.of_stack(is_decoder=True) if differs else self
        if "recurrent" in config.layer_types:  # transformers knows one kind of layer with states
            config = copy.copy(config)
            config.layer_types = ["linear_attention" if each == "recurrent" else each for each in config.layer_types]
        return config

    def rope_parameters_by_layer_type(self) -> dict[str, dict[str, Any]]:
        """Each set of rotary parameters by the layer type that it is for; "all" where there is one set."""
        by_type = {name: one for name, one in self.rope_parameters.items() if isinstance(one, dict)}
        return by_type or {"all": self.rope_parameters}
