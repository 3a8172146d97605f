"""What layers that read token after token are told of rows, in place of a mask: padding, documents, and directions."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import is_tracing

from .positions import OnDevice


@dataclass(frozen=True)
class Packing(OnDevice):
    """All documents of a batch side by side, the longest first, as PyTorch's recurrent kernels read them."""

    order: torch.Tensor  # [tokens without padding], index into the batch's tokens: all first tokens, all second ...
    batch_sizes: list[int]  # how many documents have a first token, a second ...; read on the processor
    rows: torch.Tensor  # [documents], the row of each
    last: torch.Tensor  # [batch], which of them is the last of a row; -1: the row is padding only


@dataclass(frozen=True)
class Sequences(OnDevice):
    """Rows [batch, tokens] with padding or several documents. They are read with all padding of a row in front of its
    tokens, so that what stood before a token is what it follows."""

    is_token: torch.Tensor | None = None  # bool [batch, tokens], as read; None: there is no padding
    documents: torch.Tensor | None = None  # ids [batch, tokens], as read; None: each row is one document
    order: torch.Tensor | None = None  # [batch, tokens], the place in its row of what is read; None: as it stands
    back: torch.Tensor | None = None  # the opposite
    causal_rows: torch.Tensor | None = None  # bool [batch], rows of a bidirectional batch that are read one way
    packing: Packing | None = None

    def read(self, states: torch.Tensor) -> torch.Tensor:
        """States [batch, tokens, width] as they are read."""
        return states if self.order is None else _take(states, self.order)

    def put_back(self, states: torch.Tensor) -> torch.Tensor:
        """The opposite."""
        return states if self.back is None else _take(states, self.back)


def _take(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return states.gather(1, places.view(*places.shape, *[1] * (states.ndim - 2)).expand_as(states))


def find_sequences(
    states: torch.Tensor,
    attention_mask: Any,
    documents: torch.Tensor | None,
    causal_rows: torch.Tensor | None = None,
    is_packed: bool = False,
) -> Sequences | None:
    """What is to be told of states [batch, tokens, anything]; None: each row is one document without padding.
    Args:
        attention_mask: [batch, cached + new tokens], 1 for tokens and 0 for padding; or None.
        documents: ids [batch, tokens], -1 for padding, as `find_documents` returns them.
        causal_rows: as in `create_masks`.
        is_packed: whether `packing` is made too, which is not for compiled graphs."""
    shape, device, is_token = states.shape[:2], states.device, None
    if documents is not None:
        documents = documents.expand(shape)
        is_token = documents >= 0
    elif attention_mask is not None:
        is_token = attention_mask[:, -shape[1] :].bool().expand(shape)
    may_look = is_token is not None and not is_tracing(is_token)
    if may_look and is_token.all():
        is_token = None
    causal_rows = None if causal_rows is None else causal_rows.bool()
    if is_token is None and documents is None:
        return None if causal_rows is None else Sequences(causal_rows=causal_rows)
    packing = _pack(shape, is_token, documents, device) if is_packed and not torch.compiler.is_compiling() else None
    if is_token is None:
        return Sequences(None, documents, None, None, causal_rows, packing)
    order, index = is_token.long().argsort(dim=1, stable=True), torch.arange(shape[1], device=device).expand(shape)
    if may_look and torch.equal(order, index):  # the padding is in front already
        return Sequences(is_token, documents, None, None, causal_rows, packing)
    documents = None if documents is None else documents.gather(1, order)
    back = torch.empty_like(order).scatter(1, order, index)
    return Sequences(is_token.gather(1, order), documents, order, back, causal_rows, packing)


def _pack(
    shape: torch.Size, is_token: torch.Tensor | None, documents: torch.Tensor | None, device: torch.device
) -> Packing:
    row = torch.arange(shape[0], device=device)[:, None].expand(shape)
    numbers = row if documents is None else row * (int(documents.max()) + 1) + documents  # of each token's document
    places = torch.arange(shape.numel(), device=device)
    if is_token is not None:
        places = is_token.flatten().nonzero().flatten()
    _, of_token, lengths = numbers.flatten()[places].unique_consecutive(return_inverse=True, return_counts=True)
    ranked = lengths.argsort(descending=True, stable=True)
    rank = torch.empty_like(ranked).scatter(0, ranked, torch.arange(len(ranked), device=device))
    steps = torch.arange(len(places), device=device) - (lengths.cumsum(0) - lengths)[of_token]
    order = places[(steps * len(lengths) + rank[of_token]).argsort()]
    rows = row.flatten()[places[lengths.cumsum(0) - lengths]]
    last = torch.full((shape[0],), -1, device=device).scatter_reduce(
        0, rows, torch.arange(len(rows), device=device), "amax"
    )
    last = torch.where(last < 0, last, rank[last.clamp(min=0)]) if len(rank) else last
    return Packing(order, torch.bincount(steps).tolist(), rows[ranked], last)
