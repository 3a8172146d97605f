"""The Weft models: embed -> masks -> positions -> layers -> norm, and the heads."""

import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any, Unpack

import torch
from torch import nn
from transformers import modeling_outputs
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPast, Seq2SeqModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, is_tracing, logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention import BIASES, WeftAttention, check_backend, default_backend, find_distances, fold_bias
from .configuration_weft import AUTO_MAP, WeftConfig
from .layers import NORM_PLACES, WeftLayer, WeftTokenEmbedding, WeftTransform, dropout, init_weights, make_norm
from .losses import (
    IGNORE_INDEX,
    causal_lm_loss,
    find_problem_type,
    linear_cross_entropy,
    masked_lm_loss,
    next_labels,
    question_answering_loss,
    sequence_classification_loss,
    target_nats,
    token_classification_loss,
)
from .masks import (
    create_cross_mask,
    create_masks,
    document_lengths,
    document_places,
    find_documents,
    is_closed,
    previous_tokens,
    token_mask,
)
from .positions import EMBEDDINGS, SHARED_BIASES, ScoreBias, WeftDisentangled, WeftRotaryEmbedding, count_positions

logger = logging.get_logger(__name__)

# Weights of heads; a class that has no such head passes over them without a warning.
TASK_HEADS = [r"^score\.", r"^classifier\.", r"^qa_outputs\.", r"^choice_score\.", r"^classifier_transform\."]
LANGUAGE_MODEL_HEADS = [r"^lm_head\.", r"^head_transform\.", r"^pooler\.", r"^seq_relationship\."]
INPUT_NAMES = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "inputs_embeds")


def captured(outputs: ModelOutput) -> dict[str, Any]:
    """What a stack returns beside its last hidden state."""
    return {name: value for name, value in outputs.items() if name != "last_hidden_state"}


class WeftPreTrainedModel(PreTrainedModel):
    """What every Weft model shares: loading, initial weights, backends. `lora_target_modules` names the linear maps
    that low-rank adapters usually go to: all of the layers."""

    config_class = WeftConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["WeftLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _keys_to_ignore_on_load_unexpected = TASK_HEADS
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": WeftLayer, "attentions": WeftAttention}
    lora_target_modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def __init__(self, config: WeftConfig, *args: Any, **kwargs: Any) -> None:
        if config._attn_implementation is None:
            config._attn_implementation = default_backend(config)
        super().__init__(config, *args, **kwargs)
        check_backend(self.config, self.config._attn_implementation)

    def set_attn_implementation(self, attn_implementation: str | dict[str, str], *args: Any, **kwargs: Any) -> None:
        """Change the attention backend; one that cannot compute this config is refused with a ValueError."""
        check_backend(self.config, attn_implementation)
        super().set_attn_implementation(attn_implementation, *args, **kwargs)

    @classmethod
    def maybe_distribute_model(cls, model: PreTrainedModel, distributed_config: Any, *args: Any) -> PreTrainedModel:
        """Shards a model that is loaded; a pipeline that would compute something else is refused with a ValueError."""
        fits = isinstance(model, GenerationMixin) and model.config.fits_pipeline()
        if getattr(distributed_config, "pp_size", 1) > 1 and not fits:
            raise ValueError("A pipeline (pp_size) cannot compute this model: divide its heads (tp_size) instead.")
        return super().maybe_distribute_model(model, distributed_config, *args)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        init_weights(module, self.config)


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
        _, _, ends_normalised = NORM_PLACES[config.norm_position]
        self.norm = nn.Identity() if ends_normalised else make_norm(config, config.hidden_size)
        if kind == "rope":
            sets = config.rope_parameters_by_layer_type()
            self.rotary_emb = nn.ModuleDict({name: WeftRotaryEmbedding(config, one) for name, one in sets.items()})
        is_shared = kind in SHARED_BIASES and not (kind == "t5" and config.relative_attention_per_layer)
        self.position_bias = SHARED_BIASES[kind](config) if is_shared else None
        if kind == "disentangled":
            norm = make_norm(config, config.hidden_size) if config.norm_rel_ebd else nn.Identity()
            self.relative_embeddings = WeftDisentangled(config, norm)
        if kind == "none" and not config.is_causal:
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
        """What layers need to know of positions, for each layer type: the attention mask, which a bias that all layers
        share is written into, but for flex attention; `table`, what else of it is learned; and as keyword arguments
        `position_embeddings` (cos and sin) and `relative` (what scores are edited with). `options` go to the
        backend."""
        config, kind, turns = self.config, self.config.position_embedding_type, {}
        if kind == "rope":
            at = (inputs_embeds, position_ids)
            turns = {name: [each[:, None] for each in turn(*at)] for name, turn in self.rotary_emb.items()}
        placed: dict[str, tuple[tuple[Any, Any], dict[str, Any]]] = {}
        for layer_type, mask in masks.items():
            given, table = {"position_embeddings": turns.get(layer_type, turns.get("all"))}, None
            if kind in BIASES:
                seen = (cache, layer_type, position_ids, mask, options)
                given["relative"] = distances = find_distances(config, inputs_embeds, *seen)
            if kind == "disentangled":
                table, buckets = self.relative_embeddings(distances)
                given["relative"] = (distances, buckets)
            elif self.position_bias is not None:
                table = self.position_bias(distances, inputs_embeds.dtype, config.is_causal)
                if config._attn_implementation != "flex_attention":
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
        Returns: last_hidden_state [batch, tokens, hidden_size], after the final norm."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        use_cache = use_cache and self.config.is_causal
        if use_cache and past_key_values is None:
            past_key_values = self.new_cache()
        is_pair = isinstance(past_key_values, EncoderDecoderCache)
        cache = past_key_values.self_attention_cache if is_pair else past_key_values

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
            shared, given = (unplaced if index in without else placed)[self.config.layer_types[index]]
            # a reentrant checkpoint passes gradients on to what it is given by position
            hidden_states = layer(hidden_states, encoder_hidden_states, *shared, first_values, **given, **kwargs)
            if self.config.value_residual and index == 0:
                hidden_states, first_values = hidden_states
        return BaseModelOutputWithPast(self.norm(hidden_states), past_key_values if use_cache else None)

    def new_cache(self) -> Cache:
        """An empty cache of the kind that the stack fills."""
        return DynamicCache(config=self.config)


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
        return EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache())


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
        if is_pair and self.config.sliding_window is not None and not any(past_key_values.is_updated.values()):
            # the one that `generate` makes would keep a window of the encoder's tokens
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


class WeftLanguageModel(WeftHeadModel):
    """The stack with the head that all language models share: any of them loads what another saved."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"head_transform": (["hidden_states"], ["hidden_states"]), "lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}
    loss_function = staticmethod(masked_lm_loss)  # labels stand where their logits do
    has_encoder = False

    def __init__(self, config: WeftConfig) -> None:
        if config.is_encoder_decoder != self.has_encoder:
            kind = "an encoder-decoder" if self.has_encoder else "one stack"
            raise ValueError(
                f"{type(self).__name__} is {kind}, but the config has is_encoder_decoder={config.is_encoder_decoder}: "
                "change that, or take WeftForConditionalGeneration for two stacks and any other class for one."
            )
        super().__init__(config)

    def build_head(self, config: WeftConfig) -> None:
        self.vocab_size = config.vocab_size
        transform = (config.hidden_act, config.lm_head_transform_bias, True)
        self.head_transform = WeftTransform(config, *transform) if config.lm_head_transform else nn.Identity()
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)

    def get_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Hidden states [..., hidden_size] to logits [..., vocab_size]."""
        logits = self.lm_head(self.head_transform(hidden_states) * self.config.lm_head_scale)
        cap = self.config.final_logit_softcapping
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def predict(
        self, states: torch.Tensor, labels: Any, targets: Any, return_logits: bool = True, **kwargs: Any
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Logits of hidden states [..., hidden_size] and, with labels, the loss and the cross-entropy of each of
        `targets` [...], which stand where their logits do; `return_logits=False`: `linear_cross_entropy`, no logits."""
        if labels is None:
            return self.get_logits(states), None, None
        if return_logits:
            logits = self.get_logits(states)
            options = {name: kwargs[name] for name in ("label_smoothing", "z_loss") if name in kwargs}
            nats = target_nats(logits.flatten(0, -2), targets.flatten(), **options)
            return logits, self.loss_function(logits, labels, self.config.vocab_size, nats=nats, **kwargs), nats
        if type(self.lm_head) is not nn.Linear:
            raise ValueError(f"return_logits=False cannot see into {type(self.lm_head).__name__}: leave it True.")
        states, cap = self.head_transform(states) * self.config.lm_head_scale, self.config.final_logit_softcapping
        return None, *linear_cross_entropy(states, self.lm_head, targets, softcap=cap, **kwargs)

    def forward_masked(
        self, inputs: tuple[Any, ...], labels: torch.Tensor | None, predict_from: torch.Tensor | None, **kwargs: Any
    ) -> tuple[BaseModelOutputWithPast, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """What the masked heads have in common: the stack, bidirectional unless `is_causal` says otherwise, logits and
        loss. `inputs` as in `run_stack`, labels and predict_from as in `WeftForMaskedLM.forward`. Without predict_from
        logits at i predict token i, which a model with `masked_next_token` predicts from the token before it (nothing
        stands before a document's first token, whose logits have no meaning then).
        Returns: the stack's outputs, the logits, the loss if there are labels, and with `predict_from` that of each."""
        kwargs = {"is_causal": False, **kwargs}
        outputs = self.run_stack(inputs, **kwargs)
        hidden_states = outputs.last_hidden_state
        if predict_from is not None:
            hidden_states = hidden_states.flatten(0, 1)[predict_from]
        elif self.config.masked_next_token:
            _, attention_mask, position_ids, *_ = inputs
            previous = previous_tokens(hidden_states, attention_mask, position_ids)
            hidden_states = hidden_states.gather(1, previous[..., None].expand_as(hidden_states))
        logits, loss, nats = self.predict(hidden_states, labels, labels, **kwargs)
        return outputs, logits, loss, None if predict_from is None or nats is None else nats.detach()


class WeftForCausalLM(WeftLanguageModel, GenerationMixin):
    """The stack with a next-token head; causal whatever the config's `is_causal` says."""

    loss_function = staticmethod(causal_lm_loss)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        token_type_ids: torch.LongTensor | None = None,
        return_logits: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.CausalLMOutputWithPast:
        """Args:
            labels: [batch, tokens], the input's own tokens, -100 where there is no target; the loss compares the
                logits at i with the label at i + 1. With `shift_labels` (already aligned) they are not looked at.
            logits_to_keep: compute logits for the last so many tokens only (0: all), or at these indices [n].
            return_logits: False: where there are labels, the same loss in less memory, and no logits (see `predict`).
        Returns: loss and logits [batch, tokens kept, vocab_size]."""
        kwargs = {"is_causal": True, **kwargs}
        if "cache" in kwargs:  # continuous batching says that masks, not the backend, hide what comes later
            kwargs["is_causal"] = True
        inputs = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "token_type_ids": token_type_ids}
        inputs |= {"attention_mask": attention_mask, "position_ids": position_ids}
        outputs = self.model(**inputs, past_key_values=past_key_values, use_cache=use_cache, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        targets = None if labels is None else kwargs.setdefault("shift_labels", next_labels(labels))
        logits, loss, _ = self.predict(outputs.last_hidden_state[:, kept], labels, targets, return_logits, **kwargs)
        return modeling_outputs.CausalLMOutputWithPast(loss, logits, **captured(outputs))

    def generate(self, inputs: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As transformers' own. The tokenizer of a model of both roles (`masked_next_token`) closes each text, as the
        masked role reads it. That end token behind a prompt is not read, and stands in the result as it was given."""
        ids, mask = kwargs.get("input_ids") if inputs is None else inputs, kwargs.get("attention_mask")
        both_roles, ends = self.config.masked_next_token, self.config.eos_token_id
        if not both_roles or not is_closed(ids, mask, kwargs.get("past_key_values"), ends):
            return super().generate(inputs, *args, **kwargs)
        given = {name: kwargs[name] for name in ("attention_mask", "token_type_ids") if kwargs.get(name) is not None}
        kwargs |= {name: each[:, :-1] for name, each in {"input_ids": ids, **given}.items()}
        result = super().generate(None, *args, **kwargs)
        rows = result if isinstance(result, torch.Tensor) else result.sequences
        last = ids[:, -1:].to(rows.device).repeat_interleave(len(rows) // len(ids), dim=0)
        whole = torch.cat((rows[:, : ids.shape[1] - 1], last, rows[:, ids.shape[1] - 1 :]), dim=1)
        if isinstance(result, torch.Tensor):
            return whole
        result.sequences = whole
        return result

    @staticmethod
    def create_masks_for_generate(
        config: WeftConfig,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None,
        position_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Masks that `generate` makes itself for caches of fixed length: causal ones, as this head's always are."""
        documents = find_documents(position_ids, attention_mask, past_key_values)
        config = copy.copy(config)
        config.is_causal = True
        return create_masks(config, inputs_embeds, attention_mask, past_key_values, documents)


class WeftForConditionalGeneration(WeftLanguageModel, GenerationMixin):
    """Encoder and decoder with a next-token head: text in, text out."""

    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}
    has_encoder = True

    def init_continuous_batching(self, *_: Any, **__: Any) -> None:
        """Refuses `generate_batch` with a ValueError: continuous batching knows models of one stack only."""
        raise ValueError("Continuous batching cannot run an encoder-decoder: use `generate` on batches of texts.")

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """What the decoder reads to predict labels [batch, tokens]."""
        return self.model.shift_right(labels)

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
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        return_logits: bool = True,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.Seq2SeqLMOutput:
        """Args:
            labels: [batch, tokens], what the decoder is to say; those at i belong to its logits at i, -100 where there
                is no target. Without decoder_input_ids the decoder reads them shifted to the right.
            return_logits: as in `WeftForCausalLM.forward`.
        Returns: loss and logits [batch, tokens, vocab_size]."""
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.model.shift_right(labels, decoder_attention_mask, decoder_position_ids)
        inputs = (input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, encoder_outputs)
        inputs += (past_key_values, inputs_embeds, decoder_inputs_embeds, use_cache if labels is None else False)
        outputs = self.model(*inputs, decoder_position_ids=decoder_position_ids, **kwargs)
        logits, loss, _ = self.predict(outputs.last_hidden_state, labels, labels, return_logits, **kwargs)
        return modeling_outputs.Seq2SeqLMOutput(loss, logits, **captured(outputs))


@dataclass
class WeftMaskedLMOutput(modeling_outputs.MaskedLMOutput):
    """Also, with `predict_from` and `labels`, `target_nats` [n]: the cross-entropy of each target, without gradient."""

    target_nats: torch.FloatTensor | None = None


@dataclass
class WeftPreTrainingOutput(ModelOutput):
    """loss (masked-language-model plus next-sentence), prediction_logits (as in `WeftMaskedLMOutput`) and
    seq_relationship_logits [documents, 2]; where labels were given, also the cross-entropy of each masked target
    (target_nats [n], with `predict_from`) and of each next-sentence label (next_sentence_nats [documents])."""

    loss: torch.FloatTensor | None = None
    prediction_logits: torch.FloatTensor | None = None
    seq_relationship_logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    target_nats: torch.FloatTensor | None = None
    next_sentence_nats: torch.FloatTensor | None = None


class WeftForMaskedLM(WeftLanguageModel):
    """The stack with a head for masked tokens; bidirectional whatever the config's `is_causal` says."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        predict_from: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> WeftMaskedLMOutput:
        """Args:
            labels: [batch, tokens], the token that belongs at each place, -100 where there is no target; or, with
                predict_from, [n].
            predict_from: compute logits at these places only: indices [n] into the batch's tokens, row after row. They
                are the places to predict from: with the config's `masked_next_token` the one before the masked token.
            return_logits: as in `WeftForCausalLM.forward`.
        Returns: loss and logits [batch, tokens, vocab_size] or [n, vocab_size]."""
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        outputs, logits, loss, nats = self.forward_masked(inputs, labels, predict_from, **kwargs)
        return WeftMaskedLMOutput(loss=loss, logits=logits, **captured(outputs), target_nats=nats)


class WeftForPreTraining(WeftLanguageModel):
    """Masked language model and, from each document's first token, next-sentence (or sentence-order) prediction, as in
    BERT (https://huggingface.co/papers/1810.04805) and ALBERT (https://huggingface.co/papers/1909.11942)."""

    def build_head(self, config: WeftConfig) -> None:
        super().build_head(config)
        self.pooler = WeftTransform(config, "tanh", bias=True, has_norm=False)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        next_sentence_label: torch.LongTensor | None = None,
        predict_from: torch.LongTensor | None = None,
        pool_from: torch.LongTensor | None = None,
        num_pairs_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> WeftPreTrainingOutput:
        """Args:
            labels, predict_from: as in `WeftForMaskedLM.forward`.
            next_sentence_label: [documents], 0 where the second segment belongs behind the first, 1 where it does not,
                -100 where that is not a target.
            pool_from: indices [documents] of the tokens to pool, into the batch's tokens row after row. None: the first
                token of each row, padding apart, or of each document in packed rows, in order.
            num_pairs_in_batch: number of next-sentence targets of the whole step, which their sum is divided by.
        Returns: loss, the sum of both (or of those whose labels were given), and the logits of both.
        Raises: ValueError where there are not as many next-sentence labels as documents."""
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        outputs, logits, loss, nats = self.forward_masked(inputs, labels, predict_from, **kwargs)
        hidden_states = outputs.last_hidden_state
        if pool_from is None:
            documents = find_documents(position_ids, attention_mask, None)
            pool_from = document_places(hidden_states, attention_mask, documents)[:, 0]
        order_logits = self.seq_relationship(self.pooler(hidden_states.flatten(0, 1)[pool_from]))
        order_nats = None
        if next_sentence_label is not None:
            label = next_sentence_label.reshape(-1)
            check_count("next_sentence_label", len(label), len(order_logits), "document")
            order_loss = token_classification_loss(order_logits, label, num_pairs_in_batch)
            loss = order_loss if loss is None else loss + order_loss
            order_nats = target_nats(order_logits.detach(), label)
        nats_of = {"target_nats": nats, "next_sentence_nats": order_nats}
        return WeftPreTrainingOutput(loss, logits, order_logits, **captured(outputs), **nats_of)


def check_count(name: str, found: int, number: int, what: str, each: int = 1) -> None:
    """Refuse anything but `each` labels for every one of `number` documents (or tokens, or examples)."""
    if found != number * each:
        wanted = "one" if each == 1 else each
        raise ValueError(f"{name} has {found} values for {number} {what}s: give {wanted} for each {what}.")


class WeftTaskModel(WeftHeadModel):
    """The stack, in the direction that the config's `is_causal` says, and what the fine-tuning heads share. Any of them
    loads what any other class saved: only its own output matrix is new.

    `past_key_values` of every `forward` are keys and values that stand before each row, as prefix tuning learns them
    (https://huggingface.co/papers/2101.00190); attention_mask covers them too. None are returned. What `forward` is
    said to return is that of one stack: of two it is transformers' class for such."""

    _keys_to_ignore_on_load_unexpected = TASK_HEADS + LANGUAGE_MODEL_HEADS
    is_of_document = False  # whether the head is given one hidden state for each document
    seq2seq_output_class = modeling_outputs.Seq2SeqSequenceClassifierOutput  # for tokens there is none
    head_name, head_width = "classifier", None  # of the output matrix; None: num_labels wide, with classifier_bias

    def build_head(self, config: WeftConfig) -> None:
        self.num_labels = config.num_labels
        self.dropout = dropout(config.classifier_dropout)
        has_transform = config.classifier_transform and (self.is_of_document or config.classifier_transform_tokens)
        transform = (config.classifier_transform, config.classifier_transform_bias, config.classifier_transform_norm)
        self.classifier_transform = WeftTransform(config, *transform) if has_transform else nn.Identity()
        width, bias = self.head_width or config.num_labels, config.classifier_bias or self.head_width is not None
        self.add_module(self.head_name, nn.Linear(config.hidden_size, width, bias))

    def read(
        self, inputs: tuple[Any, ...], **kwargs: Any
    ) -> tuple[BaseModelOutputWithPast, Any, torch.Tensor | None, torch.Tensor]:
        """The outputs of the stack for these inputs (see `run_stack`), the attention mask of the states that the head
        reads (a decoder's own, where it is given an input of its own), what `find_documents` says of them, and logits
        [batch, tokens, head_width] or [documents, head_width]."""
        own = tuple(kwargs.get("decoder_" + name) for name in INPUT_NAMES)
        last = inputs if own[0] is None and own[-1] is None else own
        documents = find_documents(last[2], last[1], kwargs.get("past_key_values"))
        outputs = self.run_stack(inputs, **kwargs)
        states = outputs.last_hidden_state
        if self.is_of_document:
            states = self.pool_documents(states, last, documents)
        logits = getattr(self, self.head_name)(self.dropout(self.classifier_transform(states)))
        return outputs, last[1], documents, logits

    def classify(self, inputs: tuple[Any, ...], labels: torch.Tensor | None, **kwargs: Any) -> ModelOutput:
        """The logits of these inputs (see `read`) and, with labels, the loss by `get_loss` of the class."""
        outputs, *_, logits = self.read(inputs, **kwargs)
        loss = None if labels is None else self.get_loss(logits, labels, **kwargs)
        return self.as_output(outputs, loss, logits)

    def as_output(self, outputs: ModelOutput, *values: torch.Tensor | None) -> ModelOutput:
        """Loss and logits with all that the stack returned, in the class that transformers has for one stack or two."""
        kind = self.seq2seq_output_class if self.config.is_encoder_decoder else self.output_class
        return kind(*values, **captured(outputs))

    def pool_documents(self, states: torch.Tensor, inputs: tuple[Any, ...], documents: Any) -> torch.Tensor:
        """What stands for each document, by the config's `classifier_pooling`: [documents, hidden_size], of packed rows
        all documents in order, else one of each row. Where no 2-D mask says what padding is, the last token is the last
        one that is not pad_token_id, as in transformers' decoders. `states` [batch, tokens, hidden_size] are those of
        `inputs` (see `run_stack`), and `documents` what `find_documents` says of these."""
        input_ids, attention_mask, *_ = inputs
        places, hidden_states = document_places(states, attention_mask, documents), states.flatten(0, 1)
        is_token = places >= 0
        pooling = self.config.classifier_pooling or ("last" if self.config.is_causal else "mean")
        if pooling == "cls":
            return hidden_states[places[:, 0]]
        if pooling == "mean":
            states = hidden_states[places.clamp(min=0)] * is_token[..., None]
            return states.sum(dim=1) / is_token.sum(dim=1, keepdim=True)
        pad_token_id = self.config.pad_token_id
        is_unmasked = token_mask(attention_mask, 1) is None
        if is_unmasked and input_ids is not None and pad_token_id is not None:
            is_token = is_token & (input_ids.flatten()[places.clamp(min=0)] != pad_token_id)
        last = (is_token * torch.arange(places.shape[1], device=places.device)).amax(dim=1, keepdim=True)
        return hidden_states[places.gather(1, last)[:, 0]]


class WeftForSequenceClassification(WeftTaskModel):
    """The stack with a linear map of each document's pooled hidden state, read by the config's `problem_type`."""

    is_of_document, head_name = True, "score"
    loss_function = staticmethod(sequence_classification_loss)
    output_class = modeling_outputs.SequenceClassifierOutput

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.SequenceClassifierOutput:
        """`labels` are as `get_loss` says, which is also given `class_weights` and `label_smoothing`."""
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        return self.classify(inputs, labels, past_key_values=past_key_values, **kwargs)

    def get_loss(self, logits: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The loss of logits [documents, num_labels], one document in each row, or of packed rows all documents in
        order; labels for each as in `sequence_classification_loss`, ValueError where there are not as many."""
        problem_type = find_problem_type(self.config.problem_type, self.num_labels, labels)
        is_class = problem_type == "single_label_classification"
        check_count("labels", labels.numel(), len(logits), "document", 1 if is_class else self.num_labels)
        if self.config.problem_type is None:
            self.config.problem_type = problem_type  # as in stock classes; pipelines read it
        return self.loss_function(logits, labels, problem_type, **kwargs)


class WeftForTokenClassification(WeftTaskModel):
    """The stack with a linear map of each token's hidden state to classes."""

    loss_function = staticmethod(token_classification_loss)
    output_class = modeling_outputs.TokenClassifierOutput

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.TokenClassifierOutput:
        """`labels` are as `get_loss` says, which is also given `class_weights` and `label_smoothing`."""
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        return self.classify(inputs, labels, past_key_values=past_key_values, **kwargs)

    def get_loss(self, logits: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The loss of logits [batch, tokens, num_labels]; labels are class numbers [batch, tokens], those at i belong
        to token i, -100 where there is no target, ValueError where there is not one for each token."""
        check_count("labels", labels.numel(), logits.shape[:-1].numel(), "token")
        return self.loss_function(logits, labels, **kwargs)


class WeftForQuestionAnswering(WeftTaskModel):
    """The stack with a linear map of each token's hidden state to two logits: of an answer's first token, and last."""

    head_name, head_width = "qa_outputs", 2
    loss_function = staticmethod(question_answering_loss)
    output_class = modeling_outputs.QuestionAnsweringModelOutput
    seq2seq_output_class = modeling_outputs.Seq2SeqQuestionAnsweringModelOutput

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        start_positions: torch.LongTensor | None = None,
        end_positions: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.QuestionAnsweringModelOutput:
        """Args:
            start_positions, end_positions: [documents], where the answer's first and last token are: counted over the
                row, padding included, or in packed rows from the document's first token. -100, and what is outside of
                the row or document, is no target.
        Returns: loss (where both were given), start_logits and end_logits: [batch, tokens], or of packed rows
            [documents, tokens of the longest], in order; the dtype's minimum at padding and behind a document.
        Raises: ValueError for positions that are not one for each document."""
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        outputs, attention_mask, documents, logits = self.read(inputs, past_key_values=past_key_values, **kwargs)
        is_token = token_mask(attention_mask, logits.shape[1])
        if documents is not None:
            places = document_places(logits, attention_mask, documents)
            logits, is_token = logits.flatten(0, 1)[places.clamp(min=0)], places >= 0
        if is_token is not None:
            logits = logits.masked_fill(~is_token[..., None], torch.finfo(logits.dtype).min)
        start_logits, end_logits = (each.contiguous() for each in logits.unbind(-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            for name, positions in (("start_positions", start_positions), ("end_positions", end_positions)):
                check_count(name, positions.numel(), len(logits), "document")
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
        return self.as_output(outputs, loss, start_logits, end_logits)


class WeftForMultipleChoice(WeftTaskModel):
    """The stack with a linear map of each choice's pooled hidden state to one logit; an example's choices compete."""

    is_of_document, head_name, head_width = True, "choice_score", 1
    loss_function = staticmethod(token_classification_loss)
    output_class = modeling_outputs.MultipleChoiceModelOutput

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        choice_counts: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.MultipleChoiceModelOutput:
        """Args:
            input_ids: [examples, choices, tokens], and so what stands beside them (inputs_embeds: [examples, choices,
                tokens, hidden_size]). A choice whose attention_mask is all 0 does not exist. Or, with choice_counts,
                [rows, tokens] as in `WeftModel.forward`.
            choice_counts: [examples], how many choices each example has: the batch's documents, of packed rows or one
                in each row, are the choices of the first example, then of the second, and so on.
            labels: [examples], the number of the right choice, -100 where there is no target.
        Returns: loss and logits [examples, most choices], the dtype's minimum for a choice that does not exist.
        Raises: ValueError for choices that are not as many as announced, or labels that are not one for each example or
            name a choice that does not exist."""
        if choice_counts is None:
            rows = input_ids if inputs_embeds is None else inputs_embeds[..., 0]
            if rows is None or rows.ndim != 3:
                raise ValueError(
                    "Give input_ids [examples, choices, tokens] (or inputs_embeds, with hidden_size behind), or rows "
                    "of documents [rows, tokens] and with choice_counts how many of them belong to each example."
                )
            number, most = rows.shape[0] * rows.shape[1], rows.shape[1]
            counts = torch.full(rows.shape[:1], most, device=rows.device)
            input_ids, attention_mask, position_ids, token_type_ids = (
                value.flatten(0, 1) if torch.is_tensor(value) and value.ndim == 3 else value
                for value in (input_ids, attention_mask, position_ids, token_type_ids)
            )
            inputs_embeds = None if inputs_embeds is None else inputs_embeds.flatten(0, 1)
            of_decoder = [name for name, value in kwargs.items() if "decoder_" in name and torch.is_tensor(value)]
            kwargs |= {name: kwargs[name].flatten(0, 1) for name in of_decoder}
        else:
            counts, number, most = choice_counts.reshape(-1), int(choice_counts.sum()), int(choice_counts.max())
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        outputs, attention_mask, _, logits = self.read(inputs, past_key_values=past_key_values, **kwargs)
        scores, counts = logits[:, 0], counts.to(logits.device)
        if number != scores.shape[0]:  # len() would fix the size of an exported program
            raise ValueError(
                f"The batch announces {number} choices (by choice_counts, or the shape of its input), but holds "
                f"{len(scores)} documents: give each choice one, in order."
            )
        # the documents of each example side by side
        steps, first = torch.arange(most, device=scores.device), counts.cumsum(0) - counts
        places, exists = (first[:, None] + steps).clamp(max=number - 1), steps < counts[:, None]
        is_token = token_mask(attention_mask, outputs.last_hidden_state.shape[1])
        if choice_counts is None and is_token is not None:
            exists = is_token.any(dim=-1)[places]
        logits = scores[places].masked_fill(~exists, torch.finfo(scores.dtype).min)
        loss = None
        if labels is not None:
            check_count("labels", labels.numel(), len(logits), "example")
            self.check_choices(labels.to(logits.device).reshape(-1), exists)
            loss = self.loss_function(logits, labels, **kwargs)
        return self.as_output(outputs, loss, logits)

    @staticmethod
    def check_choices(labels: torch.Tensor, exists: torch.Tensor) -> None:
        """Refuse labels [examples] of choices that do not exist [examples, choices] (not looked at while tracing)."""
        if is_tracing(labels):
            return
        is_inside = (labels >= 0) & (labels < exists.shape[1])
        chosen = exists.gather(1, labels.where(is_inside, 0)[:, None])[:, 0] & is_inside
        wrong = (~chosen & (labels != IGNORE_INDEX)).nonzero().flatten()
        if len(wrong):
            example = int(wrong[0])
            raise ValueError(
                f"The label of example {example} is {int(labels[example])}, a choice that it does not have: give the "
                "number of one of its choices, from 0, or -100 where there is no target."
            )


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


class WeftAutoTextEncoding:
    """What an Auto class is given where the class depends on the config: it makes models of the one that is chosen."""

    config_class = WeftConfig

    @classmethod
    def choose(cls, config: WeftConfig) -> type[WeftPreTrainedModel]:
        """Text is encoded by the stack, and of an encoder-decoder by the encoder alone."""
        return WeftTextEncoder if config.is_encoder_decoder else WeftModel

    @classmethod
    def from_pretrained(cls, *args: Any, config: WeftConfig, **kwargs: Any) -> Any:
        return cls.choose(config).from_pretrained(*args, config=config, **kwargs)

    @classmethod
    def _from_config(cls, config: WeftConfig, **kwargs: Any) -> WeftPreTrainedModel:
        return cls.choose(config)._from_config(config, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any) -> None:
        """The classes that are chosen are registered themselves."""


class WeftAutoPreTraining(WeftAutoTextEncoding):
    """The same of pretraining."""

    @classmethod
    def choose(cls, config: WeftConfig) -> type[WeftPreTrainedModel]:
        """Encoder-decoders learn to write, causal stacks the next token, others what BERT learns, and so does any that
        was saved with the heads for it."""
        if config.is_encoder_decoder:
            return WeftForConditionalGeneration
        has_both_heads = WeftForPreTraining.__name__ in (config.architectures or ())
        return WeftForCausalLM if config.is_causal and not has_both_heads else WeftForPreTraining


for _auto_class, _reference in AUTO_MAP.items():
    if _auto_class != "AutoConfig":
        globals()[_reference.split(".")[-1]].register_for_auto_class(_auto_class)
WeftForPreTraining.register_for_auto_class("AutoModelForPreTraining")
WeftTextEncoder.register_for_auto_class("AutoModelForTextEncoding")
WeftConfig.register_for_auto_class()
