"""Bits per byte of held-out documents, alike for all sides.

Each text is scored token by token after the start token that its side puts before documents: `likelihood.Scorer` in
windows of the length of training, half of which is scored at a time. The end of a document is not scored. As a module
(`python -m weft.recipes.benchmarks.road.scoring`), it scores the weights of one side in a process of their own.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weft.recipes.benchmarks.road.foreign import ForeignTokenizer
from weft.recipes.benchmarks.road.side import LENGTH
from weft.recipes.benchmarks.road.sides import ALL
from weft.recipes.benchmarks.road.text import read_documents
from weft.recipes.common.files import write_json
from weft.recipes.evaluation.likelihood import ScoredText, Scorer, TokenSpan

SCORE = "score.json"


@dataclass(frozen=True)
class Score:
    """What a model says of texts: nats of all their tokens, and how many tokens and bytes these are."""

    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


class RoadScorer(Scorer):
    """A scorer that knows the tokenizers of others too."""

    def encode(self, texts: Sequence[str]) -> list[ScoredText]:
        """Tokenise as the side's training did."""
        if not isinstance(self.tokenizer, ForeignTokenizer):
            return super().encode(texts)
        before, after = self._special_tokens()
        nowhere = np.empty((0, 2), dtype=np.int32)
        rows = self.tokenizer.encode(list(texts))
        return [
            ScoredText(text, np.array(ids, dtype=np.int32), nowhere, before, after) for text, ids in zip(texts, rows)
        ]


def score_texts(model: Any, tokenizer: Any, texts: Sequence[str], length: int = LENGTH) -> Score:
    """Score every token of each text, in windows of so many tokens."""
    scorer = RoadScorer(model, tokenizer, "causal", window=length, quiet=True)
    encoded = scorer.encode(texts)
    scores = scorer.score([TokenSpan(text, 0, len(text.ids)) for text in encoded])
    size = sum(len(text.encode()) for text in texts)
    return Score(-sum(score.total for score in scores), sum(len(text.ids) for text in encoded), size)


def main(name: str, work: str, held_out: str, peers: str | None) -> None:
    """Write the score of a side's weights into its folder."""
    model, tokenizer = ALL[name].load(Path(work), None if peers is None else Path(peers))
    with torch.no_grad():
        score = score_texts(model, tokenizer, read_documents(Path(held_out)))
    write_json(Path(work) / SCORE, asdict(score))


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
