"""The stack: embed -> masks -> positions -> layers -> norm; two of them; and what every head is built on."""

from itertools import islice
from typing import Any, Unpack

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPast, Seq2SeqModelOutput
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention import WeftAttention, find_distances
from .backends import BIASES, fold_bias
from .configuration_checks import STATE_TYPES
from .configuration_weft import WeftConfig
from .layers import WeftLayer, WeftTokenEmbedding, dropout, make_norm, norm_places
from .losses import IGNORE_INDEX
from .masks import create_cross_mask, create_masks, document_lengths, find_documents, previous_tokens
from .positions import EMBEDDINGS, SHARED_BIASES, ScoreBias, WeftDisentangled, WeftRotaryEmbedding, count_positions
from .pretrained_model import LANGUAGE_MODEL_HEADS, TASK_HEADS, WeftPreTrainedModel
from .state_cache import prepare_cache
from .tiles import LEAST_TOKENS, Tiles

logger = logging.get_logger(__name__)

INPUT_NAMES = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "inputs_embeds")


def captured(outputs: ModelOutput) -> dict[str, Any]:
    """What a stack returns beside its last hidden state."""
    return {name: value for name, value in outputs.items() if name != "last_hidden_state"}


class WeftModel(WeftPreTrainedModel):
    """The stack without a head, causal as the config says; with `is_encoder_decoder` a `WeftEncoderDecoderModel`."""

    def __new__(cls, config: WeftConfig | None = None, *args: Any, **kwargs: Any) -> "WeftModel":
        # AutoModel knows one class for each kind of config; copying and pickling give none
        two_stacks = cls is WeftModel and config is not None and config.is_encoder_decoder
        return super().__new__(WeftEncoderDecoderModel if two_stacks else cls)

    def __init__(self, config: WeftConfig) -> None:
        super().__init__(config)
        self.build(config)
        self.post_init()

    def build(self, config: WeftConfig, has_embeddings: bool = True, is_cross: bool = False) -> None:
        """Make the parts. `has_embeddings`: whether there are token embeddings (a decoder beside an encoder uses the
        encoder's); `is_cross`: whether each layer also attends to an encoder."""
        if has_embeddings:
            self.embed_tokens = WeftTokenEmbedding(config)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        kind = config.position_embedding_type
        self.position_embeddings = EMBEDDINGS[kind](config) if kind in EMBEDDINGS else None
        self.embedding_norm = make_norm(config, config.hidden_size) if config.embedding_norm else nn.Identity()
        self.dropout = dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(WeftLayer(config, index, is_cross) for index in range(config.num_hidden_layers))
        _, _, ends_normalised = norm_places(config, config.num_hidden_layers - 1)
        self.norm = nn.Identity() if ends_normalised else make_norm(config, config.hidden_size)
        if kind == "rope":
            sets = config.rope_parameters_by_layer_type()
            self.rotary_emb = nn.ModuleDict({name: WeftRotaryEmbedding(config, one) for name, one in sets.items()})
        is_shared = kind in SHARED_BIASES and not (kind == "t5" and config.relative_attention_per_layer)
        self.position_bias = SHARED_BIASES[kind](config) if is_shared else None
        if kind == "disentangled":
            norm = make_norm(config, config.hidden_size) if config.norm_rel_ebd else nn.Identity()
            self.relative_embeddings = WeftDisentangled(config, norm)
        if kind == "none" and not config.is_causal and not config.has_states:
            logger.warning_once(
                "position_embedding_type='none' with is_causal=False: nothing tells this model the order of its tokens."
            )
        self.gradient_checkpointing = False

    def embed(
        self, inputs_embeds: torch.Tensor, position_ids: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Embedded tokens [batch, tokens, hidden_size] with all that is added to them, normed where the config asks."""
        hidden_states = inputs_embeds
        if self.config.type_vocab_size:
            types = torch.zeros_like(position_ids) if token_type_ids is None else token_type_ids
            hidden_states = hidden_states + self.token_type_embeddings(types)
        if self.position_embeddings is not None:
            hidden_states = hidden_states + self.position_embeddings(position_ids).to(hidden_states.dtype)
        return self.dropout(self.embedding_norm(hidden_states))

    def place(
        self,
        inputs_embeds: torch.Tensor,
        position_ids: torch.Tensor,
        cache: Cache | None,
        masks: dict[str, Any],
        options: dict[str, Any],
    ) -> dict[str, tuple[tuple[Any, Any], dict[str, Any]]]:
        """What layers need to know of positions, for each layer type (nothing, where there are no keys): the attention
        mask, which a bias that all layers share is written into, but for flex attention; `table`, what else of it is
        learned; and as keyword arguments `position_embeddings` (cos and sin) and `relative` (what scores are edited
        with). `options` go to the backend."""
        config, kind, turns = self.config, self.config.position_embedding_type, {}
        if kind == "rope" and config.attention_layers:
            at = (inputs_embeds, position_ids)
            turns = {name: [each[:, None] for each in turn(*at)] for name, turn in self.rotary_emb.items()}
        placed: dict[str, tuple[tuple[Any, Any], dict[str, Any]]] = {}
        for layer_type, mask in masks.items():
            if layer_type in STATE_TYPES:
                placed[layer_type] = ((mask, None), {})
                continue
            given, table = {"position_embeddings": turns.get(layer_type, turns.get("all"))}, None
            if kind in BIASES:
                seen = (cache, layer_type, position_ids, mask, options)
                given["relative"] = distances = find_distances(config, inputs_embeds, *seen)
            if kind == "disentangled":
                table, buckets = self.relative_embeddings(distances)
                given["relative"] = (distances, buckets)
            elif self.position_bias is not None:
                table = self.position_bias(distances, inputs_embeds.dtype, config.is_causal)
                if config._attn_implementation != "flex_attention" and not isinstance(mask, Tiles):
                    mask = fold_bias(mask, ScoreBias(distances, table), config.is_causal)
                    table = given["relative"] = None
            placed[layer_type] = ((mask, table), given)
        return placed

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        token_type_ids: torch.LongTensor | None = None,
        causal_rows: torch.BoolTensor | None = None,
        prefix_mask: torch.BoolTensor | None = None,
        encoder_hidden_states: torch.FloatTensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        encoder_documents: torch.LongTensor | None = None,
        read_from: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Args:
            input_ids: [batch, tokens]; or inputs_embeds: [batch, tokens, hidden_size]. Exactly one of them.
            attention_mask: [batch, cached + new tokens], 1 for tokens and 0 for padding; or a 4-D mask, or a dict of
                masks by layer type, obeyed as they are.
            position_ids: [batch, tokens]. Wherever they do not grow by 1, a new document begins, and documents do not
                see each other. None: counted over the attention mask, so that padding has no effect.
            past_key_values: keys and values of earlier tokens.
            use_cache: whether to return keys and values (of a causal model: without that, earlier tokens would have to
                change). `is_causal` (bool) overrides the config's.
            token_type_ids: [batch, tokens], read where the config has type_vocab_size; None: all 0.
            causal_rows: bool [batch], the rows of a bidirectional batch that are to be causal.
            prefix_mask: bool [batch, tokens], the tokens of a causal batch that see each other in both directions.
            encoder_hidden_states, encoder_attention_mask, encoder_documents: what a decoder beside an encoder attends
                to (see `create_cross_mask`).
            read_from: indices [n] into the batch's tokens, row after row, the only ones that the last layer maps on
                after attention. Not for a decoder beside an encoder.
        Returns: last_hidden_state [batch, tokens, hidden_size] (with read_from [n, hidden_size]), after the final
            norm."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        use_cache = use_cache and self.config.is_causal
        if use_cache and past_key_values is None:
            past_key_values = self.new_cache()
        is_pair = isinstance(past_key_values, EncoderDecoderCache)
        cache = past_key_values.self_attention_cache if is_pair else past_key_values
        prepare_cache(self.config, cache)

        documents = find_documents(position_ids, attention_mask, cache)
        if position_ids is None:
            position_ids = count_positions(inputs_embeds, attention_mask, cache)
        masks = create_masks(self.config, inputs_embeds, attention_mask, cache, documents, causal_rows, prefix_mask)
        if documents is not None:
            kwargs = {**document_lengths(self.config, documents, inputs_embeds.shape[0]), **kwargs}
        if encoder_hidden_states is not None:
            encoder = (encoder_hidden_states, encoder_attention_mask, documents, encoder_documents)
            kwargs["cross_mask"] = create_cross_mask(self.config, inputs_embeds, *encoder)

        placed = self.place(inputs_embeds, position_ids, cache, masks, kwargs)
        unplaced = {layer_type: ((mask, None), {}) for layer_type, mask in masks.items()}
        without = self.config.layers_without_positions
        kwargs |= {"position_ids": position_ids, "past_key_values": past_key_values, "use_cache": use_cache}
        hidden_states, first_values = self.embed(inputs_embeds, position_ids, token_type_ids), None
        for index, layer in enumerate(islice(self.layers, self.config.num_hidden_layers)):
            if read_from is not None and index == self.config.num_hidden_layers - 1:
                kwargs["read_from"] = read_from
            shared, given = (unplaced if index in without else placed)[self.config.layer_types[index]]
            # a reentrant checkpoint passes gradients on to what it is given by position
            hidden_states = layer(hidden_states, encoder_hidden_states, *shared, first_values, **given, **kwargs)
            if self.config.value_residual and [index] == self.config.attention_layers[:1]:
                hidden_states, first_values = hidden_states
        return BaseModelOutputWithPast(self.norm(hidden_states), past_key_values if use_cache else None)

    def new_cache(self) -> Cache:
        """An empty cache of the kind that the stack fills."""
        return prepare_cache(self.config, DynamicCache(config=self.config))


class WeftEncoder(WeftModel):
    """The stack that a decoder attends to, under a name of its own: it is not the base model that heads look for."""


class WeftDecoder(WeftModel):
    """The causal stack beside an encoder, which each of its layers attends to; it is given embedded tokens."""

    _can_record_outputs = {
        "hidden_states": WeftLayer,
        "attentions": OutputRecorder(WeftAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(WeftAttention, index=1, layer_name="cross_attn"),
    }

    def build(self, config: WeftConfig) -> None:
        super().build(config, has_embeddings=False, is_cross=True)

    def new_cache(self) -> Cache:
        return EncoderDecoderCache(super().new_cache(), DynamicCache())


class WeftEncoderDecoderModel(WeftModel):
    """An encoder and a decoder that attends to it, with the same token embeddings ("Attention Is All You Need",
    https://huggingface.co/papers/1706.03762)."""

    def build(self, config: WeftConfig) -> None:
        self.encoder = WeftEncoder(config.of_stack(is_decoder=False))
        self.decoder = WeftDecoder(config.of_stack(is_decoder=True))

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """Args:
            input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds: of the encoder, as in
                `WeftModel.forward`.
            decoder_...: the same of the decoder. Without decoder_input_ids it reads the encoder's input behind
                `decoder_start_token_id`, as in BART. Packed rows need position_ids of as many documents on both sides.
            encoder_outputs: what the encoder returned before, instead of its input.
        Returns: last_hidden_state of the decoder [batch, tokens, hidden_size], and the encoder's."""
        for name in ("is_causal", "causal_rows", "prefix_mask"):
            kwargs.pop(name, None)
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            if input_ids is None:
                raise ValueError("Give decoder_input_ids or decoder_inputs_embeds, or input_ids to make them of.")
            decoder_input_ids = self.shift_right(input_ids, attention_mask, position_ids)
            decoder_attention_mask, decoder_position_ids = attention_mask, position_ids
        if encoder_outputs is None:
            inputs = {"inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids}
            encoder_outputs = self.encoder(input_ids, attention_mask, position_ids, **inputs, **kwargs)
        elif not isinstance(encoder_outputs, BaseModelOutput | ModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        if decoder_inputs_embeds is None:
            decoder_inputs_embeds = self.encoder.embed_tokens(decoder_input_ids)
        is_pair = isinstance(past_key_values, EncoderDecoderCache)
        is_plain = set(self.config.layer_types) == {"full_attention"}
        if is_pair and not (is_plain or any(past_key_values.is_updated.values())):
            # the one that `generate` makes would keep a window of the encoder's tokens, or a state
            past_key_values.cross_attention_cache = DynamicCache()
        encoder = {"encoder_hidden_states": encoder_outputs[0], "encoder_attention_mask": attention_mask}
        encoder["encoder_documents"] = find_documents(position_ids, attention_mask, None)
        kwargs |= {"past_key_values": past_key_values, "inputs_embeds": decoder_inputs_embeds, "use_cache": use_cache}
        outputs = self.decoder(None, decoder_attention_mask, decoder_position_ids, **encoder, **kwargs)
        fields = {"decoder_" + name: outputs.get(name) for name in ("hidden_states", "attentions")}
        fields |= {"encoder_" + name: encoder_outputs.get(name) for name in ("hidden_states", "attentions")}
        fields |= {"cross_attentions": outputs.get("cross_attentions"), "encoder_last_hidden_state": encoder_outputs[0]}
        return Seq2SeqModelOutput(outputs.last_hidden_state, outputs.past_key_values, **fields)

    def shift_right(
        self, ids: torch.Tensor, attention_mask: Any = None, position_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the decoder reads to predict `ids` [batch, tokens]: the start token, then each token but the last; in
        packed rows so for each document. Labels of -100 are read as padding."""
        start, pad = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None:
            raise ValueError("decoder_start_token_id is not set: give the id of the token that a decoder begins with.")
        previous = previous_tokens(ids[..., None], attention_mask, position_ids)
        index = torch.arange(ids.shape[1], device=ids.device)
        shifted = ids.gather(1, previous).masked_fill(previous == index, start)
        return shifted.masked_fill(shifted == IGNORE_INDEX, start if pad is None else pad)


class WeftHeadModel(WeftPreTrainedModel):
    """The stack with the parts that `build_head` of the class makes.

    Every `forward` takes what that of the stack takes, and by name what its loss function takes beside logits and
    labels, `num_items_in_batch` first of all. It returns logits and, where there are labels, the loss, a scalar."""

    def __init__(self, config: WeftConfig) -> None:
        super().__init__(config)
        self.model = WeftModel(config)
        self.build_head(config)
        self.post_init()

    def run_stack(self, inputs: tuple[Any, ...], **kwargs: Any) -> BaseModelOutputWithPast:
        """The stack without a cache of its own; `inputs` are those of INPUT_NAMES, as in `WeftModel.forward`."""
        return self.model(**{**kwargs, **dict(zip(INPUT_NAMES, inputs)), "use_cache": False})

    def skips_unread(self, tokens: torch.Tensor | None, options: dict[str, Any]) -> bool:
        """Whether the last layer may leave out what a head does not read (`read_from`): of rows [batch, tokens, ...]
        in training, or that are long, where `options` or the config do not ask for all hidden states."""
        asked = options.get("output_hidden_states", self.config.output_hidden_states)
        exported = torch.jit.is_tracing() or torch.compiler.is_exporting()
        may = not (asked or exported or tokens is None)
        return may and (self.training or tokens.shape[1] >= LEAST_TOKENS)


class WeftTextEncoder(WeftModel):
    """The encoder alone of an encoder-decoder, as text is encoded with it."""

    _keys_to_ignore_on_load_unexpected = [*TASK_HEADS, *LANGUAGE_MODEL_HEADS, r"^(model\.)?decoder\."]

    def build(self, config: WeftConfig) -> None:
        self.encoder = WeftEncoder(config.of_stack(is_decoder=False))

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.encoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Returns what the encoder does; arguments as in `WeftModel.forward`."""
        inputs = {"inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids}
        return self.encoder(input_ids, attention_mask, position_ids, **inputs, **kwargs)
