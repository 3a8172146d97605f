"""Where a token stands: what is added to its embedding, how queries and keys are turned, and how far apart they are."""

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.utils import is_tracing


def count_positions(inputs_embeds: torch.Tensor, attention_mask: Any, past_key_values: Cache | None) -> torch.Tensor:
    """Positions [batch or 1, tokens] of tokens [batch, tokens, hidden_size] where the caller gives none: counted over
    the attention mask [batch, cached + new tokens], so that padding on either side has no effect; or, where there is
    none that covers all tokens, over everything."""
    seen, tokens = 0 if past_key_values is None else past_key_values.get_seq_length(), inputs_embeds.shape[1]
    index = torch.arange(tokens, device=inputs_embeds.device) + seen
    is_padding_mask = torch.is_tensor(attention_mask) and attention_mask.ndim == 2
    is_known = not (torch.is_tensor(seen) and is_tracing(seen))  # a static cache keeps its length in a tensor
    if is_padding_mask and is_known and attention_mask.shape[-1] == tokens + seen:
        return (attention_mask.bool().cumsum(-1) - 1).clamp(min=0)[:, -tokens:]
    return index.unsqueeze(0)


class WeftPositionEmbedding(nn.Embedding):
    """A learned vector for each position, added to the token's embedding (BERT, GPT-2); the first `position_offset`
    rows are no position (RoBERTa, OPT and BART begin behind them)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config.max_position_embeddings + config.position_offset, config.hidden_size)
        self.offset = config.position_offset

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        """[batch, tokens] to [batch, tokens, hidden_size]; ValueError for a position that has no vector."""
        return super().forward(check_positions(position_ids, self.num_embeddings - self.offset) + self.offset)


class WeftSinusoidalEmbedding(nn.Module):
    """Fixed sines and cosines, added to the token's embedding ("Attention Is All You Need",
    https://huggingface.co/papers/1706.03762, where they alternate; Marian has all sines first)."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.shape = (config.max_position_embeddings, config.hidden_size)
        self.interleaved = config.position_interleaved
        self.register_buffer("table", self.compute(), persistent=False)

    def compute(self) -> torch.Tensor:
        """[positions, hidden_size], computed in float64 (at position 1,000 a float32 angle is wrong by 1e-4)."""
        positions, width = self.shape
        velocities = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)
        angles = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None] * velocities
        sines, cosines = angles.sin(), angles.cos()
        if self.interleaved:
            return torch.stack((sines, cosines), dim=-1).flatten(1)[:, :width].float()
        return torch.cat((sines, cosines[:, : width // 2]), dim=-1).float()

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        """[batch, tokens] to [batch, tokens, hidden_size]; ValueError for a position beyond the table."""
        return nn.functional.embedding(check_positions(position_ids, self.shape[0]), self.table)


def check_positions(position_ids: torch.Tensor, limit: int) -> torch.Tensor:
    """Refuse positions that a table has no row for, where looking is free: on a CPU, or for a row longer than it."""
    if not is_tracing(position_ids) and (position_ids.device.type == "cpu" or position_ids.shape[-1] > limit):
        last = int(position_ids.max()) if position_ids.numel() else 0
        if last >= limit:
            raise ValueError(
                f"The input has {last + 1} positions, but max_position_embeddings is {limit}: give shorter inputs, or "
                "train a model with more positions."
            )
    return position_ids


class WeftRotaryEmbedding(nn.Module):
    """Cosines and sines of the rotation at each position (RoFormer, https://huggingface.co/papers/2104.09864), under
    any scaling that transformers knows, by one set of `rope_parameters` (None: the config has one only).

    transformers recognises such a module by its name and attributes and restores the two buffers after
    `from_pretrained`; `dynamic_rope_update` rewrites them for scalings that depend on the input's length."""

    def __init__(self, config: PreTrainedConfig, parameters: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config = copy.copy(config)
        self.config.rope_parameters = parameters = parameters or config.rope_parameters
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        self.rope_type, self.interleaved = parameters["rope_type"], config.position_interleaved
        compute = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        inv_freq, self.attention_scaling = compute(self.config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: PreTrainedConfig, **_: Any) -> tuple[torch.Tensor, float]:
        """Angular velocity of each rotated pair, in radians per token [rotated_dim / 2], and a scale of 1."""
        parameters = config.rope_parameters
        rotated_dim = int(config.head_dim * parameters.get("partial_rotary_factor", 1.0))
        exponents = torch.arange(0, rotated_dim, 2, dtype=torch.float32) / rotated_dim
        return 1.0 / parameters["rope_theta"] ** exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cos and signed sin (see `rotate`), [batch or 1, tokens, rotated_dim], at position_ids [batch or 1, tokens]:
        with the dtype and device of x, but of angles in float32."""
        angles = position_ids[..., None].float() * self.inv_freq.to(device=x.device, dtype=torch.float32)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        pairs, dim = ((cos, cos), (-sin, sin)), -1 if self.interleaved else -2
        return tuple(torch.stack(pair, dim).flatten(-2).to(x.dtype) for pair in pairs)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool = False) -> torch.Tensor:
    """Turn the pairs (i, i + rotated_dim / 2), or interleaved (2i, 2i + 1), of queries or keys x [batch, heads, tokens,
    head_dim] by cos and sin [batch, 1, tokens, rotated_dim] (negative sines for the first of each pair) in as few
    operations as can be; what lies beyond rotated_dim passes unchanged."""
    rotated_dim = cos.shape[-1]
    if rotated_dim < x.shape[-1]:
        return torch.cat((rotate(x[..., :rotated_dim], cos, sin, interleaved), x[..., rotated_dim:]), dim=-1)
    partner = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) if interleaved else x.roll(rotated_dim // 2, -1)
    return torch.addcmul(x * cos, partner, sin)


# position_embedding_type -> what is added to the embedding of a token
EMBEDDINGS = {"learned": WeftPositionEmbedding, "sinusoidal": WeftSinusoidalEmbedding}


class OnDevice:
    """A dataclass whose tensors move together, as accelerate moves what it gives to layers on another device."""

    def to(self, device: torch.device | int | str, **_: Any) -> Any:
        """The same on a device."""

        def move(value: Any) -> Any:
            if isinstance(value, list):
                return [move(each) for each in value]
            if isinstance(value, torch.device):
                return torch.device(device)
            return value.to(device) if isinstance(value, torch.Tensor | OnDevice) else value

        names = (field.name for field in dataclasses.fields(self))
        return dataclasses.replace(self, **{name: move(getattr(self, name)) for name in names})


@dataclass(frozen=True)
class Distances(OnDevice):
    """How far each key stands from each query, as one line: no edit of scores by position depends on anything else."""

    queries: int  # how many there are
    keys: int
    shift: int | torch.Tensor  # index of the first key minus that of the first query; a cache holds earlier tokens
    device: torch.device  # where tensors are made

    @property
    def line(self) -> torch.Tensor:
        """Index of key minus index of query, ascending: [queries + keys - 1]."""
        return torch.arange(1 - self.queries, self.keys, device=self.device) + self.shift

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Values along the line [..., queries + keys - 1] to those of each query and key [..., queries, keys]."""
        if torch.compiler.is_exporting():  # an exported window has one length only
            key = torch.arange(self.keys, device=values.device) + (self.queries - 1)
            return values[..., key - torch.arange(self.queries, device=values.device)[:, None]]
        return values.unfold(-1, self.keys, 1).flip(-2)


@dataclass(frozen=True)
class PagedDistances(OnDevice):
    """The same of requests that lie side by side in one row: each pair by itself. A mask hides those of two requests,
    whatever their distance."""

    steps: torch.Tensor  # position of key minus position of query [queries, keys]

    @property
    def device(self) -> torch.device:
        return self.steps.device

    @property
    def line(self) -> torch.Tensor:
        """[queries x keys], in no order."""
        return self.steps.flatten()

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Values along the line [..., queries x keys] to [..., queries, keys]."""
        return values.unflatten(-1, self.steps.shape)


@dataclass(frozen=True)
class ScoreBias:
    """What is added to attention scores, as small as it is: by distance (ALiBi, T5), or by distance and content."""

    distances: Distances | PagedDistances
    by_distance: torch.Tensor | None = None  # [heads, queries + keys - 1], along `distances.line`
    query_terms: torch.Tensor | None = None  # [batch, heads, queries, buckets], what each adds for each bucket
    key_terms: torch.Tensor | None = None  # [batch, heads, keys, buckets]
    buckets: torch.Tensor | None = None  # [queries + keys - 1], the bucket of each distance

    def dense(self) -> torch.Tensor:
        """Written out: [1 or batch, heads, queries, keys]."""
        if self.by_distance is not None:
            return self.distances.spread(self.by_distance)[None]
        index = self.distances.spread(self.buckets)
        terms = []
        if self.query_terms is not None:
            terms.append(self.query_terms.gather(-1, index.expand(*self.query_terms.shape[:2], -1, -1)))
        if self.key_terms is not None:
            index = index.transpose(0, 1)
            terms.append(self.key_terms.gather(-1, index.expand(*self.key_terms.shape[:2], -1, -1)).transpose(-1, -2))
        return sum(terms[1:], terms[0])

    def at(self, distances: Distances, query_terms: torch.Tensor | None, key_terms: torch.Tensor | None) -> "ScoreBias":
        """The bias of some of the scores, given the terms of their queries and keys [pieces, heads, queries or keys,
        buckets]. Distances beyond all of this bias's own get what the nearest has."""
        own = self.distances
        line = (distances.line - (1 - own.queries + own.shift)).clamp(0, own.queries + own.keys - 2)
        by_distance = None if self.by_distance is None else self.by_distance[:, line]
        buckets = None if self.buckets is None else self.buckets[line]
        return ScoreBias(distances, by_distance, query_terms, key_terms, buckets)

    def edit(self, score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        """The same for one score at a time, as flex attention asks: nothing is written out."""
        place = key - query + self.distances.queries - 1
        if self.by_distance is not None:
            return score + self.by_distance[head, place]
        if self.query_terms is not None:
            score = score + self.query_terms[batch, head, query, self.buckets[place]]
        if self.key_terms is not None:
            score = score + self.key_terms[batch, head, key, self.buckets[place]]
        return score


class WeftAlibi(nn.Module):
    """ALiBi (https://huggingface.co/papers/2108.12409): a score falls with distance, at a rate of its own for each
    head; without a direction of attention, to both sides alike."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads

    def forward(self, distances: Distances | PagedDistances, dtype: torch.dtype, is_causal: bool) -> torch.Tensor:
        """What each head adds at each distance: [heads, queries + keys - 1]."""
        powers = 2 ** math.ceil(math.log2(self.num_heads))
        wide = torch.promote_types(dtype, torch.float32)
        steps = torch.arange(1, powers + 1, device=distances.device, dtype=wide)
        slopes = torch.exp2(-8 * steps / powers)
        if powers != self.num_heads:  # the heads of half as many, then every second of the rates in between
            slopes = torch.cat((slopes[1::2], slopes[::2]))[: self.num_heads]
        return (-slopes[:, None] * distances.line.abs()).to(dtype)


class WeftRelativeBuckets(nn.Module):
    """T5's relative positions (https://huggingface.co/papers/1910.10683): a learned number for each head and bucket of
    distances, near ones each in a bucket of their own, far ones in ever wider buckets."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.table = nn.Embedding(self.num_buckets, config.num_attention_heads)

    def forward(self, distances: Distances | PagedDistances, dtype: torch.dtype, is_causal: bool) -> torch.Tensor:
        """What each head adds at each distance: [heads, queries + keys - 1]. Without a direction of attention, half of
        the buckets are for keys behind the query."""
        line, number = distances.line, self.num_buckets
        if is_causal:
            first, line = torch.zeros_like(line), (-line).clamp(min=0)
        else:
            number //= 2
            first, line = (line > 0) * number, line.abs()
        exact = number // 2
        wide = torch.promote_types(dtype, torch.float32)
        far = torch.log(line.clamp(min=1).to(wide) / exact) / math.log(self.max_distance / exact) * (number - exact)
        buckets = first + torch.where(line < exact, line, (exact + far.long()).clamp(max=number - 1))
        return self.table(buckets).transpose(0, 1).to(dtype)


# position_embedding_type -> what is added to scores, by distance only
SHARED_BIASES = {"alibi": WeftAlibi, "t5": WeftRelativeBuckets}


class WeftDisentangled(nn.Module):
    """DeBERTa's relative positions (https://huggingface.co/papers/2006.03654; log buckets: version 2): a vector for
    each bucket of distances, which queries and keys are compared with."""

    def __init__(self, config: PreTrainedConfig, norm: nn.Module) -> None:
        """`norm` is that of the vectors (an Identity where there is none)."""
        super().__init__()
        self.position_buckets, self.max_distance = config.position_buckets, config.max_relative_positions
        self.span = config.position_buckets or config.max_relative_positions
        self.table = nn.Embedding(2 * self.span, config.hidden_size)
        self.norm = norm

    def forward(self, distances: Distances | PagedDistances) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors [2 span, hidden_size], and the number of that of each distance [queries + keys - 1]."""
        steps = -distances.line
        if self.position_buckets:
            middle = self.position_buckets // 2
            reach = torch.full((), (self.max_distance - 1) / middle, device=steps.device)
            far = torch.log(steps.abs().clamp(min=middle).float() / middle) / torch.log(reach)
            far = torch.ceil(far * (middle - 1)) + middle
            steps = torch.where(steps.abs() <= middle, steps, far.long() * steps.sign())
        return self.norm(self.table.weight), (steps + self.span).clamp(0, 2 * self.span - 1)
