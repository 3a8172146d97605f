"""What layers without keys and values keep of earlier tokens, in the caches that `generate` makes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, EncoderDecoderCache, LinearAttentionLayer
from transformers.configuration_utils import PreTrainedConfig

from .configuration_checks import STATE_TYPES


class StateLayer(LinearAttentionLayer):
    """The states behind the last token, and the last inputs of a convolution: as large after one token as after all."""

    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.conv_states: dict[int, torch.Tensor] = {}
        self.recurrent_states: dict[int, torch.Tensor] = {}
        self.has_previous_state = {0: False}

    def load(self) -> list[torch.Tensor] | None:
        """What `store` was given last, the inputs of the convolution first; None: nothing yet."""
        if not self.has_previous_state[0]:
            return None
        return [*self.conv_states.values(), *self.recurrent_states.values()]

    def store(self, states: Sequence[torch.Tensor], inputs: torch.Tensor | None = None, tokens: int = 0) -> None:
        """Keep the states behind so many more tokens, each [batch, ...], and inputs of a convolution. Compiled graphs
        write them where the others stood, which they know by their address."""
        in_place = torch.compiler.is_compiling() and not torch.is_grad_enabled()
        self.device = states[0].device
        for kept, new in ((self.conv_states, () if inputs is None else (inputs,)), (self.recurrent_states, states)):
            for index, state in enumerate(new):
                old = kept.get(index)
                if in_place and old is not None and old.shape == state.shape:
                    old.copy_(state)
                else:
                    kept[index] = state
        self.has_previous_state = {0: True}

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Keep these rows, for beam search."""
        self._change(lambda state: state.index_select(0, beam_idx.to(state.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        self._change(lambda state: state[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Have each row so many times."""
        self._change(lambda state: state.repeat_interleave(repeats, dim=0))

    def reset(self) -> None:
        """Begin anew."""
        self._change(torch.zeros_like)
        self.has_previous_state = {0: False}

    def crop(self, tokens_to_remove: int) -> None:
        """Refuses with a ValueError: a state cannot be taken back."""
        raise ValueError(
            "linear_attention and recurrent layers cannot forget their last tokens, as assisted decoding asks: decode "
            "without an assistant."
        )

    def _change(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for name in ("conv_states", "recurrent_states"):  # in dicts of their own: a copy of the layer shares the others
            setattr(self, name, {index: change(state) for index, state in getattr(self, name).items()})


class CountingStateLayer(StateLayer, CacheLayerMixin):
    """The same of a model without attention, whose first layer counts the tokens: no other layer of the cache can."""

    supports_early_init = False

    def __init__(self) -> None:
        CacheLayerMixin.__init__(self)
        StateLayer.__init__(self)
        self.seen = 0

    def store(self, states: Sequence[torch.Tensor], inputs: torch.Tensor | None = None, tokens: int = 0) -> None:
        super().store(states, inputs)
        self.seen += tokens

    def reset(self) -> None:
        super().reset()
        self.seen = 0

    def get_seq_length(self) -> int:
        """How many tokens were stored."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many tokens there are with so many new ones, and where the first stands."""
        return self.seen + query_length, 0

    def update(self, *_: Any, **__: Any) -> Any:
        """Refuses with a ValueError: there are no keys."""
        raise ValueError("linear_attention and recurrent layers have no keys and values.")


def state_layer(cache: Cache | None, layer_idx: int) -> StateLayer | None:
    """What a cache that was prepared holds of a layer; None: there is no cache."""
    if cache is None:
        return None
    return (cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache).layers[layer_idx]


def prepare_cache(config: PreTrainedConfig, cache: Cache | None) -> Cache | None:
    """Put layers that hold states into an empty cache, in place, wherever the config has such layers; returns it.
    Raises: ValueError for a cache that holds keys there, as prefix tuning learns them."""
    if cache is None or not config.has_states:
        return cache
    if len(cache.layers) < config.num_hidden_layers:  # made without a config
        cache.layers += DynamicCache(config=config).layers[len(cache.layers) :]
    for index, layer_type in enumerate(config.layer_types[: config.num_hidden_layers]):
        layer = cache.layers[index]
        if layer_type not in STATE_TYPES or hasattr(layer, "store"):
            continue
        if getattr(layer, "is_initialized", False):
            raise ValueError(
                f"Layer {index} is {layer_type}, and the cache holds keys and values for it: prefixes of keys and "
                "values are for models whose layers are all attention."
            )
        counts = index == 0 and not config.attention_layers
        cache.layers[index] = CountingStateLayer() if counts else StateLayer()
    return cache
