"""Packed rows of pairs: the documents of a row are spoilt by themselves, and stand in the same order on both sides.

A row of text makes more or fewer tokens of sources and of targets than others do. Batches therefore put the pairs of
their rows into rows of their own, in which both sides are nearly full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import weft
from weft.recipes.common.bin_packing import fill_rows, fill_rows_to
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.datasets.counter_rng import make_key
from weft.recipes.pretraining.datasets.denoising.frame import Frame
from weft.recipes.pretraining.datasets.denoising.pieces import Denoiser, Piece, TextPair
from weft.recipes.pretraining.datasets.packed import DocumentSpan, TrainingRows, ValidationRows

Row = dict[str, np.ndarray]

FILLED = 0.95  # share of the places of each side of a batch that hold tokens, at least
POSITIONS = ("position_ids", "decoder_position_ids")  # of the sources and of the targets; each text's begin with 0
OF_SOURCES = ("input_ids", "position_ids", "attention_mask")


@dataclass(frozen=True)
class PieceReader:
    """Takes the text out of documents of a corpus, and gives each document its key.

    Attributes:
        seed: of the random numbers.
        with_sentences: tell where sentences begin, which the corpus has to know.
    """

    corpus: Corpus
    seed: int
    with_sentences: bool = False

    def __call__(self, span: DocumentSpan) -> Piece | None:
        """The text of a document span; None where it holds none.

        A document's first place is no text: a start token, or of a tail the token before it.
        """
        begin, stop = self.text_of(span.document)
        first = max(span.first - 1, 0)
        tokens = span.tokens[1 if span.first == 0 else 0 :][: stop - begin - first].astype(np.int64)
        if not len(tokens):
            return None
        sentences = None
        if self.with_sentences:
            sentences = self.corpus.begins("sentences", begin + first, begin + first + len(tokens))
        key = make_key(self.seed, span.pass_number, span.document)
        return Piece(tokens, first, stop - begin, key, sentences)

    def text_of(self, document: int) -> tuple[int, int]:
        """Where the text of a document begins in the corpus' tokens, and where it ends."""
        begin, stop = int(self.corpus.offsets[document]) + 1, int(self.corpus.offsets[document + 1])
        has_end = stop > begin and self.corpus.tokens[stop - 1] == self.corpus.description["end_token_id"]
        return begin, stop - bool(has_end)  # of a document whose tail is apart the end token is there


class DenoisingRows:
    """Rows of text made into rows of pairs. A row is a dict of arrays:

    input_ids, position_ids           [tokens of all sources]
    labels, decoder_position_ids      [tokens of all targets]
    modes                             [tokens of all targets], the mode of each one's pair

    A piece of which nothing is predicted is left out. Rows beyond the last are empty.
    """

    def __init__(
        self, rows: TrainingRows | ValidationRows, read: PieceReader, denoiser: Denoiser, frame: Frame
    ) -> None:
        """Args:
        rows: of tokens (overlap 0).
        """
        self.rows, self.read, self.denoiser, self.frame = rows, read, denoiser, frame

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        pieces = [piece for span in self.rows.spans(index) if (piece := self.read(span)) is not None]
        pairs = [pair for piece in pieces if len((pair := self.denoiser(piece)).target)]
        framed = [self.frame.put_around(pair) for pair in pairs]
        return pack_pairs(framed, modes=[np.full(len(target), pair.mode) for (_, target), pair in zip(framed, pairs)])


class ContinuationRows:
    """The held-out text in windows, each of them written given the one before it: every token of the text is a target
    once, and each document's end token.

    A row is a dict as in `DenoisingRows`, with `is_text` [tokens of all targets], which marks the tokens of the text.

    Attributes:
        byte_count: UTF-8 bytes of the text.
    """

    def __init__(self, read: PieceReader, window: int, frame: Frame, mode_tokens: Sequence[int] = ()) -> None:
        """Args:
            window: tokens of a window, and the most of the one before it.
            mode_tokens: what each source begins with.

        Raises:
            RecipeError: there is no text.
        """
        corpus = read.corpus
        self.tokens, self.frame, self.mode_tokens = corpus.tokens, frame, np.array(mode_tokens, dtype=np.int64)
        documents = corpus.documents("validation")
        self.byte_count = int(corpus.byte_counts[documents].sum())
        self.windows = [
            Window(max(begin, start - window), start, min(start + window, stop), start + window >= stop)
            for begin, stop in map(read.text_of, documents.tolist())
            for start in range(begin, stop, window)
        ]
        if not self.windows:
            raise RecipeError(f"the held-out text of {corpus.folder} has no token to predict: hold more text out.")
        sizes = np.array([(each.start - each.before, each.end - each.start) for each in self.windows])
        sizes += frame.longest + len(self.mode_tokens)  # what stands around them, at most
        self._rows = fill_rows(sizes, (2 * window + frame.longest + len(self.mode_tokens),) * 2)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        windows = [self.windows[number] for number in self._rows[index]] if index < len(self._rows) else []
        sides = [self._sides(window) for window in windows]
        return pack_pairs([each[:2] for each in sides], is_text=[each[2] for each in sides])

    def _sides(self, window: "Window") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Source and target of a window, and which tokens of the target are text."""
        before, text = self.tokens[window.before : window.start], self.tokens[window.start : window.end]
        source, target = self.frame.put_around(TextPair(np.append(self.mode_tokens, before), text))
        is_text = np.zeros(len(target), dtype=np.int64)
        is_text[len(self.frame.before_target) :][: len(text)] = 1
        last = len(target) if window.is_last else len(target) - len(self.frame.after_target)
        return source, target[:last], is_text[:last]


class Window(NamedTuple):
    """A stretch [start, end) of a corpus' tokens, what stands before it [before, start), and whether its text ends."""

    before: int
    start: int
    end: int
    is_last: bool


def pack_pairs(pairs: Sequence[tuple[np.ndarray, np.ndarray]], **of_targets: Sequence[np.ndarray]) -> Row:
    """One row of pairs of a source and a target, and whatever else there is of each token of the targets."""
    sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
    return {
        "input_ids": _joined(sources),
        "position_ids": _joined([np.arange(len(source)) for source in sources]),
        "labels": _joined(targets),
        "decoder_position_ids": _joined([np.arange(len(target)) for target in targets]),
        **{name: _joined(arrays) for name, arrays in of_targets.items()},
    }


def collate_pairs(rows: Sequence[Row]) -> Batch:
    """Put the pairs of rows into rows of equal length that are filled to `FILLED` on both sides, whatever their number.

    Which pairs share a row follows from their lengths alone. attention_mask and decoder_attention_mask are added; the
    model makes the decoder's inputs of labels and decoder_position_ids. Without any pair there is a row of padding.
    """
    import torch

    joined = {name: _joined([row[name] for row in rows]) for name in rows[0]}
    begins = [np.flatnonzero(joined[name] == 0) for name in POSITIONS]
    sizes = np.stack([np.diff(each, append=len(joined[name])) for name, each in zip(POSITIONS, begins)], axis=1)
    masks = {"attention_mask": POSITIONS[0], "decoder_attention_mask": POSITIONS[1]}
    joined |= {name: np.ones_like(joined[side]) for name, side in masks.items()}
    packed, batch = fill_rows_to(sizes, FILLED), {}
    for name, values in joined.items():
        parts = np.split(values, begins[name not in OF_SOURCES][1:])
        arrays = [_joined([parts[pair] for pair in pairs]) for pairs in packed]
        longest = max(1, *map(len, arrays))
        fill = weft.IGNORE_INDEX if name == "labels" else 0
        batch[name] = torch.from_numpy(
            np.stack([np.pad(each, (0, longest - len(each)), constant_values=fill) for each in arrays])
        )
    return batch


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays]).astype(np.int64)
