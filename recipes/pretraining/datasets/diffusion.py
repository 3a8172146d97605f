"""Rows in which each document is masked at a rate of its own, for masked diffusion.

A document of a packed row is a text by itself, so it has a rate by itself: the loss is then the bound of each text
(`recipes/common/masked_diffusion.py`), and a batch has more rates than rows. Rates are spread evenly: the documents of
a row stand at equal distances on the circle [0, 1), and each row of a run is turned against the one before it by the
golden ratio, so that the rows of any batch, micro-batch or process are spread nearly as well as they could be ("low
discrepancy"). The rates follow from (seed, row of the run) alone, and which tokens are masked from (seed, pass over the
source, document, position): a token that is masked at a low rate is masked at a higher one too.

A model may predict each masked token from its own place, or from the place before it, as a causal one predicts the next
token (`masked_next_token`). Then the first token of a document, before which there is no place, is shown and never
masked, and the bound is that of the tokens behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import weft
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.masked_diffusion import masked_counts, stratified
from weft.recipes.common.options import Options, option
from weft.recipes.pretraining.datasets.collators import Batch, MaskedCollator, stack
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.masked import pad_row
from weft.recipes.pretraining.datasets.masking import Vocabulary
from weft.recipes.pretraining.datasets.packed import DocumentSpan, TrainingRows, ValidationRows, positions_of

Row = dict[str, np.ndarray]
MASK, RATE = range(2)  # streams of random numbers
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass
class DiffusionArguments(Options):
    """At how many rates held-out text is masked."""

    validation_rates: int = option(
        4, "diffusion: rates at which each held-out document is masked, an even number", least=2
    )

    def check(self) -> None:
        """Raises RecipeError for an odd number."""
        super().check()
        if self.validation_rates % 2:
            raise RecipeError(
                f"validation_rates is {self.validation_rates}: give an even number, for pairs of rates tell how sure "
                "the bound is."
            )


class DocumentMasker:
    """Masks documents, each at its own rate; what is no text (start and end tokens, say) is never masked."""

    def __init__(self, vocabulary: Vocabulary, seed: int, from_before: bool = False) -> None:
        """Args:
        from_before: a masked token is predicted from the place before it, and a span's first token is never masked.
        """
        self.vocabulary, self.seed, self.from_before = vocabulary, seed, from_before

    def __call__(self, spans: Sequence[DocumentSpan], points: np.ndarray, noise: int = 0) -> Row:
        """Mask the document spans of a row.

        Args:
            points: [spans] in [0, 1), from which the rates follow (`masked_counts`).
            noise: other numbers mask other tokens.

        Returns:
            Arrays [tokens of all spans]: input_ids with masks, position_ids, targets (what is predicted from each
            place, -100 where nothing is), weights (what each target counts, float32), owners (the number of each
            token's span) and is_text (bool, what may be masked).
        """
        nothing = np.empty(0, dtype=np.int64)
        lengths = np.array([len(span.tokens) for span in spans], dtype=np.int64)
        tokens = np.concatenate([nothing, *(span.tokens for span in spans)]).astype(np.int64)
        positions = np.concatenate([nothing, *(span.first + np.arange(len(span.tokens)) for span in spans)])
        keys = [make_key(self.seed, noise, span.pass_number, span.document) for span in spans]
        owners = np.repeat(np.arange(len(spans)), lengths)
        is_text = ~np.isin(tokens, self.vocabulary.special)
        if self.from_before:
            is_text[np.cumsum(lengths) - lengths] = False
        sizes = np.bincount(owners[is_text], minlength=len(spans))
        counts = masked_counts(points, sizes)
        drawn = uniform(np.array(keys, dtype=np.uint64)[owners], positions, MASK)
        order = np.lexsort((np.where(is_text, drawn, 1.0), owners))  # in each span text first, in random order
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order)) - (np.cumsum(lengths) - lengths)[owners]
        is_masked = ranks < counts[owners]
        weights = np.where(is_masked, sizes[owners] / counts[owners].clip(min=1), 0)
        targets = np.where(is_masked, tokens, weft.IGNORE_INDEX)
        if self.from_before:  # no first token is a target, so that none comes to another span
            targets, weights = np.roll(targets, -1), np.roll(weights, -1)
        return {
            "input_ids": np.where(is_masked, self.vocabulary.mask, tokens),
            "position_ids": positions_of(list(spans), overlap=0) if spans else nothing,
            "targets": targets,
            "weights": weights.astype(np.float32),
            "owners": owners,
            "is_text": is_text,
        }


class DiffusionRows:
    """The rows of a run; a row is what `DocumentMasker` returns, [row_length] each."""

    def __init__(self, rows: TrainingRows, masker: DocumentMasker) -> None:
        """Args:
        rows: of tokens (overlap 0), or of pairs (overlap 1), whose spans have one token more than places: what of
            them is more than a row has places for is left out at the row's end.
        """
        self.rows, self.masker = rows, masker
        self.start = float(uniform(make_key(masker.seed), 0, RATE))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.masked(index, int(index))

    def masked(self, index: int, turn: int) -> Row:
        """Row `index` of the run, at the rates that the row number `turn` has where all rows are such."""
        spans = first_tokens(self.rows.spans(index), self.rows.row_length)
        return self.masker(spans, self.points(turn, len(spans)))

    def points(self, turn: int, number: int) -> np.ndarray:
        """Where the `number` documents of the row number `turn` stand in [0, 1)."""
        return (self.start + turn * GOLDEN_RATIO + np.arange(number) / number) % 1


def first_tokens(spans: Sequence[DocumentSpan], number: int) -> list[DocumentSpan]:
    """The first so many tokens of spans, as spans."""
    kept = []
    for span in spans:
        tokens = span.tokens[:number]
        number -= len(tokens)
        if len(tokens):
            kept.append(replace(span, tokens=tokens, is_end=span.is_end and len(tokens) == len(span.tokens)))
    return kept


class DiffusionValidationRows:
    """The held-out text, each document masked at several rates, with the same masks in every run.

    The rates of a document lie in equal parts of [0, 1), one in each. A row is a dict of arrays: input_ids, targets and
    weights [rates, width], position_ids, owners and is_text [width], as `DocumentMasker` has them. `width` is the
    row_length, or of rows of pairs as many places as all tokens of any row's spans need. Rows that are shorter, and any
    beyond the last, are filled up with padding.
    """

    def __init__(self, rows: ValidationRows, masker: DocumentMasker, rates: int) -> None:
        self.rows, self.masker, self.rates = rows, masker, rates
        most = max(len(rows.spans(index)) for index in range(len(rows))) if rows.overlap else 0
        self.width = rows.row_length + most

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        spans = self.rows.spans(index)
        masked = [self.masker(spans, points, noise) for noise, points in enumerate(self.points(spans))]
        padded = [pad_row(row, self.width) for row in masked]
        stacked = {name: np.stack([row[name] for row in padded]) for name in ("input_ids", "targets", "weights")}
        return {**padded[0], **stacked}

    def points(self, spans: Sequence[DocumentSpan]) -> np.ndarray:
        """Where each rate of each span stands, [rates, spans]."""
        keys = [make_key(self.masker.seed, span.document, span.first) for span in spans]
        drawn = [uniform(key, np.arange(self.rates), RATE) for key in keys]
        return stratified(np.array(drawn).reshape(-1, self.rates).T)


class DiffusionCollator(MaskedCollator):
    """Collates rows of `DiffusionRows`: the batch also holds `loss_weights` [n]."""

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Batch:
        import torch  # which the command line, that knows these fields, does not wait for

        batch = super().__call__(rows)
        weights = torch.from_numpy(np.stack([row["weights"] for row in rows]))
        return {**batch, "loss_weights": weights.flatten()[batch["predict_from"]]}


def collate_rates(rows: Sequence[dict[str, Any]]) -> Batch:
    """Stack rows of `DiffusionValidationRows`: [rows, rates, width] and [rows, width]."""
    batch = stack(rows, ("input_ids", "targets", "weights", "position_ids", "owners", "is_text"))
    return {**batch, "weights": batch["weights"].float()}
