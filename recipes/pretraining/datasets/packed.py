"""Pack documents into rows of one length, in an order that is a function of seed, epoch and step.

For next-token prediction, a document of n tokens holds n - 1 pairs (token, the token after it), and rows are filled
with pairs. Every token but the first of each document is predicted exactly once an epoch, and no label crosses a
document. For a masked model, rows are filled with the tokens themselves. A document that does not end with its row goes
on in another, as a document of its own. Positions restart with each document, which tells the model where one begins.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

import weft
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.source_mixture import SourceMixture
from weft.recipes.pretraining.datasets.epochs import Epochs
from weft.recipes.training.batch_schedule import Steps

Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class DocumentSpan:
    """Consecutive tokens of one document in a row.

    Args:
        document: its index in the corpus.
        first: index of the first token in the document.
        tokens: ids [places of the row, plus the overlap].
        pass_number: passes over the document's source before this one.
        is_end: whether the document ends here.
    """

    document: int
    first: int
    tokens: np.ndarray
    pass_number: int
    is_end: bool


@dataclass(frozen=True)
class _Concatenation:
    """Spans of documents end to end: `lengths` places of `documents`, from place `firsts`, in passes `passes`."""

    documents: np.ndarray
    firsts: np.ndarray
    lengths: np.ndarray
    passes: np.ndarray

    @cached_property
    def ends(self) -> np.ndarray:
        """Where each span ends."""
        return np.cumsum(self.lengths)

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.documents, self.firsts, self.lengths, self.passes


class _PackedRows:
    """Rows cut out of concatenated documents."""

    def __init__(self, corpus: Corpus, split: str, row_length: int, overlap: int = 1) -> None:
        """Args:
        overlap: 1 for pairs, where each span of a document shares a token with the next; 0 for tokens.
        """
        self.corpus = corpus
        self.row_length, self.overlap = row_length, overlap
        documents = corpus.documents(split)
        lengths = np.diff(corpus.offsets)[documents] - overlap
        self.documents = documents[lengths > 0]
        self.lengths = lengths[lengths > 0]
        self.num_places = int(self.lengths.sum())

    def _cut(self, text: _Concatenation, start: int, wanted: int) -> list[DocumentSpan]:
        """The places [start, start + wanted) of a text, which goes on at its beginning."""
        spans = []
        entry = int(np.searchsorted(text.ends, start, side="right"))
        while wanted > 0:
            document, length = int(text.documents[entry]), int(text.lengths[entry])
            skip = start - (int(text.ends[entry]) - length)
            places = min(length - skip, wanted)
            first, number = int(text.firsts[entry]) + skip, int(text.passes[entry])
            tokens, is_end = self._read(document, number, first, first + places + self.overlap)
            spans.append(DocumentSpan(document, first, tokens, number, is_end))
            start, wanted, entry = start + places, wanted - places, entry + 1
            if entry == len(text.ends):
                start, entry = 0, 0
        return spans

    def _read(self, document: int, pass_number: int, first: int, last: int) -> tuple[np.ndarray, bool]:
        """The tokens [first, last) of a document as it is in a pass over its source, and whether it ends with them."""
        begin, stop = int(self.corpus.offsets[document]), int(self.corpus.offsets[document + 1])
        return self.corpus.tokens[begin + first : begin + last], begin + last == stop


class TrainingRows(_PackedRows):
    """Rows for any number of epochs, one after another: row i of the run is row i % rows_per_epoch of its epoch.

    Every epoch concatenates the documents in another order, begins to cut at another place and shuffles the rows. All
    of it follows from (seed, epoch). Only the last row of an epoch is left out, because it would not be full.

    Sources have weights: an epoch takes weight times as many places as a source has. It takes them from an endless
    sequence of passes over the source, each in another order. No document of a source comes again before all others.
    Weights may change in stages of a run (`Epochs`), of which each goes on with the passes where the last one ended.

    A run over several corpora sets `first_row`, the row of the run with which this corpus begins, and `first_epoch`,
    the number of its first epoch. So each corpus has random numbers of its own.
    """

    def __init__(self, corpus: Corpus, row_length: int, num_rows: int, seed: int, overlap: int = 1) -> None:
        """Args:
            overlap: 1 for pairs of tokens (next-token prediction), 0 for tokens.

        Raises:
            RecipeError: the corpus does not fill one row.
        """
        super().__init__(corpus, "train", row_length, overlap)
        self.num_rows, self.seed = num_rows, seed
        source_of = np.asarray(corpus.source_of)[self.documents]
        self._sources = [np.flatnonzero(source_of == source) for source in range(len(corpus.source_weights))]
        self.source_sizes = [int(self.lengths[each].sum()) + self.added_places(len(each)) for each in self._sources]
        self.first_row = self.first_epoch = 0
        self.mix(corpus.mixture)

    def mix(self, mixture: SourceMixture, steps: Steps | None = None) -> None:
        """Mix the sources anew.

        Args:
            steps: of the run in which the mixture changes; None: as in its first stage.

        Raises:
            RecipeError: an epoch does not fill one row.
        """
        self.epochs = Epochs.of(mixture, self.source_sizes, self.row_length, steps)
        self.num_places = sum(self.epochs.stages[0].shares)
        self.rows_per_epoch = self.epochs.stages[0].rows
        if self.epochs.fewest_units < self.row_length:
            raise RecipeError(
                f"the training text of {self.corpus.folder} has {counted(self.epochs.fewest_units, 'token')}, fewer "
                f"than one row of {self.row_length}: give more text, or a smaller sequence_length."
            )
        self._epoch: _Epoch | None = None

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> Row:
        return self.row_of(self.spans(index))

    def row_of(self, spans: list[DocumentSpan]) -> Row:
        """The row that is made of these spans."""
        tokens = np.concatenate([span.tokens[: len(span.tokens) - self.overlap] for span in spans]).astype(np.int64)
        labels = np.concatenate([self._next_tokens(span) for span in spans]).astype(np.int64)
        return {"input_ids": tokens, "labels": labels, "position_ids": positions_of(spans, self.overlap)}

    def _next_tokens(self, span: DocumentSpan) -> np.ndarray:
        """The token after each place of a span; -100 behind the end of its document."""
        if self.overlap:
            return span.tokens[1:]
        place = int(self.corpus.offsets[span.document]) + span.first + len(span.tokens)
        return np.append(span.tokens[1:], weft.IGNORE_INDEX if span.is_end else int(self.corpus.tokens[place]))

    def added_places(self, documents: int) -> int:
        """How many places so many documents have in a pass over them, beside those of their own tokens."""
        return 0

    def spans(self, index: int) -> list[DocumentSpan]:
        """What row `index` of the run is made of."""
        number, row = self.epochs.find(int(index) - self.first_row)
        epoch = self._make_epoch(self.first_epoch + number)
        start = (epoch.first_place + int(epoch.rows[row]) * self.row_length) % int(epoch.text.ends[-1])
        return self._cut(epoch.text, start, self.row_length)

    def _make_epoch(self, number: int) -> "_Epoch":
        if self._epoch is None or self._epoch.number != number:
            taken = self.epochs.epoch(number)
            of_sources = [self._take(source, *part) for source, part in enumerate(taken.parts)]
            draw = np.random.default_rng([self.seed, number])
            order = draw.permutation(sum(len(each.documents) for each in of_sources))
            joined = [np.concatenate(arrays)[order] for arrays in zip(*(each.columns for each in of_sources))]
            self._epoch = _Epoch(
                number=number,
                text=_Concatenation(*joined),
                first_place=int(draw.integers(self.row_length)),
                rows=draw.permutation(taken.rows),
            )
        return self._epoch

    def _take(self, source: int, start: int, stop: int) -> _Concatenation:
        """The places [start, stop) of the endless sequence of passes over a source."""
        members, size = self._sources[source], self.source_sizes[source]
        is_pass = stop - start == size and start % max(1, size) == 0
        columns: list[tuple[np.ndarray, ...]] = [(np.empty(0, dtype=np.int64),) * 4]
        while start < stop:
            number, begin = divmod(start, size)
            end = min(size, begin + stop - start)
            order = members if is_pass else self._pass_order(source, number)
            lengths = self._lengths_in(source, number, order)
            ends = np.cumsum(lengths)
            low, high = np.searchsorted(ends, begin, side="right"), np.searchsorted(ends, end, side="left")
            chosen = order[low : high + 1]
            firsts = np.zeros(len(chosen), dtype=np.int64)
            lasts = lengths[low : high + 1].astype(np.int64)
            firsts[0] = begin - (ends[low] - lengths[low])
            lasts[-1] -= ends[high] - end
            passes = np.full(len(chosen), number, dtype=np.int64)
            columns.append((self.documents[chosen], firsts, lasts - firsts, passes))
            start += end - begin
        return _Concatenation(*(np.concatenate(arrays) for arrays in zip(*columns)))

    def _lengths_in(self, source: int, pass_number: int, order: np.ndarray) -> np.ndarray:
        """The places [len(order)] that the documents of a source, in this order, have in a pass over it."""
        return self.lengths[order]

    def _pass_order(self, source: int, number: int) -> np.ndarray:
        members = self._sources[source]
        return members[np.random.default_rng([self.seed, number, source]).permutation(len(members))]


@dataclass(frozen=True)
class _Epoch:
    number: int
    text: _Concatenation
    first_place: int
    rows: np.ndarray


class ValidationRows(_PackedRows):
    """The held-out documents in their order, each place of them once; the last row is filled up with padding.

    A row also has `is_text`, which marks the targets that are text rather than end tokens. A row beyond the last holds
    padding only, so that every process can have the same number.
    """

    def __init__(self, corpus: Corpus, row_length: int, overlap: int = 1) -> None:
        super().__init__(corpus, "validation", row_length, overlap)
        if self.num_places == 0:
            raise RecipeError(f"the held-out text of {corpus.folder} has no token to predict: hold more text out.")
        zeros = np.zeros(len(self.documents), dtype=np.int64)
        self._text = _Concatenation(self.documents, zeros, self.lengths, zeros)
        self.byte_count = int(corpus.byte_counts[self.documents].sum())

    def __len__(self) -> int:
        return -(-self.num_places // self.row_length)

    def spans(self, index: int) -> list[DocumentSpan]:
        """What row `index` is made of."""
        start = int(index) * self.row_length
        return self._cut(self._text, start, max(0, min(self.row_length, self.num_places - start)))

    def __getitem__(self, index: int) -> Row:
        spans = self.spans(index)
        row = {
            "input_ids": np.zeros(self.row_length, dtype=np.int64),
            "labels": np.full(self.row_length, weft.IGNORE_INDEX, dtype=np.int64),
            "position_ids": positions_of(spans, self.overlap, self.row_length),
            "is_text": np.zeros(self.row_length, dtype=bool),
        }
        place = 0
        for span in spans:
            here = slice(place, place := place + len(span.tokens) - 1)
            row["input_ids"][here], row["labels"][here] = span.tokens[:-1], span.tokens[1:]
            row["is_text"][here] = True
            row["is_text"][place - 1] = not (span.is_end and self.corpus.has_end_tokens)
        return row


def positions_of(spans: list[DocumentSpan], overlap: int, row_length: int | None = None) -> np.ndarray:
    """Positions [row_length] that restart with each span, and with the padding behind the last; int64."""
    counts = [len(span.tokens) - overlap for span in spans]
    if row_length is not None:
        counts.append(row_length - sum(counts))
    return np.concatenate([np.arange(count) for count in counts])
