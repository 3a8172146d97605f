"""Documents to rows of one length, each document by itself, in an order that is a function of seed, epoch and step.

For a model that predicts the next token, a document of n tokens holds n - 1 pairs (token, the token after it). Rows are
filled with pairs, so every token but the first of each document is predicted exactly once an epoch, no label crosses a
document, and no place is wasted on a token after which nothing is predicted. For a masked model, rows are filled with
the tokens themselves. A document that does not end with its row goes on in another, where it counts as a document of
its own. Positions restart with each document: that is how the model knows it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch.utils.data import Dataset

from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus

Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class Piece:
    """A stretch of one document in a row.

    Args:
        document: its index in the corpus.
        first: place of the stretch's first token in the document.
        tokens: ids [places of the row, plus the overlap].
        number: how many times the document's source was passed over before.
        is_end: whether the document ends with it.
    """

    document: int
    first: int
    tokens: np.ndarray
    number: int
    is_end: bool


@dataclass(frozen=True)
class _Layout:
    """Stretches of documents laid end to end: `documents`, from place `firsts`, of `lengths` places each."""

    documents: np.ndarray
    firsts: np.ndarray
    lengths: np.ndarray
    numbers: np.ndarray

    @cached_property
    def ends(self) -> np.ndarray:
        """Where each stretch ends."""
        return np.cumsum(self.lengths)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.documents, self.firsts, self.lengths, self.numbers


class _Rows(Dataset):
    """Rows cut out of a sequence of documents laid end to end."""

    def __init__(self, corpus: Corpus, split: str, row_length: int, overlap: int = 1) -> None:
        """Args:
        row_length: places of a row.
        overlap: 1 for pairs, where each piece of a document shares a token with the next; 0 for tokens.
        """
        self.corpus = corpus
        self.row_length, self.overlap = row_length, overlap
        documents = corpus.documents(split)
        lengths = np.diff(corpus.offsets)[documents] - overlap
        self.documents = documents[lengths > 0]
        self.lengths = lengths[lengths > 0]
        self.num_pairs = int(self.lengths.sum())

    def _cut(self, layout: _Layout, start: int, wanted: int) -> list[Piece]:
        """The places [start, start + wanted) of a layout, which goes on at its beginning."""
        pieces = []
        entry = int(np.searchsorted(layout.ends, start, side="right"))
        while wanted > 0:
            document, length = int(layout.documents[entry]), int(layout.lengths[entry])
            skip = start - (int(layout.ends[entry]) - length)
            places = min(length - skip, wanted)
            first = int(layout.firsts[entry]) + skip
            offset, stop = int(self.corpus.offsets[document]), int(self.corpus.offsets[document + 1])
            last = offset + first + places + self.overlap
            tokens = self.corpus.tokens[offset + first : last]
            pieces.append(Piece(document, first, tokens, int(layout.numbers[entry]), last == stop))
            start, wanted, entry = start + places, wanted - places, entry + 1
            if entry == len(layout.ends):
                start, entry = 0, 0
        return pieces


class TrainingRows(_Rows):
    """Rows for any number of epochs, one after another: row i of the run is row i % rows_per_epoch of its epoch.

    Every epoch lays the documents out in another order, begins to cut at another place and shuffles the rows; all of
    it follows from (seed, epoch). Only the last row of an epoch, which would not be full, is left out.

    Sources have weights: an epoch takes weight times as many places as a source has. It takes them from an endless
    sequence of passes over the source, each in another order, so that no document of a source comes again before all
    others have come.

    Where a run goes over several corpora, `first_row` says with which row of the run this one begins, and `first_epoch`
    what the number of its first epoch is, so that each corpus has random numbers of its own.
    """

    def __init__(self, corpus: Corpus, row_length: int, num_rows: int, seed: int, overlap: int = 1) -> None:
        """Args:
            row_length: places of a row.
            num_rows: rows of the whole run, over all epochs.
            seed: of the order.
            overlap: 1 for pairs of tokens (next-token prediction), 0 for tokens.

        Raises:
            RecipeError: the corpus does not fill one row.
        """
        super().__init__(corpus, "train", row_length, overlap)
        self.num_rows, self.seed = num_rows, seed
        source_of = np.asarray(corpus.source_of)[self.documents]
        self._sources = [np.flatnonzero(source_of == source) for source in range(len(corpus.source_weights))]
        sizes = [int(self.lengths[members].sum()) for members in self._sources]
        self._shares = [int(size * weight) for size, weight in zip(sizes, corpus.source_weights)]
        self.num_places = sum(self._shares)
        self.rows_per_epoch = self.num_places // row_length
        if self.rows_per_epoch == 0:
            raise RecipeError(
                f"the training text of {corpus.folder} has {self.num_places} tokens, fewer than one row of "
                f"{row_length}: give more text, or a smaller sequence_length."
            )
        self.first_row = self.first_epoch = 0
        self._epoch: _Epoch | None = None

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row:
        pieces = self.pieces(index)
        tokens = np.concatenate([piece.tokens[:-1] for piece in pieces]).astype(np.int64)
        labels = np.concatenate([piece.tokens[1:] for piece in pieces]).astype(np.int64)
        return {"input_ids": tokens, "labels": labels, "position_ids": positions_of(pieces, overlap=1)}

    def pieces(self, index: int) -> list[Piece]:
        """What row `index` of the run is made of."""
        number, row = divmod(int(index) - self.first_row, self.rows_per_epoch)
        epoch = self._lay_out(self.first_epoch + number)
        start = (epoch.first_place + int(epoch.rows[row]) * self.row_length) % self.num_places
        return self._cut(epoch.layout, start, self.row_length)

    def _lay_out(self, number: int) -> "_Epoch":
        if self._epoch is None or self._epoch.number != number:
            parts = [self._stretches(source, number) for source in range(len(self._sources))]
            draw = np.random.default_rng([self.seed, number])
            order = draw.permutation(sum(len(part.documents) for part in parts))
            joined = [np.concatenate(arrays)[order] for arrays in zip(*(part.columns for part in parts))]
            self._epoch = _Epoch(
                number=number,
                layout=_Layout(*joined),
                first_place=int(draw.integers(self.row_length)),
                rows=draw.permutation(self.rows_per_epoch),
            )
        return self._epoch

    def _stretches(self, source: int, epoch: int) -> _Layout:
        """What an epoch takes from a source: a stretch of the endless sequence of passes over it."""
        members, share = self._sources[source], self._shares[source]
        size = int(self.lengths[members].sum())
        start, stop = epoch * share, (epoch + 1) * share
        columns: list[tuple[np.ndarray, ...]] = [(np.empty(0, dtype=np.int64),) * 4]
        while start < stop:
            number, begin = divmod(start, size)
            end = min(size, begin + stop - start)
            order = members if share == size else self._pass_order(source, number)
            ends = np.cumsum(self.lengths[order])
            low, high = np.searchsorted(ends, begin, side="right"), np.searchsorted(ends, end, side="left")
            chosen = order[low : high + 1]
            firsts = np.zeros(len(chosen), dtype=np.int64)
            lasts = self.lengths[chosen].astype(np.int64)
            firsts[0] = begin - (ends[low] - self.lengths[order[low]])
            lasts[-1] -= ends[high] - end
            numbers = np.full(len(chosen), number, dtype=np.int64)
            columns.append((self.documents[chosen], firsts, lasts - firsts, numbers))
            start += end - begin
        return _Layout(*(np.concatenate(arrays) for arrays in zip(*columns)))

    def _pass_order(self, source: int, number: int) -> np.ndarray:
        members = self._sources[source]
        return members[np.random.default_rng([self.seed, number, source]).permutation(len(members))]


@dataclass(frozen=True)
class _Epoch:
    number: int
    layout: _Layout
    first_place: int
    rows: np.ndarray


class ValidationRows(_Rows):
    """The held-out documents in their order, each place of them once; the last row is filled up with padding.

    Beside what a training row has, `is_text` marks the targets that are text rather than end tokens. A row beyond the
    last holds padding only, so that every process can have the same number.
    """

    def __init__(self, corpus: Corpus, row_length: int, overlap: int = 1) -> None:
        super().__init__(corpus, "validation", row_length, overlap)
        if self.num_pairs == 0:
            raise RecipeError(f"the held-out text of {corpus.folder} has no token to predict: hold more text out.")
        zeros = np.zeros(len(self.documents), dtype=np.int64)
        self.layout = _Layout(self.documents, zeros, self.lengths, zeros)
        self.byte_count = int(corpus.byte_counts[self.documents].sum())

    def __len__(self) -> int:
        return -(-self.num_pairs // self.row_length)

    def pieces(self, index: int) -> list[Piece]:
        """What row `index` is made of."""
        start = int(index) * self.row_length
        return self._cut(self.layout, start, max(0, min(self.row_length, self.num_pairs - start)))

    def __getitem__(self, index: int) -> Row:
        pieces = self.pieces(index)
        row = {
            "input_ids": np.zeros(self.row_length, dtype=np.int64),
            "labels": np.full(self.row_length, IGNORE_INDEX, dtype=np.int64),
            "position_ids": positions_of(pieces, self.overlap, self.row_length),
            "is_text": np.zeros(self.row_length, dtype=bool),
        }
        place = 0
        for piece in pieces:
            here = slice(place, place := place + len(piece.tokens) - 1)
            row["input_ids"][here], row["labels"][here] = piece.tokens[:-1], piece.tokens[1:]
            row["is_text"][here] = True
            row["is_text"][place - 1] = not (piece.is_end and self.corpus.has_end_tokens)
        return row


def positions_of(pieces: list[Piece], overlap: int, row_length: int | None = None) -> np.ndarray:
    """Positions [row_length] that restart with each piece, and with the padding behind the last; int64."""
    counts = [len(piece.tokens) - overlap for piece in pieces]
    if row_length is not None:
        counts.append(row_length - sum(counts))
    return np.concatenate([np.arange(count) for count in counts])
