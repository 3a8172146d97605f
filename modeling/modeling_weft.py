"""The Weft models that are loaded by name: the stack, the language-model heads, and the heads of fine-tuning."""

import copy
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import nn
from transformers import modeling_outputs
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple

from .attention import chosen
from .configuration_weft import AUTO_MAP, WeftConfig
from .growing_cache import make_room
from .language_model import WeftLanguageModel
from .layers import WeftTransform
from .losses import causal_lm_loss, check_count, next_labels, target_nats, token_classification_loss
from .masks import create_masks, document_places, find_documents, is_closed, token_mask
from .pretrained_model import WeftPreTrainedModel
from .sequences import Sequences
from .stack import WeftModel, WeftTextEncoder, captured
from .state_cache import prepare_cache
from .task_heads import (
    WeftForMultipleChoice,
    WeftForQuestionAnswering,
    WeftForSequenceClassification,
    WeftForTokenClassification,
)


class WeftForCausalLM(WeftLanguageModel, GenerationMixin):
    """The stack with a next-token head; causal whatever the config's `is_causal` says."""

    loss_function = staticmethod(causal_lm_loss)
    reads_one_way = True

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
        prefix_mask: torch.BoolTensor | None = None,
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
        inputs |= {"attention_mask": attention_mask, "position_ids": position_ids, "prefix_mask": prefix_mask}
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        if isinstance(logits_to_keep, int) and logits_to_keep > 0 and self.skips_unread(tokens, kwargs):
            places = torch.arange(tokens.shape[0] * tokens.shape[1], device=tokens.device)
            inputs["read_from"] = places.view(tokens.shape[:2])[:, -logits_to_keep:].flatten()
        outputs = self.model(**inputs, past_key_values=past_key_values, use_cache=use_cache, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        states = outputs.last_hidden_state
        states = states[:, kept] if states.ndim == 3 else states.unflatten(0, (tokens.shape[0], -1))
        targets = None if labels is None else kwargs.setdefault("shift_labels", next_labels(labels))
        logits, loss, _ = self.predict(states, labels, targets, return_logits, **kwargs)
        return modeling_outputs.CausalLMOutputWithPast(loss, logits, **captured(outputs))

    def generate(self, inputs: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As transformers' own. The tokenizer of a model of both roles (`masked_next_token`) closes each text, as the
        masked role reads it. That end token behind a prompt is not read, and stands in the result as it was given."""
        ids, mask = kwargs.get("input_ids") if inputs is None else inputs, kwargs.get("attention_mask")
        reads_all = not self.config.masked_next_token or isinstance(kwargs.get("custom_generate"), str)
        if reads_all or not is_closed(ids, mask, kwargs.get("past_key_values"), self.config.eos_token_id):
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

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any) -> Any:
        """As transformers' own, whose cache copies itself for each token: here on a processor it grows instead."""
        done = super()._prepare_cache_for_generation(generation_config, model_kwargs, *args)
        prepare_cache(self.config, model_kwargs.get("past_key_values"))
        if self.device.type == "cpu" and generation_config.num_beams == 1:
            make_room(model_kwargs.get("past_key_values"))
        return done

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers' own, whose pages hold keys and values; a ValueError for layers that have none."""
        if self.config.has_states:
            raise ValueError(
                "Continuous batching cannot run linear_attention and recurrent layers: use `generate` on batches of "
                "texts."
            )
        return super().init_continuous_batching(*args, **kwargs)

    @staticmethod
    def create_masks_for_generate(
        config: WeftConfig,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None,
        position_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Masks that `generate` makes itself for caches of fixed length: causal ones, as this head's always are, and
        for layers without keys the padding (it wants tensors); a ValueError for several documents in a prompt there."""
        documents = find_documents(position_ids, attention_mask, past_key_values)
        config = copy.copy(config)
        config.is_causal = True
        masks = create_masks(config, inputs_embeds, attention_mask, past_key_values, documents)
        if documents is not None and config.has_states:
            raise ValueError(
                "position_ids restart inside of a prompt, and linear_attention and recurrent layers cannot go on with "
                "several documents: give one prompt in each row."
            )
        is_token = token_mask(attention_mask, inputs_embeds.shape[1])
        return {name: is_token if isinstance(mask, Sequences) else mask for name, mask in masks.items()}


@dataclass
class WeftSeq2SeqLMOutput(modeling_outputs.Seq2SeqLMOutput):
    """Also, with `return_logits=False`, `target_nats` [batch * tokens]: each target's cross-entropy, 0 of none."""

    target_nats: torch.FloatTensor | None = None


class WeftForConditionalGeneration(WeftLanguageModel, GenerationMixin):
    """Encoder and decoder with a next-token head: text in, text out."""

    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}
    has_encoder, reads_one_way = True, True

    def init_continuous_batching(self, *_: Any, **__: Any) -> None:
        """Refuses `generate_batch` with a ValueError: continuous batching knows models of one stack only."""
        raise ValueError("Continuous batching cannot run an encoder-decoder: use `generate` on batches of texts.")

    def _prepare_cache_for_generation(self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any) -> Any:
        """As transformers' own, which does not know that attention to the encoder has keys in every layer."""
        is_given = model_kwargs.get("past_key_values") is not None or generation_config.use_cache is False
        if self.config.has_states and not (is_given or generation_config.cache_implementation):
            model_kwargs["past_key_values"] = self.model.decoder.new_cache()
        return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args)

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
    ) -> WeftSeq2SeqLMOutput:
        """Args:
            labels: [batch, tokens], what the decoder is to say; those at i belong to its logits at i, -100 where there
                is no target. Without decoder_input_ids the decoder reads them shifted to the right.
            return_logits: as in `WeftForCausalLM.forward`.
        Returns: loss and logits [batch, tokens, vocab_size], or without logits the loss of each target."""
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.model.shift_right(labels, decoder_attention_mask, decoder_position_ids)
        inputs = (input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, encoder_outputs)
        inputs += (past_key_values, inputs_embeds, decoder_inputs_embeds, use_cache if labels is None else False)
        outputs = self.model(*inputs, decoder_position_ids=decoder_position_ids, **kwargs)
        logits, loss, nats = self.predict(outputs.last_hidden_state, labels, labels, return_logits, **kwargs)
        return WeftSeq2SeqLMOutput(loss, logits, **captured(outputs), target_nats=None if return_logits else nats)


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
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        if predict_from is not None and self.skips_unread(tokens, kwargs):
            kwargs["read_from"] = predict_from
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
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        if pool_from is None and tokens is not None:
            documents = find_documents(position_ids, attention_mask, None)
            pool_from = document_places(tokens, attention_mask, documents)[:, 0]
        if predict_from is not None and self.skips_unread(tokens, kwargs):
            kwargs["read_from"] = torch.cat((predict_from, pool_from))
        outputs, logits, loss, nats = self.forward_masked(inputs, labels, predict_from, **kwargs)
        states = outputs.last_hidden_state
        first = chosen(states, pool_from) if states.ndim == 3 else states[len(predict_from) :]
        order_logits = self.seq_relationship(self.pooler(first))
        order_nats = None
        if next_sentence_label is not None:
            label = next_sentence_label.reshape(-1)
            check_count("next_sentence_label", len(label), len(order_logits), "document")
            order_loss = token_classification_loss(order_logits, label, num_pairs_in_batch)
            loss = order_loss if loss is None else loss + order_loss
            order_nats = target_nats(order_logits.detach(), label)
        nats_of = {"target_nats": nats, "next_sentence_nats": order_nats}
        return WeftPreTrainingOutput(loss, logits, order_logits, **captured(outputs), **nats_of)


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


MODELS = (WeftModel, WeftTextEncoder, WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining)
MODELS += (WeftForSequenceClassification, WeftForTokenClassification, WeftForQuestionAnswering)
MODELS += (WeftForMultipleChoice, WeftForConditionalGeneration)
for _model in MODELS:  # what saves a model copies the file that its class is of, and what that imports: all of them
    _model.__module__ = __name__
for _auto_class, _reference in AUTO_MAP.items():
    if _auto_class != "AutoConfig":
        globals()[_reference.split(".")[-1]].register_for_auto_class(_auto_class)
WeftForPreTraining.register_for_auto_class("AutoModelForPreTraining")
WeftTextEncoder.register_for_auto_class("AutoModelForTextEncoding")
WeftConfig.register_for_auto_class()
