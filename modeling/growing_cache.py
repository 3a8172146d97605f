"""A cache with room behind its tokens, for writing on a processor."""

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

LEAST_ROOM = 64  # tokens


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer. New ones are written into room behind the others, where `DynamicLayer` copies all
    that it holds for each token: in a batch a fifth of the time, and more with longer texts."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms: dict[str, torch.Tensor] = {}

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Append [batch, heads, tokens, head_dim] and return all, as views of the room; with gradients, and in a
        compiled graph, which knows no addresses, as copies."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._append("keys", key_states), self._append("values", value_states)
        return self.keys, self.values

    def _append(self, name: str, new: torch.Tensor) -> torch.Tensor:
        old, room = getattr(self, name), self.rooms.get(name)
        seen = old.shape[-2] if old.numel() else 0
        total = seen + new.shape[-2]
        # whoever reorders, selects or moves the cache puts other tensors in the place of views of the room
        is_view = room is not None and room.data_ptr() == old.data_ptr() and room.shape[0] == old.shape[0]
        is_writable = is_view and room.dtype == new.dtype and room.is_inference() == torch.is_inference_mode_enabled()
        if not is_writable or room.shape[-2] < total:
            room = new.new_empty(*new.shape[:2], total + max(LEAST_ROOM, total // 2), new.shape[-1])
            room[..., :seen, :] = old if seen else 0
            self.rooms[name] = room
        room[..., seen:total, :] = new
        return room[..., :total, :]


def make_room(cache: Cache | None) -> None:
    """Give the full layers of an empty cache that `generate` made room to grow, in place."""
    if type(cache) is DynamicCache and not cache.offloading:
        is_empty = [type(layer) is DynamicLayer and not layer.is_initialized for layer in cache.layers]
        cache.layers = [GrowingLayer() if empty else layer for empty, layer in zip(is_empty, cache.layers)]
