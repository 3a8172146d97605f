"""Norms, feed-forwards, the block, and the table of initial weights."""

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import WeftAttention


class WeftRMSNorm(nn.Module):
    """Divide by the root mean square, then scale (https://huggingface.co/papers/1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalises the last dimension; the mean square of half-precision input is taken in float32."""
        return nn.functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class WeftMLP(nn.Module):
    """Gated feed-forward (SwiGLU with hidden_act "silu", https://huggingface.co/papers/2002.05202)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.down_proj.writes_to_residual = True
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))


class WeftLayer(GradientCheckpointingLayer):
    """Attention, then the feed-forward, each on a normalised copy and added to the residual stream (pre-norm)."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int) -> None:
        super().__init__()

        def head_norm() -> nn.Module:
            return WeftRMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

        self.self_attn = WeftAttention(config, layer_idx, head_norm)
        self.mlp = WeftMLP(config)
        self.input_layernorm = WeftRMSNorm(config.hidden_size, config.norm_eps)
        self.post_attention_layernorm = WeftRMSNorm(config.hidden_size, config.norm_eps)
        self.dropout = dropout(config.hidden_dropout)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Args:
        hidden_states: [batch, tokens, hidden_size]; the rest goes to the attention.
        """
        mixed, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.dropout(mixed)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


class WeftHeadTransform(nn.Module):
    """What may stand before the language-model head's output matrix: dense map, activation, norm
    (BERT, https://huggingface.co/papers/1810.04805)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.lm_head_bias)
        self.act_fn = ACT2FN[config.hidden_act]
        self.norm = WeftRMSNorm(config.hidden_size, config.norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.act_fn(self.dense(hidden_states)))


class WeftPooler(nn.Module):
    """Dense map and tanh of one hidden state for each document, as in BERT."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(hidden_states))


def dropout(share: float) -> nn.Module:
    """Dropout of that share of activations, an Identity where it is 0."""
    return nn.Dropout(share) if share else nn.Identity()


@torch.no_grad()
def init_weights(module: nn.Module, config: PreTrainedConfig) -> None:
    """Initial weights that differ from transformers' defaults (normal with initializer_range, norms at 1).

    The projections that write to the residual stream start smaller, so that its variance does not grow with the
    number of layers (GPT-2). They are marked, and not reached through the module that holds them, because
    transformers passes over modules without parameters of their own.
    """
    std = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
    if getattr(module, "writes_to_residual", False):
        init.normal_(module.weight, mean=0.0, std=std)
