"""From encoded examples to batches: packed without padding, padded to the longest, or padded to a fixed length."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from weft.recipes.common.bin_packing import fill_evenly
from weft.recipes.common.errors import RecipeError

SHORTEST_ROW = 64  # packed rows have room for so many tokens: shorter ones have too few documents to fill them well


@dataclass(frozen=True)
class EncodedExample:
    """What the model is given at once of an example: one sequence, or one for each choice.

    Attributes:
        sequences: token ids of each sequence.
        example: number of the example in its split.
        target: what is to be learnt, in the form that the task gives it; None without labels.
        token_types: token types of each sequence, where the tokenizer has such.
        info: what the task needs to read the model's outputs (offsets of tokens, for one); not given to the model.
    """

    sequences: list[list[int]]
    example: int
    target: Any = None
    token_types: list[list[int]] | None = None
    info: Any = None

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sequences))


@dataclass(frozen=True)
class BatchLayout:
    """Where each sequence of a batch stands.

    Attributes:
        items: the batch's items in the order of their documents, row after row (packing changes the order).
        rows, starts, lengths: for each sequence of each item, in order, its row, its first token and its tokens.
        shape: rows and tokens of the batch.
        packed: whether rows hold several documents.
    """

    items: list[EncodedExample]
    rows: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    shape: tuple[int, int] = (0, 0)
    packed: bool = False


class PackingCollator:
    """Lays items out and makes the tensors that a model takes."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        packed: bool,
        choices: bool = False,
        pad_to: int | None = None,
        with_types: bool | None = None,
    ) -> None:
        """Args:
        packed: put several documents into a row, told apart by position_ids (for Weft models, which isolate them).
        choices: the items are choices among several sequences.
        pad_to: pad to so many tokens instead of the longest of the batch.
        with_types: give token_type_ids; None: as the tokenizer's model_input_names say.
        """
        if tokenizer.pad_token_id is None:
            raise RecipeError("the tokenizer has no padding token: set its pad_token.")
        self.pad = tokenizer.pad_token_id
        self.packed, self.choices, self.pad_to = packed, choices, pad_to
        self.with_types = "token_type_ids" in tokenizer.model_input_names if with_types is None else with_types

    def lay_out(self, items: Sequence[EncodedExample]) -> tuple[dict[str, torch.Tensor], BatchLayout]:
        """A model's batch: input_ids and attention_mask [rows, tokens] (with token_type_ids); packed also position_ids,
        which restart with each document, and for choices choice_counts [items]; choices that are padded have
        [items, choices, tokens]."""
        return self._pack(items) if self.packed else self._pad(items)

    def sizes(self, item: EncodedExample) -> tuple[int, ...]:
        """What an item takes of a row."""
        return (item.tokens,)

    def _pad(self, items: Sequence[EncodedExample]) -> tuple[dict[str, torch.Tensor], BatchLayout]:
        most = max(len(item.sequences) for item in items)
        longest = max(self.pad_to or 1, *(len(ids) for item in items for ids in item.sequences))
        layout = BatchLayout(list(items), shape=(len(items) * most, longest))
        for number, item in enumerate(items):
            for choice, ids in enumerate(item.sequences):
                layout.rows.append(number * most + choice)
                layout.starts.append(0)
                layout.lengths.append(len(ids))
        batch = self._fill(layout)
        if self.choices:
            batch = {name: tensor.view(len(items), most, longest) for name, tensor in batch.items()}
        return batch, layout

    def _pack(self, items: Sequence[EncodedExample]) -> tuple[dict[str, torch.Tensor], BatchLayout]:
        rows = fill_evenly(np.array([self.sizes(item) for item in items]), SHORTEST_ROW)
        longest = max(sum(items[index].tokens for index in row) for row in rows)
        layout = BatchLayout([items[index] for row in rows for index in row], shape=(len(rows), longest), packed=True)
        for row, members in enumerate(rows):
            start = 0
            for ids in (ids for index in members for ids in items[index].sequences):
                layout.rows.append(row)
                layout.starts.append(start)
                layout.lengths.append(len(ids))
                start += len(ids)
        batch = self._fill(layout)
        batch["position_ids"] = in_place(layout, [range(length) for length in layout.lengths], 0)
        if self.choices:
            batch["choice_counts"] = torch.tensor([len(item.sequences) for item in layout.items])
        return batch, layout

    def _fill(self, layout: BatchLayout) -> dict[str, torch.Tensor]:
        sequences = [ids for item in layout.items for ids in item.sequences]
        batch = {
            "input_ids": in_place(layout, sequences, self.pad),
            "attention_mask": in_place(layout, [[1] * len(ids) for ids in sequences], 0),
        }
        if self.with_types:
            given = [
                types for item in layout.items for types in item.token_types or [[0] * len(i) for i in item.sequences]
            ]
            batch["token_type_ids"] = in_place(layout, given, 0)
        return batch


def in_place(layout: BatchLayout, values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """Values of each token (one list for each sequence) where the tokens stand: [rows, tokens], `fill` elsewhere."""
    tensor = torch.full(layout.shape, fill, dtype=torch.long)
    for row, start, of_tokens in zip(layout.rows, layout.starts, values):
        tensor[row, start : start + len(of_tokens)] = torch.tensor(of_tokens, dtype=torch.long)
    return tensor


def cut_out(layout: BatchLayout, tensor: torch.Tensor) -> list[torch.Tensor]:
    """The opposite: of a tensor [rows, tokens, ...] the part of each sequence, in order."""
    return [
        tensor[row, start : start + length] for row, start, length in zip(layout.rows, layout.starts, layout.lengths)
    ]
