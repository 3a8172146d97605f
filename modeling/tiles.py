"""Attention that costs what it computes: queries in tiles, each with only the keys that it can see.

A mask over a whole row asks for every score of the row, also where a window or the end of a document hides nearly all.
Tiles are small dense pieces of that: for a window, blocks of the row with their neighbours (as Longformer's chunks,
https://huggingface.co/papers/2004.05150); for packed documents and padded rows, the documents, those of like length
together."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils import is_tracing

from .positions import Distances, OnDevice

LEAST_TOKENS = 384  # of a row with a window that is cut; below, one mask costs less than its pieces
LEAST_PACKED = 512  # the same of packed documents and of padded rows, whose tokens move twice
USUAL_BLOCK = 64  # queries of a tile; a narrow window has blocks of its own width
WIDEST_BLOCK = 128  # of a wide window, which has a quarter of its width
LEAST_FILLED = 0.9  # shortest document of a group over the longest
WORTH = 0.5  # scores that a window's tiles compute over those of whole rows, at most


@dataclass(frozen=True)
class Tile(OnDevice):
    """Scores of the same shape: of so many pieces of the batch, those of each query of a piece and each of its keys."""

    distances: Distances
    mask: torch.Tensor | None  # bool [pieces, 1, 1 or queries, keys], which are seen; None: the direction says all
    is_causal: bool


@dataclass(frozen=True)
class WindowTiles(OnDevice):
    """A row's queries in blocks, and with each the keys from `left` blocks before it to `right` blocks behind it."""

    tile: Tile
    queries: int
    keys: int
    size: int  # tokens of a block
    left: int
    right: int

    @property
    def tiles(self) -> list[Tile]:
        """The one shape that all blocks have."""
        return [self.tile]

    def isolate(self, query: torch.Tensor, *of_keys: torch.Tensor) -> list[torch.Tensor]:
        """Queries and what belongs to keys, [batch, heads, tokens, anything] each, such that no row sees a NaN or an
        infinity in the blocks of another, which a mask does not hide: 0 times NaN is NaN. These become 0, and so that
        it shows, all queries of their own row NaN."""
        if len(query) == 1 or self.keys != self.queries:
            return [query, *of_keys]
        first, last = self.right * self.size, max(0, -(-self.queries // self.size) - self.left) * self.size
        if query.device.type == "cpu" and not is_tracing(query):  # a sum is waited for there, and costs nothing
            ends = [end for each in of_keys for end in (each[:-1, :, last:], each[1:, :, :first])]
            if all(math.isfinite(end.detach().sum()) for end in ends):
                return [query, *of_keys]
        place = torch.arange(self.queries, device=query.device)[:, None]
        is_hidden = [~each.isfinite() & ((place < first) | (place >= last)) for each in of_keys]
        is_spoilt = sum(each.flatten(1).any(dim=1) for each in is_hidden).bool()[:, None, None, None]
        hidden = (each.masked_fill(where, 0) for each, where in zip(of_keys, is_hidden))
        return [query.masked_fill(is_spoilt, math.nan), *hidden]

    def take_queries(self, states: torch.Tensor) -> list[torch.Tensor]:
        """[batch, heads, queries, anything] to [batch x blocks, heads, size, anything]."""
        return [_tiled(_blocks(states.transpose(1, 2), 0, 0, self.size))]

    def take_keys(self, states: torch.Tensor) -> list[torch.Tensor]:
        """[batch, heads, keys, anything] to [batch x blocks, heads, keys of a block, anything]."""
        if self.keys == self.queries:
            blocks = _blocks(states.transpose(1, 2), 0, 0, self.size)
            return [_Spans.apply(blocks, self.left, self.right).transpose(1, 2)]
        before = self.left * self.size - (self.keys - self.queries)
        behind = -self.queries % self.size + self.right * self.size
        blocks = _blocks(states.transpose(1, 2), before, behind, self.size)
        return [_tiled(_neighbours(blocks, self.left + self.right))]

    def put_back(self, mixed: list[torch.Tensor]) -> torch.Tensor:
        """[batch x blocks, size, heads, width] to [batch, queries, heads, width]."""
        blocks = -(-self.queries // self.size)
        return mixed[0].reshape(-1, blocks * self.size, *mixed[0].shape[2:])[:, : self.queries]


def window_tiles(
    window: int,
    is_causal: bool,
    batch_size: int,
    queries: int,
    keys: int,
    ids: torch.Tensor | None,
    causal_rows: torch.Tensor | None,
    device: torch.device,
) -> WindowTiles | None:
    """Cut rows for a sliding window; None where they are too short to gain from it.

    Args:
        window: tokens that a query sees: with `is_causal` so many up to itself, else so many to each side of it.
        queries, keys: of a row; the queries are the last of the keys.
        ids: [batch, keys]; a query sees keys with its own id only. None: all.
        causal_rows: bool [batch], the rows in which a query sees none behind it.
    """
    reach = window - 1 if is_causal else window
    size = min(WIDEST_BLOCK, max(USUAL_BLOCK, reach // 64 * 16), max(16, -(-reach // 16) * 16))
    left = -(-reach // size)
    right = 0 if is_causal else left
    span = (left + 1 + right) * size
    if queries < LEAST_TOKENS or span > WORTH * keys:
        return None
    index = torch.arange(span, device=device) - left * size
    distance = index - torch.arange(size, device=device)[:, None]
    is_seen = (distance <= 0) & (distance >= -reach) if is_causal else distance.abs() <= reach
    blocks = -(-queries // size)
    first = keys - queries + torch.arange(blocks, device=device) * size
    place = first[:, None, None] + index  # of each tile's keys in the row
    is_seen = (is_seen & (place >= 0) & (place < keys))[None]
    if ids is not None:
        of_queries = _blocks(ids[:, -queries:, None], 0, 0, size)
        of_keys = _blocks(ids[..., None], left * size - (keys - queries), -queries % size + right * size, size)
        is_seen = is_seen & (of_queries == _neighbours(of_keys, left + right).transpose(-1, -2))
    if causal_rows is not None:
        is_seen = is_seen & (~causal_rows[:, None, None, None] | ((distance <= 0) & (distance > -window)))
    is_seen = is_seen | ~is_seen.any(dim=-1, keepdim=True)  # what fills the last block up sees anything
    mask = is_seen.expand(batch_size, -1, -1, -1).flatten(0, 1)[:, None]
    tile = Tile(Distances(size, span, -left * size, device), mask, is_causal=False)
    return WindowTiles(tile, queries, keys, size, left, right)


def _blocks(states: torch.Tensor, before: int, behind: int, size: int) -> torch.Tensor:
    """[batch, tokens, ...] filled up by so many places on either side (cut, where negative), in blocks: [batch, blocks,
    size, ...]."""
    behind += -(states.shape[1] + before + behind) % size
    sides = (0, 0) * (states.ndim - 2) + (before, behind)
    filled = nn.functional.pad(states, sides) if before or behind else states
    return filled.unflatten(1, (-1, size))


def _neighbours(blocks: torch.Tensor, more: int) -> torch.Tensor:
    """Each block with so many behind it: [batch, blocks, size, ...] to [batch, blocks - more, (1 + more) size, ...]."""
    number = blocks.shape[1] - more
    return torch.cat([blocks[:, start : start + number] for start in range(more + 1)], dim=2)


class _Spans(torch.autograd.Function):
    """Each block of rows [batch, blocks, size, ...] between so many neighbours: [batch x blocks, (left + 1 + right)
    size, ...], a view of one long row. What reaches into another row is to be masked, and gives it no gradient."""

    @staticmethod
    def forward(blocks: torch.Tensor, left: int, right: int) -> torch.Tensor:
        size = blocks.shape[2]
        sides = (0, 0) * (blocks.ndim - 3) + (left * size, right * size)
        return nn.functional.pad(blocks.flatten(0, 2), sides).unfold(0, (left + 1 + right) * size, size).movedim(-1, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, int, int], output: torch.Tensor) -> None:
        blocks, ctx.left, ctx.right = inputs
        ctx.shape = blocks.shape[:2]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        parts, number = gradient.unflatten(1, (ctx.left + 1 + ctx.right, -1)).unflatten(0, ctx.shape), ctx.shape[1]
        total = parts[:, :, ctx.left].clone()
        for place in range(1, min(ctx.left, number - 1) + 1):
            total[:, :-place] += parts[:, place:, ctx.left - place]
        for place in range(1, min(ctx.right, number - 1) + 1):
            total[:, place:] += parts[:, :-place, ctx.left + place]
        return total, None, None


def _tiled(blocks: torch.Tensor) -> torch.Tensor:
    """[batch, blocks, tokens, heads, width] to [batch x blocks, heads, tokens, width]."""
    return blocks.flatten(0, 1).transpose(1, 2)


class _Reorder(torch.autograd.Function):
    """Rows of a tensor in another order, and their gradients back, both without adding up: each row has one place."""

    @staticmethod
    def forward(rows: torch.Tensor, there: "Order", back: "Order") -> torch.Tensor:
        return rows.index_select(0, there.index).index_fill_(0, there.empty, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, "Order", "Order"], output: torch.Tensor) -> None:
        _, ctx.there, ctx.back = inputs

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Reorder.apply(gradient, ctx.back, ctx.there), None, None


@dataclass(frozen=True)
class Order(OnDevice):
    """Which row comes where."""

    index: torch.Tensor  # [rows], the row to take for each
    empty: torch.Tensor  # which of them take none


@dataclass(frozen=True)
class DocumentTiles(OnDevice):
    """The documents of packed rows, or padded rows without padding, those of about the same length together."""

    tiles: list[Tile]
    shapes: list[tuple[int, int]]  # documents and longest document of each
    batch_shape: tuple[int, int]
    there: Order  # of the flattened batch's tokens to places in the tiles
    back: Order

    def isolate(self, *states: torch.Tensor) -> list[torch.Tensor]:
        """As they are: documents do not touch each other."""
        return [*states]

    def take_queries(self, states: torch.Tensor) -> list[torch.Tensor]:
        """[batch, heads, tokens, anything] to [documents, heads, longest, anything] for each tile."""
        rows = _Reorder.apply(states.transpose(1, 2).flatten(0, 1), self.there, self.back)
        parts = rows.split([documents * longest for documents, longest in self.shapes])
        return [part.unflatten(0, shape).transpose(1, 2) for part, shape in zip(parts, self.shapes)]

    take_keys = take_queries

    def put_back(self, mixed: list[torch.Tensor]) -> torch.Tensor:
        """For each tile [documents, longest, heads, width] to [batch, tokens, heads, width], padding 0."""
        rows = _Reorder.apply(torch.cat([each.flatten(0, 1) for each in mixed]), self.back, self.there)
        return rows.unflatten(0, self.batch_shape)


def document_tiles(ids: torch.Tensor, is_causal: bool, causal_rows: torch.Tensor | None) -> DocumentTiles | None:
    """Take rows apart into their documents, without padding; None where that does not pay, or padding stands inside of
    one.

    Args:
        ids: [batch, tokens], of documents one after another; -1: padding.
        is_causal: whether a token sees none behind it.
        causal_rows: bool [batch], the rows of which that is true although `is_causal` is not.
    """
    (batch_size, tokens), flat, device = ids.shape, ids.flatten(), ids.device
    if tokens < LEAST_PACKED:
        return None
    begins = nn.functional.pad(ids.diff(dim=1) != 0, (1, 0), value=True).flatten().nonzero().flatten()
    lengths = torch.diff(begins, append=begins.new_tensor([flat.numel()]))
    begins, lengths = begins[flat[begins] >= 0], lengths[flat[begins] >= 0]
    numbers, rows = flat[begins], begins // tokens
    if not len(begins) or bool(((numbers.diff() == 0) & (rows.diff() == 0)).any()):
        return None
    kinds = torch.zeros_like(rows) if causal_rows is None else causal_rows[rows].long()
    order = (kinds * (tokens + 1) + lengths).argsort(descending=True)
    begins, lengths, kinds = begins[order], lengths[order], kinds[order]
    bounds = _alike(lengths.tolist(), kinds.tolist())
    shapes = [(stop - start, int(lengths[start])) for start, stop in bounds]
    if sum(documents * longest**2 for documents, longest in shapes) >= batch_size * tokens**2:
        return None
    tiles, places, are_tokens = [], [], []
    for (start, stop), (_, longest) in zip(bounds, shapes):
        steps = torch.arange(longest, device=device)
        is_token = steps < lengths[start:stop, None]
        causal = is_causal or bool(kinds[start])
        mask = None if causal or bool(is_token.all()) else is_token[:, None, None]
        tiles.append(Tile(Distances(longest, longest, 0, device), mask, causal))
        places.append((begins[start:stop, None] + steps).where(is_token, 0).flatten())
        are_tokens.append(is_token.flatten())
    place, is_token = torch.cat(places), torch.cat(are_tokens)
    origin = torch.zeros_like(flat)
    origin[place[is_token]] = is_token.nonzero().flatten()
    there = Order(place, (~is_token).nonzero().flatten())
    return DocumentTiles(tiles, shapes, (batch_size, tokens), there, Order(origin, (flat < 0).nonzero().flatten()))


def _alike(lengths: list[int], kinds: list[int]) -> list[tuple[int, int]]:
    """Bounds of the groups of documents, longest first, that share their kind and nearly their length."""
    bounds, start = [], 0
    for place in range(1, len(lengths) + 1):
        is_other = place == len(lengths) or kinds[place] != kinds[start]
        if is_other or lengths[place] < LEAST_FILLED * lengths[start]:
            bounds.append((start, place))
            start = place
    return bounds


Tiles = WindowTiles | DocumentTiles
