"""How strongly tokens look at each other: the one attention module."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .backends import BACKENDS, eager_attention, read_pages
from .positions import Distances, PagedDistances, ScoreBias, WeftRelativeBuckets, rotate
from .products import multiply


def find_distances(
    config: PreTrainedConfig,
    states: torch.Tensor,
    cache: Cache | None,
    layer_type: str,
    position_ids: torch.Tensor,
    mask: Any,
    given: dict[str, Any],
) -> Distances | PagedDistances:
    """How far apart the new tokens [batch, tokens, anything] and all that layers of this type see are. In continuous
    batching, which puts a cache among what is `given` to the backend, `mask` [1, 1, tokens, keys] is of many requests:
    each has its last new token at the end of its part of the row, and its keys, in order, end with that token."""
    tokens, device = states.shape[1], states.device
    if "cache" in given:
        ends, key_ends = given["cu_seq_lens_q"][1:], given["cu_seq_lens_k"][layer_type][1:]
        index, positions = torch.arange(mask.shape[-1], device=device), position_ids[0]
        request = torch.searchsorted(key_ends, index, right=True).clamp(max=len(ends) - 1)
        key_positions = positions[ends - 1][request] - (key_ends[request] - 1 - index)
        return PagedDistances(key_positions - positions[:, None])
    if cache is None:
        return Distances(tokens, tokens, 0, device)
    layer = config.layer_types.index(layer_type)
    keys, offset = cache.get_mask_sizes(tokens, layer)
    return Distances(tokens, keys, offset - cache.get_seq_length(layer), device)


def chosen(states: torch.Tensor, read_from: torch.Tensor | None) -> torch.Tensor:
    """Those of states [batch, tokens, width] at the indices read_from [n], [n, width]; None: all as they are."""
    return states if read_from is None else states.flatten(0, 1)[read_from]


class WeftAttention(nn.Module):
    """Multi-head attention with grouped queries and, where the config asks, rotary positions, QK-norm, a cap and a bias
    of scores; to the tokens themselves, or to an encoder's."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int, qk_norm: Callable, is_cross: bool = False) -> None:
        """`qk_norm` makes the norm of so many query or key heads (`unchanged` where there is none); `is_cross`: whether
        keys and values come from an encoder."""
        super().__init__()
        self.config, self.layer_idx, self.is_cross = config, layer_idx, is_cross
        self.is_causal = config.is_causal and not is_cross
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        is_sliding = config.layer_types[layer_idx] == "sliding_attention" and not is_cross
        self.sliding_window = config.sliding_window if is_sliding else None

        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=config.attention_out_bias)
        self.o_proj.writes_to_residual = True
        self.softcap, self.dropout = config.attn_logit_softcapping, config.attention_dropout
        self.interleaved, self.is_gated = config.position_interleaved, config.attention_gate
        if self.is_gated:
            self.gates_per_head = config.head_dim if config.attention_gate_over == "element" else 1
            gates = config.num_attention_heads * self.gates_per_head
            self.head_gate = nn.Linear(config.hidden_size, gates, bias=False)
        self.mixes_values = config.value_residual and not is_cross and layer_idx not in config.attention_layers[:1]
        if self.mixes_values:
            self.value_mix = nn.Parameter(torch.full((2,), 0.5))
        self.q_norm, self.k_norm = qk_norm(config.num_attention_heads), qk_norm(config.num_key_value_heads)
        self.normed_shape = (-1, self.head_dim) if config.qk_norm_over == "head" else (-1,)
        if not is_cross and config.position_embedding_type == "t5" and config.relative_attention_per_layer:
            self.position_bias = WeftRelativeBuckets(config)
        if not is_cross and config.position_embedding_type == "disentangled":
            self.scaling = (config.head_dim * (1 + len(config.pos_att_type))) ** -0.5
            self.table_dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: Any = None,
        table: torch.Tensor | None = None,
        first_values: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        relative: Any = None,
        past_key_values: Cache | None = None,
        read_from: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Args:
            hidden_states: [batch, tokens, hidden_size].
            encoder_hidden_states: [batch, encoder tokens, hidden_size], of attention to an encoder.
            attention_mask: in the form the backend wants (see `create_masks`).
            position_embeddings: what `rotate` turns queries and keys by; None: nothing is turned.
            table, relative: what the score bias is made of (see `_score_bias`); None: there is none.
            first_values: [batch, tokens, key heads x head_dim], of these tokens in the first layer with attention;
                None: this is it.
            read_from: indices [n] into the batch's tokens; what the others see is not mapped back.
            kwargs: for the backend; `is_causal` overrides the config's.
        Returns: [batch, tokens, hidden_size] (with read_from [n, hidden_size]), the attention weights where the backend
            has them, and first_values."""
        query = self._heads(self.q_norm, multiply(self.q_proj, hidden_states))
        if position_embeddings is not None:
            query = rotate(query, *position_embeddings, self.interleaved)
        if self.is_cross:
            key, value = self._encoder_keys(encoder_hidden_states, past_key_values)
        else:
            value = multiply(self.v_proj, hidden_states)
            if self.mixes_values:
                value = torch.addcmul(value * self.value_mix[0], first_values, self.value_mix[1])
            first_values = value if first_values is None else first_values
            key, value = self._keys(hidden_states, value)
            if position_embeddings is not None:
                key = rotate(key, *position_embeddings, self.interleaved)
            if isinstance(past_key_values, EncoderDecoderCache):
                past_key_values = past_key_values.self_attention_cache
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx)

        window, is_causal = self.sliding_window, kwargs.setdefault("is_causal", self.is_causal)
        if window is not None and not is_causal:
            window += 1  # read by flash attention only, which looks window - 1 to each side where the masks look window
        implementation = self.config._attn_implementation
        # servers that put their own attention in look for this lookup in the source, and for one call with the scale
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        attend = BACKENDS.get(implementation, attend)
        if "cache" in kwargs and implementation in BACKENDS:
            key, value = read_pages(kwargs.pop("cache"), key, value, self.layer_idx, kwargs)
        elif implementation == "paged|eager":
            raise ValueError(f"{implementation} is for continuous batching alone: use attn_implementation='eager'.")
        if relative is not None:
            kwargs["score_bias"] = self._score_bias(table, relative, query, key, is_causal)
        kwargs |= {"sliding_window": window, "softcap": self.softcap}
        kwargs["dropout"] = self.dropout if self.training else 0.0
        mixed, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, **kwargs)
        if self.is_gated:
            mixed = mixed.reshape(*hidden_states.shape[:-1], -1, self.head_dim)
            gates = multiply(self.head_gate, hidden_states).sigmoid()
            mixed = mixed * gates.unflatten(-1, (-1, self.gates_per_head))
        mixed = mixed.reshape(*hidden_states.shape[:-1], -1)
        return multiply(self.o_proj, chosen(mixed, read_from)), weights, first_values

    def _heads(self, norm: Callable[[torch.Tensor], torch.Tensor], projected: torch.Tensor) -> torch.Tensor:
        """[batch, tokens, heads x head_dim] to [batch, heads, tokens, head_dim], normalised per head or over all."""
        normed = norm(projected.view(*projected.shape[:2], *self.normed_shape))
        return normed.view(*projected.shape[:2], -1, self.head_dim).transpose(1, 2)

    def _keys(self, states: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys of states [batch, tokens, hidden_size], and `value` [batch, tokens, heads x head_dim] in heads."""
        value = value.view(*states.shape[:2], -1, self.head_dim).transpose(1, 2)
        return self._heads(self.k_norm, multiply(self.k_proj, states)), value

    def _encoder_keys(self, states: torch.Tensor, cache: Cache | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the encoder's tokens, computed once and then read from the cache."""
        if not isinstance(cache, EncoderDecoderCache):
            return self._keys(states, multiply(self.v_proj, states))
        if cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(*self._keys(states, multiply(self.v_proj, states)), self.layer_idx)

    def _score_bias(
        self, table: torch.Tensor | None, relative: Any, query: torch.Tensor, key: torch.Tensor, is_causal: bool
    ) -> ScoreBias:
        """The bias of this layer's scores of queries and keys [batch, heads, tokens, head_dim].

        `relative` are distances, of which `table` has the numbers that all layers share, or this layer numbers of its
        own; or, disentangled, distances and their buckets, of which `table` has the vectors [buckets, hidden_size],
        compared with queries (what content says of a position, c2p) and keys (p2c) through this layer's own maps."""
        if not isinstance(relative, tuple):
            table = self.position_bias(relative, query.dtype, is_causal) if table is None else table
            return ScoreBias(relative, table)
        distances, buckets = relative
        table = self.table_dropout(table)[None]
        query_terms = key_terms = None
        if "c2p" in self.config.pos_att_type:
            query_terms = query @ self._heads(self.k_norm, self.k_proj(table)).transpose(-1, -2) * self.scaling
        if "p2c" in self.config.pos_att_type:
            key_terms = key @ self._heads(self.q_norm, self.q_proj(table)).transpose(-1, -2) * self.scaling
        return ScoreBias(distances, None, query_terms, key_terms, buckets)
