"""Documents to rows of one length, each document by itself, in an order that is a function of seed, epoch and step.

A document of n tokens holds n - 1 pairs (token, the token after it). Rows are filled with pairs, so every token but
the first of each document is predicted exactly once an epoch, no label crosses a document, and no place is wasted on
a token after which nothing is predicted. A document that does not end with its row goes on in another, where it
counts as a document of its own. Positions restart with each document: that is how the model knows it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from weft.recipes.common.corpus import Corpus
from weft.recipes.common.errors import RecipeError

IGNORE_INDEX = -100
Row = dict[str, np.ndarray]


class _Rows(Dataset):
    """Rows cut out of a sequence of documents laid end to end."""

    def __init__(self, corpus: Corpus, split: str, row_length: int) -> None:
        self.corpus = corpus
        self.row_length = row_length
        documents = corpus.documents(split)
        lengths = np.diff(corpus.offsets)[documents] - 1
        self.documents = documents[lengths > 0]
        self.lengths = lengths[lengths > 0]
        self.num_pairs = int(self.lengths.sum())

    def _fill(self, order: np.ndarray, ends: np.ndarray, start: int, wanted: int) -> list[tuple[np.ndarray, bool]]:
        """Tokens of the pairs [start, start + wanted) of the documents in `order`, which end at pairs `ends`.

        Returns:
            Pieces of one document each: its pairs + 1 tokens, and whether the document ends there.
        """
        pieces = []
        place = int(np.searchsorted(ends, start, side="right"))
        while wanted > 0:
            document, length = self.documents[order[place]], int(self.lengths[order[place]])
            skip = start - (int(ends[place]) - length)
            pairs = min(length - skip, wanted)
            first = int(self.corpus.offsets[document]) + skip
            pieces.append((self.corpus.tokens[first : first + pairs + 1], skip + pairs == length))
            start, wanted, place = start + pairs, wanted - pairs, place + 1
            if place == len(order):
                start, place = 0, 0
        return pieces


class TrainingRows(_Rows):
    """Rows for any number of epochs, one after another: row i of the run is row i % rows_per_epoch of its epoch.

    Every epoch lays the documents out in another order, begins to cut at another place and shuffles the rows; all of
    it follows from (seed, epoch). Only the last row of an epoch, which would not be full, is left out.
    """

    def __init__(self, corpus: Corpus, row_length: int, num_rows: int, seed: int) -> None:
        """Args:
            row_length: pairs of a row, in tokens.
            num_rows: rows of the whole run, over all epochs.
            seed: of the order.

        Raises:
            RecipeError: the corpus does not fill one row.
        """
        super().__init__(corpus, "train", row_length)
        self.num_rows, self.seed = num_rows, seed
        self.rows_per_epoch = self.num_pairs // row_length
        if self.rows_per_epoch == 0:
            raise RecipeError(
                f"the training text of {corpus.folder} has {self.num_pairs} tokens, fewer than one row of "
                f"{row_length}: give more text, or a smaller sequence_length."
            )
        self._epoch: _Epoch | None = None

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row:
        number, row = divmod(int(index), self.rows_per_epoch)
        epoch = self._layout(number)
        start = (epoch.first_pair + int(epoch.rows[row]) * self.row_length) % self.num_pairs
        pieces = self._fill(epoch.order, epoch.ends, start, self.row_length)
        tokens = np.concatenate([piece[:-1] for piece, _ in pieces]).astype(np.int64)
        labels = np.concatenate([piece[1:] for piece, _ in pieces]).astype(np.int64)
        return {"input_ids": tokens, "labels": labels, "position_ids": _positions(pieces)}

    def _layout(self, number: int) -> "_Epoch":
        if self._epoch is None or self._epoch.number != number:
            random = np.random.default_rng([self.seed, number])
            order = random.permutation(len(self.documents))
            self._epoch = _Epoch(
                number=number,
                order=order,
                ends=np.cumsum(self.lengths[order]),
                first_pair=int(random.integers(self.row_length)),
                rows=random.permutation(self.rows_per_epoch),
            )
        return self._epoch


@dataclass(frozen=True)
class _Epoch:
    number: int
    order: np.ndarray
    ends: np.ndarray
    first_pair: int
    rows: np.ndarray


class ValidationRows(_Rows):
    """The held-out documents in their order, each pair of them once; the last row is filled up with padding.

    Beside what a training row has, `is_text` marks the targets that are text rather than end tokens. A row beyond the
    last holds padding only, so that every process can have the same number.
    """

    def __init__(self, corpus: Corpus, row_length: int) -> None:
        super().__init__(corpus, "validation", row_length)
        if self.num_pairs == 0:
            raise RecipeError(f"the held-out text of {corpus.folder} has no token to predict: hold more text out.")
        self.order, self.ends = np.arange(len(self.documents)), np.cumsum(self.lengths)
        self.byte_count = int(corpus.byte_counts[self.documents].sum())

    def __len__(self) -> int:
        return -(-self.num_pairs // self.row_length)

    def __getitem__(self, index: int) -> Row:
        start = int(index) * self.row_length
        wanted = max(0, min(self.row_length, self.num_pairs - start))
        pieces = self._fill(self.order, self.ends, start, wanted)
        row = {
            "input_ids": np.zeros(self.row_length, dtype=np.int64),
            "labels": np.full(self.row_length, IGNORE_INDEX, dtype=np.int64),
            "position_ids": np.arange(self.row_length, dtype=np.int64),
            "is_text": np.zeros(self.row_length, dtype=bool),
        }
        place = 0
        for piece, is_end in pieces:
            here = slice(place, place := place + len(piece) - 1)
            row["input_ids"][here], row["labels"][here] = piece[:-1], piece[1:]
            row["position_ids"][here] = np.arange(len(piece) - 1)
            row["is_text"][here] = True
            row["is_text"][place - 1] = not (is_end and self.corpus.has_end_tokens)
        row["position_ids"][place:] = np.arange(self.row_length - place)
        return row


def _positions(pieces: list[tuple[np.ndarray, bool]]) -> np.ndarray:
    return np.concatenate([np.arange(len(piece) - 1) for piece, _ in pieces])


def collate_causal(rows: list[Row]) -> dict[str, torch.Tensor]:
    """Stack rows into a batch [rows, row_length]; labels are already aligned with the logits (`shift_labels`)."""
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    return {**batch, "shift_labels": batch["labels"]}
