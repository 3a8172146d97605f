"""Rows of sentence pairs, for next-sentence and sentence-order prediction.

A document's text is cut into chunks of whole sentences that fit a row. A chunk of two sentences or more is cut at one
of its sentence boundaries into segments A and B. Next-sentence prediction (BERT,
https://huggingface.co/papers/1810.04805) replaces every second B by whole sentences of another document;
sentence-order prediction (ALBERT, https://huggingface.co/papers/1909.11942) swaps every second A and B. A chunk of one
sentence is trained on without a second segment and without a label.

Lengths must not tell the label. A chunk tends to begin with a long sentence, for which the chunk before it had no room,
so every second document is cut into chunks from its end. A B from another document is chosen among several random
candidates as the one nearest in length to the B that it replaces. Where none fits the pair has no label, whether it was
to be spoilt or not.

A pair is written start A end B end, with token types 0 and 1; short pairs share a row, each a document of its own.
The same chunks share a row in all epochs. Cuts, replacements and masks are functions of (seed, pass over the source,
document, position).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

import weft
from weft.recipes.common.bin_packing import fill_rows
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.source_mixture import ALL, Source, SourceMixture
from weft.recipes.pretraining.datasets.collators import Batch, MaskedCollator, stack
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.epochs import Epochs
from weft.recipes.pretraining.datasets.masked import Row, empty_row, pad_row
from weft.recipes.pretraining.datasets.masking import Masker
from weft.recipes.pretraining.datasets.packed import DocumentSpan
from weft.recipes.training.batch_schedule import Steps

CUT, COIN, OTHER = range(4, 7)  # streams of random numbers; those below are the masker's
SHORT_SHARE = 0.1  # of the chunks: made to fit a shorter row, as in BERT, so that short inputs are known
CANDIDATES = 8  # texts of other documents that a replacement is chosen from
IN_ORDER, SPOILT = 0, 1  # labels, as BERT has them


class SentencePairRows:
    """Rows of pairs for any number of epochs: row i of the run is row i % rows_per_epoch of its epoch.

    A row is a dict as in `MaskedRows`, with token_type_ids [row_length], `pool_from` (where each pair begins) and
    `pair_labels` (0: in order, 1: not, -100: no pair), both [pairs].

    An epoch takes weight times as many rows as a source has, out of an endless sequence of passes over them.
    """

    overlap = 0

    def __init__(
        self, corpus: Corpus, split: str, row_length: int, masker: Masker, swap: bool, seed: int, shuffle: bool = True
    ) -> None:
        """Args:
            split: "train" or "validation".
            swap: spoil the order by swapping the segments; otherwise by text of another document.
            shuffle: another order of rows in each epoch; without it every row comes once, whatever its source weighs.

        Raises:
            RecipeError: the corpus has no sentence boundaries, no start and end tokens, no pair, or one document only.
        """
        self.corpus, self.row_length, self.masker = corpus, row_length, masker
        self.swap, self.seed, self.shuffle = swap, seed, shuffle
        description = corpus.description
        if not corpus.has_boundaries:
            raise RecipeError(
                f"{corpus.folder} does not know where sentences begin: prepare it again with --segmenter characters."
            )
        if description["start_token_id"] is None or description["end_token_id"] is None:
            raise RecipeError(f"{corpus.folder} has no start and end tokens: prepare it with --document_tokens both.")
        if row_length < 8:
            raise RecipeError(f"sequence_length is {row_length}: a pair of sentences needs at least 8 tokens.")
        self.start, self.end = description["start_token_id"], description["end_token_id"]
        self._find_sentences(corpus.documents(split))
        self._cut_into_chunks()
        if not self._has_pair.any():
            raise RecipeError(
                f"no document of the {split} text of {corpus.folder} has two sentences that fit {row_length} tokens: "
                "give a larger sequence_length, or other text."
            )
        if not swap and len(self.documents) < 2:
            raise RecipeError(
                f"the {split} text of {corpus.folder} is one document, so no sentence can come from another: give more "
                "documents, or --objective sentence-order."
            )
        self._group_by_source(corpus)
        self.mix(corpus.mixture if shuffle else SourceMixture.of([Source(ALL)]))
        self.num_rows = self.rows_per_epoch
        self.steps: Steps | None = None

    def mix(self, mixture: SourceMixture, steps: Steps | None = None) -> None:
        """Mix the sources anew.

        Args:
            steps: of the run in which the mixture changes; None: as in its first stage.

        Raises:
            RecipeError: an epoch has no row.
        """
        sizes = self.source_sizes = [len(group) for group in self._members]
        self.epochs = Epochs.of(mixture, sizes, 1, steps, round)
        self.rows_per_epoch = self.epochs.stages[0].rows
        self.num_places = int(sum(size * times for size, times in zip(self._source_tokens, mixture.passes(sizes))))
        if self.epochs.fewest_units == 0:
            raise RecipeError(
                f"the text of {self.corpus.folder} fills {len(self._rows)} rows of {self.row_length} tokens, of which "
                "its source weights leave none: give more text, larger weights, or a smaller sequence_length."
            )
        self._order: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.num_rows

    def schedule(self, num_rows: int, steps: Steps) -> None:
        """Make these the `num_rows` rows of a run, in which the masking rate depends on the step."""
        self.num_rows, self.steps = num_rows, steps

    def __getitem__(self, index: int) -> Row:
        epoch, place = self.epochs.find(int(index))
        arguments = self.masker.arguments
        if self.steps is None:
            rate = arguments.held_out_rate
            if epoch > 0:  # beyond the end of the held-out text
                return self._fill(np.empty(0, dtype=np.int64), 0, rate)
        else:
            rate = arguments.rate_at(self.steps.of(int(index)), self.steps.number)
        rows, passes = self._row_order(epoch)
        return self._fill(self._rows[int(rows[place])], int(passes[place]), rate)

    def _row_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of an epoch, and the pass over its source in which each of them comes."""
        if self._order is None or self._order[0] != epoch:
            taken = self.epochs.epoch(epoch)
            drawn = [self._draw_rows(source, *part) for source, part in enumerate(taken.parts)]
            rows, passes = (np.concatenate(arrays) for arrays in zip(*drawn))
            order = np.arange(taken.rows)
            if self.shuffle:
                order = np.random.default_rng([self.seed, epoch]).permutation(taken.rows)
            self._order = (epoch, rows[order], passes[order])
        return self._order[1:]

    def _draw_rows(self, source: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows [start, stop) of the endless sequence of passes over a source, and the pass of each."""
        members = self._members[source]
        size = max(1, len(members))
        passes, places = np.divmod(np.arange(start, stop), size)
        if stop - start != len(members) or start % size:
            for number in np.unique(passes):
                order = np.random.default_rng([self.seed, number, source]).permutation(len(members))
                places[passes == number] = order[places[passes == number]]
        return members[places], passes

    def _fill(self, chunks: np.ndarray, pass_number: int, rate: float) -> Row:
        used = int(self._sizes[chunks].sum())
        spare = (self.row_length - used) // max(1, int(self._has_pair[chunks].sum()))
        segments: list[DocumentSpan] = []
        pairs: list[tuple[int, int]] = []  # segments of each pair, and its label
        for chunk in chunks.tolist():
            pair, label = self._make_pair(chunk, pass_number, spare)
            segments += pair
            pairs.append((len(pair), label))
        ids, types, positions, targets, begins = [], [], [], [], []
        texts = self._masked(segments, rate)
        for count, _ in pairs:
            begins.append(len(ids))
            ids.append(self.start)
            types.append(0)
            targets.append(weft.IGNORE_INDEX)
            for kind in range(count):
                text, text_targets = next(texts)
                ids += [*text, self.end]
                types += [kind] * (len(text) + 1)
                targets += [*text_targets, weft.IGNORE_INDEX]
            positions += range(len(ids) - begins[-1])
        arrays = {"input_ids": ids, "position_ids": positions, "token_type_ids": types, "targets": targets}
        row = {**empty_row(), **{name: np.array(values, dtype=np.int64) for name, values in arrays.items()}}
        row = pad_row(row, self.row_length)
        row["pool_from"] = np.array(begins, dtype=np.int64)
        row["pair_labels"] = np.array([label for _, label in pairs], dtype=np.int64)
        return row

    def _masked(self, segments: list[DocumentSpan], rate: float) -> Iterator[tuple[list[int], list[int]]]:
        """The ids and the targets of each segment."""
        if not segments:
            return
        selected, masked = self.masker(segments, rate)
        ends = np.cumsum([len(segment.tokens) for segment in segments])[:-1]
        for segment, is_target, text in zip(segments, np.split(selected, ends), np.split(masked, ends)):
            targets = np.where(is_target, segment.tokens.astype(np.int64), weft.IGNORE_INDEX)
            yield text.tolist(), targets.tolist()

    def _make_pair(self, chunk: int, pass_number: int, spare: int) -> tuple[list[DocumentSpan], int]:
        """The segments of a chunk, and the label.

        Args:
            pass_number: of the pass over the source.
            spare: tokens that the pair may be longer than the chunk.
        """
        document, begin = int(self._documents[chunk]), int(self._begins[chunk])
        end = begin + int(self._lengths[chunk])
        if not self._has_pair[chunk]:
            return [self._span(document, begin, end, pass_number)], weft.IGNORE_INDEX
        key = make_key(self.seed, pass_number, int(self.documents[document]), begin - self._offset(document))
        cut_draw, coin = (float(uniform(key, 0, stream)) for stream in (CUT, COIN))
        low, high = np.searchsorted(self._bounds, begin, side="right"), np.searchsorted(self._bounds, end)
        cut = int(self._bounds[low + int(cut_draw * (high - low))])
        first = self._span(document, begin, cut, pass_number)
        second = self._span(document, cut, end, pass_number)
        in_order = coin < 0.5
        if self.swap:
            return ([first, second], IN_ORDER) if in_order else ([second, first], SPOILT)
        other = self._find_elsewhere(document, end - cut, end - cut + spare, uniform(key, np.arange(CANDIDATES), OTHER))
        if other is None:
            return [first, second], weft.IGNORE_INDEX
        return ([first, second], IN_ORDER) if in_order else ([first, self._span(*other, pass_number)], SPOILT)

    def _find_elsewhere(self, document: int, wanted: int, most: int, draws: np.ndarray) -> tuple[int, int, int] | None:
        """Whole sentences of another document, nearly `wanted` and at most `most` tokens: document, begin and end."""
        own, after = self._first_bounds[document], self._first_bounds[document + 1]
        begins = (draws * (len(self._bounds) - (after - own))).astype(np.int64)
        begins += (begins >= own) * (after - own)
        others = np.searchsorted(self._first_bounds, begins, side="right") - 1
        lasts = self._first_bounds[others + 1] - 1
        begins = np.minimum(begins, lasts - 1)  # the last bound of a document is its end
        above = np.searchsorted(self._bounds, self._bounds[begins] + wanted)
        ends = np.concatenate((above, above - 1)).clip(np.tile(begins + 1, 2), np.tile(lasts, 2))
        lengths = self._bounds[ends] - np.tile(self._bounds[begins], 2)
        misses = np.where(lengths <= most, np.abs(lengths - wanted), np.iinfo(np.int64).max)
        best = int(np.argmin(misses))
        if lengths[best] > most:
            return None
        place = best % len(begins)
        return int(others[place]), int(self._bounds[begins[place]]), int(self._bounds[ends[best]])

    def _offset(self, document: int) -> int:
        return int(self.corpus.offsets[self.documents[document]])

    def _span(self, document: int, begin: int, end: int, pass_number: int) -> DocumentSpan:
        tokens = self.corpus.tokens[begin:end]
        return DocumentSpan(int(self.documents[document]), begin - self._offset(document), tokens, pass_number, False)

    def _find_sentences(self, documents: np.ndarray) -> None:
        """Find the beginning of each sentence and the end of each text, as indices into the corpus' tokens."""
        bounds, kept = [], []
        for document in documents.tolist():
            offset, stop = int(self.corpus.offsets[document]) + 1, int(self.corpus.offsets[document + 1])
            if stop > offset and self.corpus.tokens[stop - 1] == self.end:  # a document whose tail is apart has none
                stop -= 1
            if stop <= offset:
                continue
            begins = self.corpus.begins("sentences", offset, stop)
            begins[0] = True
            bounds.append(np.append(np.flatnonzero(begins), stop - offset) + offset)
            kept.append(document)
        self.documents = np.array(kept, dtype=np.int64)
        self._bounds = np.concatenate([np.empty(0, dtype=np.int64), *bounds])
        self._first_bounds = np.cumsum([0, *map(len, bounds)])

    def _cut_into_chunks(self) -> None:
        """Make chunks as arrays: index of the document, index of the first token, tokens, and places in a row."""
        draw = np.random.default_rng([self.seed, len(self.documents)])
        documents, begins, lengths = [], [], []
        for document in range(len(self.documents)):
            bounds = self._bounds[self._first_bounds[document] : self._first_bounds[document + 1]]
            first, end = int(bounds[0]), int(bounds[-1])
            from_end = draw.random() < 0.5
            starts = (end - bounds[::-1] if from_end else bounds - first).tolist()
            for place, reach in self._fit(starts, draw):
                documents.append(document)
                begins.append(end - reach if from_end else first + place)
                lengths.append(reach - place)
        self._documents = np.array(documents, dtype=np.int64)
        self._begins, self._lengths = np.array(begins, dtype=np.int64), np.array(lengths, dtype=np.int64)
        inner = np.searchsorted(self._bounds, self._begins, side="right")
        self._has_pair = np.searchsorted(self._bounds, self._begins + self._lengths) > inner
        self._sizes = self._lengths + 2 + self._has_pair  # start, end and the end of a second segment

    def _fit(self, starts: list[int], draw: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Cut the text of a document into chunks. Its sentences begin at `starts`, the last of which is its end.

        A sentence that fits no row is cut, and shares a chunk with no other.
        """
        longest = self.row_length - 3  # start, end, end
        place = 0
        while place < starts[-1]:
            room = longest if draw.random() >= SHORT_SHARE else int(draw.integers(2, longest + 1))
            following = bisect_right(starts, place)
            reach = starts[bisect_right(starts, place + room) - 1]
            if reach <= place or starts[following - 1] != place:
                reach = min(place + longest, starts[following])
            yield place, reach
            place = reach

    def _group_by_source(self, corpus: Corpus) -> None:
        number = len(corpus.source_weights) if self.shuffle else 1
        sources = np.zeros(len(self._lengths), dtype=np.int64)
        if self.shuffle:
            sources = np.asarray(corpus.source_of)[self.documents[self._documents]].astype(np.int64)
        rows: list[list[np.ndarray]] = []
        for source in range(number):
            chunks = np.flatnonzero(sources == source)
            rows.append([chunks[row] for row in fill_rows(self._sizes[chunks], self.row_length, self.seed)])
        self._rows = [row for group in rows for row in group]
        self._members = np.split(np.arange(len(self._rows)), np.cumsum([len(group) for group in rows])[:-1])
        self._source_tokens = [int(self._lengths[sources == source].sum()) for source in range(number)]


class SentencePairCollator(MaskedCollator):
    """Collates such rows: the batch also holds token_type_ids [rows, row_length], `pool_from` [pairs], where each pair
    begins in the flattened batch, and `next_sentence_label` [pairs]."""

    def __call__(self, rows: Sequence[Row]) -> Batch:
        import torch

        batch = {**super().__call__(rows), **stack(rows, ("token_type_ids",))}
        begins = [row["pool_from"] + i * len(row["input_ids"]) for i, row in enumerate(rows)]
        batch["pool_from"] = torch.from_numpy(np.concatenate(begins))
        batch["next_sentence_label"] = torch.from_numpy(np.concatenate([row["pair_labels"] for row in rows]))
        return batch
