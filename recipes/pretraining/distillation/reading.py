"""What a model of another family is given of a batch: its packed rows, or each document by itself."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from weft.recipes.pretraining.datasets.collators import Batch


class Piece(NamedTuple):
    """A part of a batch that a model computes at once.

    Attributes:
        inputs: of its forward.
        places: where the prediction of each token [rows, tokens] belongs in the batch, whose rows are laid end to end;
            -1 for padding.
    """

    inputs: dict[str, torch.Tensor]
    places: torch.Tensor


# Cuts a batch into pieces of so many tokens at most, but for a document or row that is longer.
Reader = Callable[[Batch, int], Iterator[Piece]]


def packed_rows(batch: Batch, most: int) -> Iterator[Piece]:
    """Rows as they are, for models that read of positions where a document begins."""
    ids, positions = batch["input_ids"], batch["position_ids"]
    places = torch.arange(ids.numel(), device=ids.device).view_as(ids)
    rows = max(1, most // ids.shape[1])
    for part in (slice(begin, begin + rows) for begin in range(0, len(ids), rows)):
        yield Piece({"input_ids": ids[part], "position_ids": positions[part]}, places[part])


def single_documents(batch: Batch, most: int, pad: int) -> Iterator[Piece]:
    """Each document in a row of its own, padded with `pad`; those of about the same length together."""
    starts, lengths = _documents(batch["position_ids"])
    for chosen in _groups(lengths.tolist(), most):
        ids, places = _rows_of(batch["input_ids"], starts[chosen], lengths[chosen], pad)
        yield Piece({"input_ids": ids, "attention_mask": (places >= 0).long()}, places)


def single_pairs(batch: Batch, most: int, pad: int, shift: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[Piece]:
    """The same of sources and targets; predictions are of the targets.

    Args:
        shift: what the decoder reads to predict labels [pairs, tokens], -100 where there is none.
    """
    of_sources = _documents(batch["position_ids"], batch["attention_mask"])
    of_targets = _documents(batch["decoder_position_ids"], batch["decoder_attention_mask"])
    for chosen in _groups((of_sources[1] + of_targets[1]).tolist(), most):
        ids, read = _rows_of(batch["input_ids"], *(each[chosen] for each in of_sources), pad)
        labels, places = _rows_of(batch["labels"], *(each[chosen] for each in of_targets), -100)
        inputs = {"input_ids": ids, "attention_mask": (read >= 0).long(), "decoder_input_ids": shift(labels)}
        yield Piece(inputs, places)


def gather(answer: Callable[..., torch.Tensor], pieces: Iterator[Piece], total: int) -> torch.Tensor | None:
    """What a model answers [total, width] at all places of a batch, 0 at padding; None where there are no pieces.

    Args:
        answer: gives, of the inputs of a piece, [rows, tokens, width].
    """
    found = None
    for inputs, places in pieces:
        answers, is_token = answer(**inputs), places >= 0
        found = answers.new_zeros(total, answers.shape[-1]) if found is None else found
        found[places[is_token]] = answers[is_token]
    return found


def logits_at(
    answer: Callable[..., torch.Tensor], pieces: Sequence[Piece], places: torch.Tensor, total: int
) -> torch.Tensor:
    """A model's own logits [n, classes] at these places [n] of a batch: the pieces that have some are computed."""
    found: torch.Tensor | None = None
    for inputs, of_piece in pieces:
        is_token = of_piece >= 0
        slots = places.new_full((total,), -1)
        slots[of_piece[is_token]] = torch.arange(int(is_token.sum()), device=places.device)
        wanted = slots[places]
        is_here = wanted >= 0
        if not is_here.any():
            continue
        logits = answer(**inputs)[is_token]
        found = logits.new_zeros(len(places), logits.shape[-1]) if found is None else found
        found[is_here] = logits[wanted[is_here]]
    return torch.zeros(len(places), 1, device=places.device) if found is None else found  # of nothing but padding


def _documents(position_ids: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each document begins in the rows laid end to end, and how many tokens it has: [documents] each.

    Args:
        mask: [rows, tokens], 0 for the padding behind the documents of a row; None: there is none.
    """
    begins = nn.functional.pad(position_ids.diff(dim=-1) != 1, (1, 0), value=True).flatten()
    counted = torch.ones_like(position_ids) if mask is None else mask
    starts, numbers = begins.nonzero()[:, 0], begins.cumsum(0) - 1
    lengths = torch.zeros_like(starts).index_add_(0, numbers, counted.flatten())
    return starts[lengths > 0], lengths[lengths > 0]


def _groups(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of the longest first, in groups that take `most` tokens at most where each is as long as the longest."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if group and lengths[group[0]] * (len(group) + 1) > most:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _rows_of(
    values: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, fill: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The values of documents [documents, tokens], `fill` behind them, and their places in the batch, -1 there."""
    steps = torch.arange(int(lengths.max()), device=values.device)
    is_token = steps < lengths[:, None]
    places = (starts[:, None] + steps).where(is_token, -1)
    return values.flatten()[places.clamp(min=0)].where(is_token, fill), places
