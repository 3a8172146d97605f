"""The Weft models: embed -> masks -> positions -> layers -> norm, and the heads."""

import copy
from typing import Any, Unpack

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import WeftAttention, check_backend, create_masks, document_lengths, find_documents
from .configuration_weft import AUTO_MAP, WeftConfig
from .layers import WeftLayer, WeftRMSNorm, dropout, init_weights
from .losses import causal_lm_loss
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
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Args:
            input_ids: [batch, tokens]; or inputs_embeds: [batch, tokens, hidden_size]. Exactly one of them.
            attention_mask: [batch, cached + new tokens], 1 for tokens and 0 for padding; or a 4-D mask, or a dict
                of masks by layer type, obeyed as they are.
            position_ids: [batch, tokens]. Wherever they do not grow by 1, a new document begins, and documents do
                not see each other. None: counted over the attention mask, so that padding has no effect.
            past_key_values: keys and values of earlier tokens.
            use_cache: whether to return keys and values; `is_causal` (bool) overrides the config's.

        Returns:
            last_hidden_state [batch, tokens, hidden_size], after the final norm.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        documents = find_documents(position_ids, attention_mask, past_key_values)
        if position_ids is None:
            position_ids = count_positions(inputs_embeds, attention_mask, past_key_values)
        masks = attention_mask
        if not isinstance(masks, dict):
            masks = create_masks(self.config, inputs_embeds, attention_mask, past_key_values, documents)
        if documents is not None:
            kwargs = {**document_lengths(self.config, documents, inputs_embeds.shape[0]), **kwargs}

        position_embeddings = self.rotary_emb(inputs_embeds, position_ids)
        hidden_states = self.dropout(inputs_embeds)
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


class WeftForCausalLM(WeftPreTrainedModel, GenerationMixin):
    """The stack with a next-token head; causal whatever the config's `is_causal` says."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: WeftConfig) -> None:
        super().__init__(config)
        self.model = WeftModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
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
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
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


for _auto_class, _reference in AUTO_MAP.items():
    if _auto_class != "AutoConfig":
        globals()[_reference.split(".")[-1]].register_for_auto_class(_auto_class)
WeftConfig.register_for_auto_class()
