"""The head that all language models share: logits, loss, and what the masked ones have in common."""

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from .attention import chosen
from .configuration_weft import WeftConfig
from .layers import WeftTransform
from .losses import linear_cross_entropy, masked_lm_loss, target_nats
from .masks import previous_tokens
from .products import multiply
from .recurrent import refuse_direction
from .stack import WeftHeadModel


class WeftLanguageModel(WeftHeadModel):
    """The stack with the head that all language models share: any of them loads what another saved."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"head_transform": (["hidden_states"], ["hidden_states"]), "lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}
    loss_function = staticmethod(masked_lm_loss)  # labels stand where their logits do
    has_encoder = False
    reads_one_way = False  # what the head asks of its stack, whatever is_causal of the config says

    def __init__(self, config: WeftConfig) -> None:
        if config.is_encoder_decoder != self.has_encoder:
            kind = "an encoder-decoder" if self.has_encoder else "one stack"
            raise ValueError(
                f"{type(self).__name__} is {kind}, but the config has is_encoder_decoder={config.is_encoder_decoder}: "
                "change that, or take WeftForConditionalGeneration for two stacks and any other class for one."
            )
        if "recurrent" in config.layer_types and config.is_causal != self.reads_one_way:
            raise ValueError(f"{type(self).__name__} cannot use this config: {refuse_direction(config.is_causal)}")
        super().__init__(config)

    def build_head(self, config: WeftConfig) -> None:
        self.vocab_size = config.vocab_size
        transform = (config.hidden_act, config.lm_head_transform_bias, True)
        self.head_transform = WeftTransform(config, *transform) if config.lm_head_transform else nn.Identity()
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)

    def get_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Hidden states [..., hidden_size] to logits [..., vocab_size]."""
        logits = multiply(self.lm_head, self.head_transform(hidden_states) * self.config.lm_head_scale)
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
            is_read = hidden_states.ndim == 2  # with these first
            hidden_states = hidden_states[: len(predict_from)] if is_read else chosen(hidden_states, predict_from)
        elif self.config.masked_next_token:
            _, attention_mask, position_ids, *_ = inputs
            previous = previous_tokens(hidden_states, attention_mask, position_ids)
            hidden_states = hidden_states.gather(1, previous[..., None].expand_as(hidden_states))
        logits, loss, nats = self.predict(hidden_states, labels, labels, **kwargs)
        return outputs, logits, loss, None if predict_from is None or nats is None else nats.detach()
