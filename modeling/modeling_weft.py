"""The Weft models: embed -> masks -> positions -> layers -> norm, and the heads."""

import copy
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast, MaskedLMOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import (
    WeftAttention,
    check_backend,
    create_masks,
    document_lengths,
    find_documents,
    first_tokens,
    previous_tokens,
)
from .configuration_weft import AUTO_MAP, WeftConfig
from .layers import WeftHeadTransform, WeftLayer, WeftPooler, WeftRMSNorm, dropout, init_weights
from .losses import causal_lm_loss, masked_lm_loss, target_nats, token_cross_entropy
from .positions import WeftRotaryEmbedding, count_positions


class WeftPreTrainedModel(PreTrainedModel):
    """What every Weft model shares: loading, initial weights, backends."""

    config_class = WeftConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["WeftLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": WeftLayer, "attentions": WeftAttention}

    def __init__(self, config: WeftConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        check_backend(self.config, self.config._attn_implementation)

    def set_attn_implementation(self, attn_implementation: str | dict[str, str], *args: Any, **kwargs: Any) -> None:
        """Change the attention backend; one that cannot compute this config is refused with a ValueError."""
        check_backend(self.config, attn_implementation)
        super().set_attn_implementation(attn_implementation, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        init_weights(module, self.config)


class WeftModel(WeftPreTrainedModel):
    """The stack without a head; its direction of attention is the config's `is_causal`."""

    def __init__(self, config: WeftConfig) -> None:
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.dropout = dropout(config)
        self.layers = nn.ModuleList(WeftLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.norm = WeftRMSNorm(config.hidden_size, config.norm_eps)
        self.rotary_emb = WeftRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

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
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Args:
            input_ids: [batch, tokens]; or inputs_embeds: [batch, tokens, hidden_size]. Exactly one of them.
            attention_mask: [batch, cached + new tokens], 1 for tokens and 0 for padding; or a 4-D mask, or a dict
                of masks by layer type, obeyed as they are.
            position_ids: [batch, tokens]. Wherever they do not grow by 1, a new document begins, and documents do
                not see each other. None: counted over the attention mask, so that padding has no effect.
            past_key_values: keys and values of earlier tokens.
            use_cache: whether to return keys and values (of a causal model: without that, earlier tokens would have
                to change). `is_causal` (bool) overrides the config's.
            token_type_ids: [batch, tokens], read where the config has type_vocab_size; None: all 0.
            causal_rows: bool [batch], the rows of a bidirectional batch that are to be causal.

        Returns:
            last_hidden_state [batch, tokens, hidden_size], after the final norm.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        use_cache = use_cache and self.config.is_causal
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        documents = find_documents(position_ids, attention_mask, past_key_values)
        if position_ids is None:
            position_ids = count_positions(inputs_embeds, attention_mask, past_key_values)
        masks = create_masks(self.config, inputs_embeds, attention_mask, past_key_values, documents, causal_rows)
        if documents is not None:
            kwargs = {**document_lengths(self.config, documents, inputs_embeds.shape[0]), **kwargs}

        position_embeddings = self.rotary_emb(inputs_embeds, position_ids)
        hidden_states = inputs_embeds
        if self.config.type_vocab_size:
            types = torch.zeros_like(position_ids) if token_type_ids is None else token_type_ids
            hidden_states = hidden_states + self.token_type_embeddings(types)
        hidden_states = self.dropout(hidden_states)
        for layer, layer_type in zip(self.layers[: self.config.num_hidden_layers], self.config.layer_types):
            hidden_states = layer(
                hidden_states,
                attention_mask=masks[layer_type],
                position_embeddings=position_embeddings,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values if use_cache else None
        )


class WeftLanguageModel(WeftPreTrainedModel):
    """The stack with the language-model head, which the causal, the masked and the pretraining classes share: any of
    them loads what another saved."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {
        "head_transform": (["hidden_states"], ["hidden_states"]),
        "lm_head": (["hidden_states"], ["logits"]),
    }
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: WeftConfig) -> None:
        super().__init__(config)
        self.model = WeftModel(config)
        self.vocab_size = config.vocab_size
        self.head_transform = WeftHeadTransform(config) if config.lm_head_transform else nn.Identity()
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)

    def get_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Hidden states [..., hidden_size] to logits [..., vocab_size]."""
        return self.lm_head(self.head_transform(hidden_states))

    def get_masked_logits(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any,
        position_ids: torch.Tensor | None,
        predict_from: torch.Tensor | None,
    ) -> torch.Tensor:
        """Logits of a masked language model.

        Args:
            hidden_states: [batch, tokens, hidden_size].
            attention_mask, position_ids: as in `find_documents`.
            predict_from: indices [n] into the batch's tokens, row after row; or None.

        Returns:
            Logits [n, vocab_size] at these places. None: [batch, tokens, vocab_size], those at i predict token i, which
            a model with `masked_next_token` predicts from the token before it (nothing stands before a document's
            first token, whose logits have no meaning then).
        """
        if predict_from is not None:
            return self.get_logits(hidden_states.flatten(0, 1)[predict_from])
        if self.config.masked_next_token:
            previous = previous_tokens(hidden_states, attention_mask, position_ids)
            hidden_states = hidden_states.gather(1, previous[..., None].expand_as(hidden_states))
        return self.get_logits(hidden_states)

    def forward_masked(
        self,
        attention_mask: Any,
        position_ids: torch.Tensor | None,
        labels: torch.Tensor | None,
        predict_from: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[BaseModelOutputWithPast, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """What the masked heads have in common: the stack without cache, bidirectional unless `is_causal` says
        otherwise, logits and loss.

        Returns:
            The stack's outputs, the logits, and where labels were given the loss and, with `predict_from`, the
            cross-entropy of each target.
        """
        kwargs = {"is_causal": False, **kwargs, "use_cache": False}
        outputs = self.model(attention_mask=attention_mask, position_ids=position_ids, **kwargs)
        logits = self.get_masked_logits(outputs.last_hidden_state, attention_mask, position_ids, predict_from)
        if labels is None:
            return outputs, logits, None, None
        nats = target_nats(logits.flatten(0, -2), labels.flatten())
        loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, nats=nats, **kwargs)
        return outputs, logits, loss, None if predict_from is None else nats.detach()


class WeftForCausalLM(WeftLanguageModel, GenerationMixin):
    """The stack with a next-token head; causal whatever the config's `is_causal` says."""

    def __init__(self, config: WeftConfig) -> None:
        super().__init__(config)
        self.loss_function = causal_lm_loss
        self.post_init()

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
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Args:
            labels: [batch, tokens], the input's own tokens, -100 where there is no target; the loss compares the
                logits at i with the label at i + 1. With `shift_labels` (already aligned) they are not looked at.
            logits_to_keep: compute logits for the last so many tokens only (0: all), or for the tokens at these
                indices [n].
            kwargs: `num_items_in_batch` and `shift_labels` for the loss (see `causal_lm_loss`); the rest as in
                `WeftModel.forward`.

        Returns:
            loss (a scalar, where labels were given) and logits [batch, tokens kept, vocab_size].
        """
        kwargs.setdefault("is_causal", True)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            token_type_ids=token_type_ids,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.get_logits(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

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
        config = copy.copy(config)
        config.is_causal = True
        documents = find_documents(position_ids, attention_mask, past_key_values)
        return create_masks(config, inputs_embeds, attention_mask, past_key_values, documents)


@dataclass
class WeftMaskedLMOutput(MaskedLMOutput):
    """As MaskedLMOutput, and, where both `predict_from` and `labels` were given, `target_nats` [n]: the cross-entropy
    of each target (without gradient)."""

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

    def __init__(self, config: WeftConfig) -> None:
        super().__init__(config)
        self.loss_function = masked_lm_loss
        self.post_init()

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
            kwargs: `num_items_in_batch` and `loss_weights` for the loss (see `masked_lm_loss`); the rest as in
                `WeftModel.forward`.

        Returns:
            loss (a scalar, where labels were given) and logits [batch, tokens, vocab_size] or [n, vocab_size].
        """
        outputs, logits, loss, nats = self.forward_masked(
            attention_mask,
            position_ids,
            labels,
            predict_from,
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        return WeftMaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            target_nats=nats,
        )


class WeftForPreTraining(WeftLanguageModel):
    """Masked language model and, from each document's first token, next-sentence (or sentence-order) prediction, as in
    BERT (https://huggingface.co/papers/1810.04805) and ALBERT (https://huggingface.co/papers/1909.11942)."""

    def __init__(self, config: WeftConfig) -> None:
        super().__init__(config)
        self.pooler = WeftPooler(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        self.loss_function = masked_lm_loss
        self.post_init()

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

        Returns:
            loss, the sum of both (or of those whose labels were given), and the logits of both.

        Raises:
            ValueError: as many next-sentence labels as there are documents are needed.
        """
        outputs, logits, loss, nats = self.forward_masked(
            attention_mask,
            position_ids,
            labels,
            predict_from,
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        if pool_from is None:
            pool_from = first_tokens(hidden_states, attention_mask, position_ids)
        order_logits = self.seq_relationship(self.pooler(hidden_states.flatten(0, 1)[pool_from]))
        order_nats = None
        if next_sentence_label is not None:
            label = next_sentence_label.reshape(-1)
            if len(label) != len(order_logits):
                raise ValueError(
                    f"next_sentence_label has {len(label)} labels for {len(order_logits)} documents: give one for each "
                    "document of the batch, -100 where it is no target, or name the tokens to pool with pool_from."
                )
            order_loss = token_cross_entropy(order_logits, label, num_pairs_in_batch)
            loss = order_loss if loss is None else loss + order_loss
            order_nats = target_nats(order_logits.detach(), label)
        return WeftPreTrainingOutput(
            loss=loss,
            prediction_logits=logits,
            seq_relationship_logits=order_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            target_nats=nats,
            next_sentence_nats=order_nats,
        )


for _auto_class, _reference in AUTO_MAP.items():
    if _auto_class != "AutoConfig":
        globals()[_reference.split(".")[-1]].register_for_auto_class(_auto_class)
WeftConfig.register_for_auto_class()
