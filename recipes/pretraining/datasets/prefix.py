"""Prefix language modelling on one stack (https://huggingface.co/papers/1910.10683): the tokens of a prefix see each
other in both directions, and what stands behind it is predicted from left to right.

A document, or the part of one that a row holds, is a text by itself. Its prefix ends at any place that leaves something
to predict, each with the same probability. Whether it has one, and where it ends, follows from (seed, pass, document,
place in it).
"""

from dataclasses import dataclass

import numpy as np

import weft
from weft.recipes.common.options import Options, option
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.packed import DocumentSpan, Row, TrainingRows

CHOICE, CUT = range(4, 6)  # streams of random numbers, beside those of `fill_in_the_middle.py`


@dataclass
class PrefixArguments(Options):
    """Which documents have a prefix."""

    prefix_share: float | None = option(
        None,
        "share of the documents of which a first part is seen in both directions, and only the rest predicted, e.g. "
        "0.5; without it none",
        least=0,
        most=1,
    )


class PrefixRows:
    """Rows of pairs with prefixes; each is a dict of arrays [row_length]:

    input_ids, position_ids   those of `TrainingRows`
    labels                    -100 within prefixes too
    prefix_mask               bool, the tokens of prefixes, which see those of their own document
    """

    def __init__(self, rows: TrainingRows, prefix_share: float) -> None:
        self.rows, self.prefix_share = rows, prefix_share

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        spans = self.rows.spans(index)
        row = self.rows.row_of(spans)
        sizes = np.array([len(span.tokens) - 1 for span in spans])
        prefixes = np.array([self.prefix_of(span) for span in spans])
        behind = row["position_ids"] + 1 - np.repeat(prefixes, sizes)
        labels = np.where(behind < 0, weft.IGNORE_INDEX, row["labels"])  # the last token of a prefix predicts
        return {**row, "labels": labels, "prefix_mask": behind <= 0}

    def prefix_of(self, span: DocumentSpan) -> int:
        """How many tokens of a document span are its prefix; 0: it has none."""
        key = make_key(self.rows.seed, span.pass_number, span.document)
        if uniform(key, span.first, CHOICE) >= self.prefix_share:
            return 0
        return 1 + int(uniform(key, span.first, CUT) * (len(span.tokens) - 1))
