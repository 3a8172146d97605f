"""The graphs that a model becomes in ONNX: modules of tensors in, tensors out, under the names that Optimum and
transformers.js give to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

Axes = dict[int, str]

# What each head returns
OUTPUTS = {
    "base": ("last_hidden_state",),
    "pretraining": ("prediction_logits", "seq_relationship_logits"),
    "question": ("start_logits", "end_logits"),
}
ROW, LENGTH, PAST, TOTAL = "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"
ENCODER, ENCODER_PAST = "encoder_sequence_length", "past_encoder_sequence_length"
TOKENS: Axes = {0: ROW, 1: LENGTH}
# Sizes of the example that a graph is traced with, all of them different; the graph takes any.
ROWS, NEW, SEEN, TEXT, TEXT_SEEN = 2, 5, 3, 9, 4


@dataclass(frozen=True)
class Graph:
    """One graph.

    Attributes:
        name: of its file, without ending.
        inputs, outputs: names in the order of what `module` takes and returns.
        example: what `module` is traced with.
        axes: for each of `example` its axes of any size.
    """

    name: str
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple = field(repr=False)
    axes: tuple = field(repr=False)


def graphs_of(model: PreTrainedModel, head: str) -> list[Graph]:
    """The graphs of a model with a head (as `weft.interop` names them)."""
    if head == "seq2seq":
        return [_text_encoder(model), _cross_decoder(model)]
    return [_decoder(model) if head == "causal" else _reader(model, head)]


def cache_names(layers: int, prefix: str, parts: Sequence[str] = ("",)) -> tuple[str, ...]:
    """Names of what caches hold: of each layer a key and a value for each part ("decoder.", "encoder.")."""
    places = [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in parts]
    return tuple(place + what for place in places for what in ("key", "value"))


def empty_cache(model: PreTrainedModel, names: Sequence[str], rows: int) -> dict[str, torch.Tensor]:
    """What a decoder's graph is given under these names before it has read anything."""
    config = model.config
    return {name: torch.zeros(rows, config.num_key_value_heads, 0, config.head_dim) for name in names}


def _ids(model: PreTrainedModel, *shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).view(shape) % model.config.vocab_size


class _Reader(nn.Module):
    """A head without a cache."""

    def __init__(self, model: PreTrainedModel, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs
        self.options = {"use_cache": False} if hasattr(model, "embed_tokens") else {}  # the stack itself has one

    def forward(self, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = self.model(**dict(zip(self.inputs, tensors)), **self.options)
        return tuple(found[name] for name in self.outputs)


def _reader(model: PreTrainedModel, head: str) -> Graph:
    inputs = ("input_ids", "attention_mask", *(("token_type_ids",) if model.config.type_vocab_size else ()))
    outputs = OUTPUTS.get(head, ("logits",))
    shape, axes = (ROWS, TEXT), TOKENS
    if head == "choice":
        shape, axes = (ROWS, NEW, TEXT), {0: ROW, 1: "num_choices", 2: LENGTH}
    ids, ones = _ids(model, *shape), torch.ones(shape, dtype=torch.long)
    tensors = [ids, ones, *((torch.zeros_like(ids),) if len(inputs) == 3 else ())]
    return Graph("model", _Reader(model, inputs, outputs), inputs, outputs, (tensors,), ([axes] * len(tensors),))


def _cache_of(keys_and_values: Sequence[torch.Tensor]) -> DynamicCache:
    """A cache that holds keys and values, those of windows too: the mask is what keeps these short."""
    cache = DynamicCache()
    for keys, values in zip(keys_and_values[::2], keys_and_values[1::2], strict=True):
        layer = DynamicLayer()
        layer.keys, layer.values, layer.dtype, layer.device = keys, values, keys.dtype, keys.device
        layer.is_initialized = True
        cache.layers.append(layer)
    return cache


def _held_by(cache: DynamicCache) -> list[torch.Tensor]:
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


class _Decoder(nn.Module):
    """A causal model that goes on from a cache, which may be empty."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        cache = _cache_of(past)
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "past_key_values": cache}
        logits = self.model(input_ids, **given, use_cache=True).logits
        return (logits, *_held_by(cache))


def _decoder(model: PreTrainedModel) -> Graph:
    config = model.config
    layers, shape = config.num_hidden_layers, (ROWS, config.num_key_value_heads, SEEN, config.head_dim)
    inputs = ("input_ids", "attention_mask", "position_ids", *cache_names(layers, "past_key_values"))
    past = [torch.zeros(shape) for _ in range(2 * layers)]
    positions = torch.arange(SEEN, SEEN + NEW).repeat(ROWS, 1)
    example = (_ids(model, ROWS, NEW), torch.ones(ROWS, SEEN + NEW, dtype=torch.long), positions, past)
    axes = (TOKENS, {0: ROW, 1: TOTAL}, TOKENS, [{0: ROW, 2: PAST}] * len(past))
    return Graph("model", _Decoder(model), inputs, ("logits", *cache_names(layers, "present")), example, axes)


class _TextEncoder(nn.Module):
    """The encoder of an encoder-decoder."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = model.model.encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.encoder(input_ids, attention_mask, use_cache=False).last_hidden_state


def _text_encoder(model: PreTrainedModel) -> Graph:
    example = (_ids(model, ROWS, TEXT), torch.ones(ROWS, TEXT, dtype=torch.long))
    inputs, axes = ("input_ids", "attention_mask"), ({0: ROW, 1: ENCODER},) * 2
    return Graph("encoder_model", _TextEncoder(model), inputs, ("last_hidden_state",), example, axes)


class _CrossDecoder(nn.Module):
    """The decoder of an encoder-decoder, going on from a cache of its own tokens and of the encoder's: with an empty
    one it computes the encoder's keys and values, with a full one of no token, so that one graph does both."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        encoder_attention_mask: torch.Tensor,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        past: list[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        own = _cache_of([tensor for place, tensor in enumerate(past) if place % 4 < 2])
        states, crossed = encoder_hidden_states[:, past[2].shape[2] :], []
        for index, layer in enumerate(self.model.model.decoder.layers):
            for seen, new in zip(past[4 * index + 2 : 4 * index + 4], _keys_and_values(layer.cross_attn, states)):
                crossed.append(torch.cat((seen, new), dim=2))
        cache = EncoderDecoderCache(own, _cache_of(crossed))
        cache.is_updated = dict.fromkeys(range(len(own.layers)), True)
        encoded = BaseModelOutput(last_hidden_state=encoder_hidden_states)
        given = {"encoder_outputs": encoded, "attention_mask": encoder_attention_mask, "past_key_values": cache}
        logits = self.model(decoder_input_ids=input_ids, **given, use_cache=True).logits
        held = [(*pair, *crossed[2 * index : 2 * index + 2]) for index, pair in enumerate(_pairs(_held_by(own)))]
        return (logits, *(tensor for of_layer in held for tensor in of_layer))


def _pairs(tensors: list[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def _keys_and_values(attention: nn.Module, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of an encoder's states, as `WeftAttention` makes them, with every size written out: there may be
    no states, and then none can be left to be worked out."""
    heads = (*states.shape[:2], attention.config.num_key_value_heads, attention.head_dim)
    keys, per_head = attention.k_proj(states), attention.config.qk_norm_over == "head"
    keys = attention.k_norm(keys.view(heads) if per_head else keys).view(heads)
    return keys.transpose(1, 2), attention.v_proj(states).view(heads).transpose(1, 2)


def _cross_decoder(model: PreTrainedModel) -> Graph:
    config = model.config
    layers, parts = config.num_decoder_layers, ("decoder.", "encoder.")
    inputs = ("encoder_attention_mask", "input_ids", "encoder_hidden_states")
    inputs += cache_names(layers, "past_key_values", parts)
    heads = (ROWS, config.num_key_value_heads)
    of_layer = [torch.zeros(*heads, seen, config.head_dim) for seen in (SEEN, SEEN, TEXT_SEEN, TEXT_SEEN)]
    past = [tensor.clone() for _ in range(layers) for tensor in of_layer]
    example = (torch.ones(ROWS, TEXT, dtype=torch.long), _ids(model, ROWS, NEW))
    example += (torch.zeros(ROWS, TEXT, config.hidden_size), past)
    own, theirs = {0: ROW, 2: PAST}, {0: ROW, 2: ENCODER_PAST}
    axes = ({0: ROW, 1: ENCODER}, TOKENS, {0: ROW, 1: ENCODER}, [own, own, theirs, theirs] * layers)
    outputs = ("logits", *cache_names(layers, "present", parts))
    return Graph("decoder_model_merged", _CrossDecoder(model), inputs, outputs, example, axes)
