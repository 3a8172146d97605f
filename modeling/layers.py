"""Norms, feed-forwards, the block, and the table of initial weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import WeftAttention, chosen
from .linear_attention import DECAY, STEP, WeftLinearAttention
from .positions import WeftSinusoidalEmbedding
from .products import multiply
from .recurrent import WeftCell, WeftRecurrent


class WeftRMSNorm(nn.Module):
    """Divide by the root mean square, then scale (https://huggingface.co/papers/1910.07467)."""

    def __init__(self, width: int, eps: float, affine: bool = True, offset: float = 0.0) -> None:
        """`affine`: whether there is a scale; `offset`: added to it, with 1.0 (Gemma) weights around 0 scale by 1."""
        super().__init__()
        self.width, self.eps, self.offset = width, eps, offset
        self.register_parameter("weight", nn.Parameter(torch.full((width,), 1.0 - offset)) if affine else None)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalises the last dimension; the mean square of half-precision input is taken in float32."""
        weight = self.weight + self.offset if self.offset and self.weight is not None else self.weight
        return nn.functional.rms_norm(hidden_states, (self.width,), weight, self.eps)


def make_norm(config: PreTrainedConfig, width: int) -> nn.Module:
    """The norm that the config names, of the last dimension (LayerNorm: https://huggingface.co/papers/1607.06450)."""
    if config.norm_type == "layernorm":
        return nn.LayerNorm(width, config.norm_eps, config.norm_affine, config.norm_affine and config.norm_bias)
    return WeftRMSNorm(width, config.norm_eps, config.norm_affine, config.norm_offset)


class WeftMLP(nn.Module):
    """Feed-forward: plain, or gated (SwiGLU with hidden_act "silu", https://huggingface.co/papers/2002.05202)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        if config.mlp_gated:
            self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.down_proj.writes_to_residual = True
        self.act_fn, self.is_gated = ACT2FN[config.hidden_act], config.mlp_gated

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        inner = multiply(self.up_proj, hidden_states)
        inner = self.act_fn(multiply(self.gate_proj, hidden_states)) * inner if self.is_gated else self.act_fn(inner)
        return multiply(self.down_proj, inner)


# Where a sublayer is normalised: its input, its output, and the sum of both.
NORM_PLACES = {
    "pre": (True, False, False),  # GPT-2, Llama (https://huggingface.co/papers/2002.04745)
    "post": (False, False, True),  # "Attention Is All You Need", BERT
    "sandwich": (True, True, False),  # Gemma 2 (https://huggingface.co/papers/2105.13290)
    "output": (False, True, False),  # OLMo 2 (https://huggingface.co/papers/2501.00656)
}


# layer type -> what mixes tokens in the place of attention, and its name in the layer
MIXERS = {"linear_attention": ("linear_attn", WeftLinearAttention), "recurrent": ("recurrent", WeftRecurrent)}


def norm_places(config: PreTrainedConfig, layer_idx: int) -> tuple[bool, bool, bool]:
    """Where the sublayers of a layer are normalised, as in NORM_PLACES."""
    is_linear = config.layer_types[layer_idx] == "linear_attention"
    return NORM_PLACES[config.linear_norm_position if is_linear else config.norm_position]


class WeftLayer(GradientCheckpointingLayer):
    """Attention, or what layer_types has in its place, in a decoder of an encoder-decoder attention to the encoder's
    states, then the feed-forward: each added to the residual stream. With `parallel_residual` the feed-forward reads
    what the (first) attention reads (GPT-NeoX, https://huggingface.co/papers/2204.06745)."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int, is_cross: bool = False) -> None:
        super().__init__()
        before, behind, around = norm_places(config, layer_idx)

        def norm(is_there: bool) -> Callable[[torch.Tensor], torch.Tensor]:
            return make_norm(config, config.hidden_size) if is_there else unchanged

        def qk_norm(heads: int) -> Callable[[torch.Tensor], torch.Tensor]:
            width = config.head_dim * (heads if config.qk_norm_over == "width" else 1)
            return make_norm(config, width) if config.qk_norm else unchanged

        self.is_parallel, self.is_cross = config.parallel_residual, is_cross
        self.dropout = dropout(config.hidden_dropout, config.residual_scale)
        self.hands_on_values = config.value_residual and [layer_idx] == config.attention_layers[:1]
        self.mixer_name, make = MIXERS.get(config.layer_types[layer_idx], ("self_attn", WeftAttention))
        self.add_module(self.mixer_name, make(config, layer_idx, qk_norm))
        self.input_layernorm = norm(before and (layer_idx > 0 or config.first_norm))
        self.attention_output_norm, self.attention_residual_norm = norm(behind), norm(around)
        if is_cross:
            self.cross_attn = WeftAttention(config, layer_idx, qk_norm, is_cross=True)
            self.cross_input_norm = norm(before)
            self.cross_output_norm, self.cross_residual_norm = norm(behind), norm(around)
        self.mlp = WeftMLP(config)
        self.post_attention_layernorm = norm(before)
        self.mlp_output_norm, self.mlp_residual_norm = norm(behind), norm(around)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: Any = None,
        table: torch.Tensor | None = None,
        first_values: torch.Tensor | None = None,
        cross_mask: Any = None,
        read_from: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """[batch, tokens, hidden_size] to the same, and of the first attention with `value_residual` its values. That
        to the encoder sees `encoder_hidden_states` under `cross_mask`, and `kwargs` go to both attentions. With
        `read_from` (indices [n] into the batch's tokens; not beside an encoder) only these go on: [n, hidden_size]."""
        inputs = (self.input_layernorm(hidden_states), None, attention_mask, table, first_values)
        mixed, _, first_values = getattr(self, self.mixer_name)(*inputs, read_from=read_from, **kwargs)
        hidden_states = chosen(hidden_states, read_from)
        mixed = self.dropout(self.attention_output_norm(mixed))
        read_by_mlp, hidden_states = hidden_states, self.attention_residual_norm(hidden_states + mixed)
        if self.is_cross:
            kwargs |= {"position_embeddings": None, "relative": None, "is_causal": False}
            inputs = (self.cross_input_norm(hidden_states), encoder_hidden_states, cross_mask)
            mixed, *_ = self.cross_attn(*inputs, **kwargs)
            mixed = self.dropout(self.cross_output_norm(mixed))
            hidden_states = self.cross_residual_norm(hidden_states + mixed)
        read_by_mlp = read_by_mlp if self.is_parallel else hidden_states
        inner = self.mlp_output_norm(self.mlp(self.post_attention_layernorm(read_by_mlp)))
        hidden_states = self.mlp_residual_norm(hidden_states + self.dropout(inner))
        return (hidden_states, first_values) if self.hands_on_values else hidden_states


class WeftTransform(nn.Module):
    """What may stand before an output matrix: dense map, activation, norm. Language-model heads have it in BERT
    (https://huggingface.co/papers/1810.04805), classification heads in ModernBERT; BERT's pooler is it without norm."""

    def __init__(self, config: PreTrainedConfig, activation: str, bias: bool, has_norm: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=bias)
        self.act_fn = ACT2FN[activation]
        self.norm = make_norm(config, config.hidden_size) if has_norm else nn.Identity()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(self.act_fn(multiply(self.dense, hidden_states)))


class WeftTokenEmbedding(nn.Embedding):
    """A vector for each token id, times `embedding_scale` (in Gemma the square root of hidden_size)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.embed_scale = config.embedding_scale  # read by servers that put a table of their own in its place

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        vectors = super().forward(input_ids)
        return vectors if self.embed_scale == 1 else vectors * self.embed_scale


def unchanged(states: torch.Tensor) -> torch.Tensor:
    """Stands for a part that a config leaves out; a module that does nothing costs as much as a small operation."""
    return states


class WeftScaledDropout(nn.Dropout):
    """Dropout, and a factor of what is left."""

    def __init__(self, share: float, scale: float) -> None:
        super().__init__(share)
        self.scale = scale

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states) * self.scale


def dropout(share: float, scale: float = 1.0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Dropout of that share of activations, times a scale."""
    if scale != 1:
        return WeftScaledDropout(share, scale)
    return nn.Dropout(share) if share else unchanged


@torch.no_grad()
def init_weights(module: nn.Module, config: PreTrainedConfig) -> None:
    """Initial weights that differ from transformers' defaults (normal with initializer_range, norms at 1).

    The projections that write to the residual stream start smaller, so that its variance does not grow with the number
    of layers (GPT-2). They are marked because transformers passes over modules without parameters of their own."""
    std = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
    if getattr(module, "writes_to_residual", False):
        init.normal_(module.weight, mean=0.0, std=std)
    if getattr(module, "mixes_values", False):
        init.constant_(module.value_mix, 0.5)
    if isinstance(module, WeftLinearAttention):
        # as in the paper's own code, which has this of Mamba 2 (https://huggingface.co/papers/2405.21060)
        init.copy_(module.A_log, torch.empty_like(module.A_log, dtype=torch.float32).uniform_(*DECAY).log())
        step = torch.empty_like(module.dt_bias, dtype=torch.float32).uniform_(*map(math.log, STEP)).exp()
        init.copy_(module.dt_bias, step + torch.log(-torch.expm1(-step)))  # softplus makes it the step again
    if isinstance(module, WeftCell):
        bound = 1 / math.sqrt(module.width)
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("weight"):
                init.uniform_(parameter, -bound, bound)
            else:  # an LSTM begins with its forget gates open
                start = torch.zeros_like(parameter)
                if module.kind == "lstm" and name.startswith("bias_ih"):
                    start[module.width : 2 * module.width] = 1.0
                init.copy_(parameter, start)
    if isinstance(module, WeftRMSNorm) and module.weight is not None:
        init.constant_(module.weight, 1.0 - module.offset)
    if isinstance(module, WeftSinusoidalEmbedding):  # transformers gives buffers no value back after loading
        init.copy_(module.table, module.compute())
