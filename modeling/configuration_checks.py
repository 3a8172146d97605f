"""What a WeftConfig may be: names, numbers and combinations, refused with a sentence before a model is built."""

from transformers import configuration_utils
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

ROPE_TYPES = ("default", *ROPE_INIT_FUNCTIONS)
STATE_TYPES = ("linear_attention", "recurrent")  # layers that keep a state in the place of keys and values
LAYER_TYPES = ("full_attention", "sliding_attention", *STATE_TYPES)
# transformers refuses names that it does not know, also where its Trainer reads a config as one of any model
if "recurrent" not in configuration_utils.ALLOWED_ATTN_LAYER_TYPES:
    configuration_utils.ALLOWED_ATTN_LAYER_TYPES += ("recurrent",)
# field -> what it may be
CHOICES = {
    "position_embedding_type": ("rope", "learned", "sinusoidal", "alibi", "t5", "disentangled", "none"),
    "norm_type": ("rmsnorm", "layernorm"),
    **dict.fromkeys(("norm_position", "linear_norm_position"), ("pre", "post", "sandwich", "output")),
    "qk_norm_over": ("head", "width"),
    "attention_gate_over": ("head", "element"),
    "classifier_pooling": ("cls", "mean", "last", None),
    "recurrent_cell": ("lstm", "gru", "rnn"),
}
# what must be at least 1; field -> the least that it may be; what must be above 0
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
SIZES += ("num_key_value_heads", "max_position_embeddings", "num_decoder_layers", "max_relative_positions")
SIZES += ("linear_conv_kernel_dim", "linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim")
SIZES += ("linear_value_head_dim", "recurrent_hidden_size")
LEAST = dict.fromkeys(SIZES, 1) | dict.fromkeys(("type_vocab_size", "position_offset", "position_buckets"), 0)
LEAST["relative_attention_num_buckets"] = 4
POSITIVE = ("norm_eps", "initializer_range", "embedding_scale", "residual_scale", "lm_head_scale", "attention_scale")
POSITIVE += ("attn_logit_softcapping", "final_logit_softcapping", "linear_norm_eps")


class ConfigChecks:
    """The validators of `WeftConfig`, which are run when one is made, loaded or saved."""

    def validate_shape(self) -> None:
        """Refuse, with a ValueError, numbers out of range or that do not fit each other."""
        for name, least in LEAST.items():
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed: it must be at least {least}.")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads={self.num_key_value_heads} must divide num_attention_heads="
                f"{self.num_attention_heads}: each key-value head serves the same number of query heads."
            )
        if self.linear_num_value_heads % self.linear_num_key_heads:
            raise ValueError(
                f"linear_num_key_heads={self.linear_num_key_heads} must divide linear_num_value_heads="
                f"{self.linear_num_value_heads}: each key head serves the same number of value heads."
            )
        if self.head_dim % 2 and self.position_embedding_type == "rope":
            raise ValueError(f"head_dim={self.head_dim} is odd: rotary positions turn pairs, give an even one.")
        if self.position_buckets == 1:
            raise ValueError("position_buckets=1 is not allowed: give 0, for a vector of each distance, or at least 2.")
        near = self.relative_attention_num_buckets // (2 if self.is_causal else 4)
        # kind of positions -> the field of the largest distance, what it must exceed for buckets to be shared
        reaches = {"t5": ("relative_attention_max_distance", near)}
        if self.position_buckets:
            reaches["disentangled"] = ("max_relative_positions", self.position_buckets // 2 + 1)
        reach, near = reaches.get(self.position_embedding_type, ("max_relative_positions", 0))
        if getattr(self, reach) <= near:
            raise ValueError(f"{reach}={getattr(self, reach)}: it must be above {near}, up to which each has a bucket.")
        for name in POSITIVE:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed: it must be above 0.")
        for name in ("attention_dropout", "hidden_dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not allowed: it must be in [0, 1).")

    def validate_choices(self) -> None:
        """Refuse, with a ValueError, names that nothing implements, and layers that do not exist."""
        activations = sorted(ACT2FN)
        choices = {**CHOICES, "hidden_act": activations, "classifier_transform": [*activations, None]}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(map(str, allowed))
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown: choose one of {known}.")
        for name, parameters in self.rope_parameters_by_layer_type().items():
            place = "rope_parameters" if name == "all" else f"rope_parameters[{name!r}]"
            rope_type = parameters.get("rope_type", "default")
            if rope_type not in ROPE_TYPES:
                known = ", ".join(ROPE_TYPES)
                raise ValueError(f"{place} has rope_type {rope_type!r}, which is unknown: choose one of {known}.")
            share = parameters.get("partial_rotary_factor", 1.0)
            if not 0 < share <= 1:
                raise ValueError(f"{place} has partial_rotary_factor {share}: it must be above 0 and at most 1.")
            untold = set() if name == "all" else set(self.layer_types) - {*self.rope_parameters, *STATE_TYPES}
            if untold:
                missing = ", ".join(sorted(untold))
                raise ValueError(f"rope_parameters has no dict for {missing}: give one for each layer type.")
        unknown = sorted(set(self.layer_types) - set(LAYER_TYPES))
        if unknown:
            raise ValueError(f"layer_types names {', '.join(unknown)}: choose among {', '.join(LAYER_TYPES)}.")
        if "sliding_attention" in self.layer_types and (self.sliding_window is None or self.sliding_window < 1):
            raise ValueError(f"sliding_attention needs a sliding_window of at least 1, not {self.sliding_window}.")
        if set(self.pos_att_type) - {"c2p", "p2c"} or len(set(self.pos_att_type)) < len(self.pos_att_type):
            raise ValueError(f"pos_att_type={self.pos_att_type}: choose among c2p and p2c, each once.")
        outside = [layer for layer in self.layers_without_positions if not 0 <= layer < self.num_hidden_layers]
        if outside:
            last = self.num_hidden_layers - 1
            raise ValueError(f"layers_without_positions names layer {outside[0]}, but there are layers 0 to {last}.")

    def validate_combinations(self) -> None:
        """Refuse, with a ValueError, choices that contradict each other."""
        if self.classifier_pooling == "cls" and self.is_causal:
            raise ValueError(
                "classifier_pooling='cls' cannot work with is_causal=True, where the first token has seen no other: "
                "choose 'last' or 'mean'."
            )
        if self.is_encoder_decoder and not self.is_causal:
            raise ValueError("is_encoder_decoder=True with is_causal=False: the decoder is causal, leave it True.")
        both = not self.is_causal or self.is_encoder_decoder
        for layer_type, name in (("linear_attention", "linear_num_key_heads"), ("recurrent", "recurrent_hidden_size")):
            if layer_type in self.layer_types and both and getattr(self, name) % 2:
                raise ValueError(
                    f"{name}={getattr(self, name)} is odd, and half of it reads from the end in {layer_type} layers of "
                    "an encoder: make it even."
                )
        mixed = len(set(self.layer_types)) > 1 or bool(self.layers_without_positions)
        if self.is_encoder_decoder and mixed and self.num_decoder_layers != self.num_hidden_layers:
            raise ValueError(
                f"layer_types and layers_without_positions are for both stacks of an encoder-decoder, but they have "
                f"{self.num_hidden_layers} and {self.num_decoder_layers} layers: make all layers alike, or as many."
            )
        if self.position_embedding_type == "disentangled" and self.num_key_value_heads != self.num_attention_heads:
            raise ValueError(
                "position_embedding_type='disentangled' compares each key head with the positions, so it needs "
                f"num_key_value_heads={self.num_attention_heads}, as many as num_attention_heads."
            )
        if self.parallel_residual and "post" in (self.norm_position, self.linear_norm_position):
            raise ValueError("parallel_residual has no sum behind attention: give norm_position 'pre'.")
