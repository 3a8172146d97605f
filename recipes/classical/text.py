"""The documents of a prepared corpus for models of tokens: block by block, and the held-out ones scored."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.recipes.classical.ngrams import Block
from weft.recipes.classical.token_model import TokenModel
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus

BLOCK_TOKENS = 1 << 17  # with the states of a hidden Markov model for each some hundred MB


@dataclass(frozen=True)
class Documents:
    """The documents of a split, read in blocks of about so many tokens, whole documents each."""

    corpus: Corpus
    split: str
    block_tokens: int = BLOCK_TOKENS

    @property
    def tokens(self) -> int:
        return int(np.diff(self.corpus.offsets)[self.corpus.documents(self.split)].sum())

    def __call__(self) -> Iterator[Block]:
        """Yield blocks, in the order of the documents."""
        corpus, documents = self.corpus, self.corpus.documents(self.split)
        lengths = np.diff(corpus.offsets)[documents]
        numbers = np.cumsum(lengths) // self.block_tokens
        for some in np.split(documents, np.flatnonzero(np.diff(numbers)) + 1):
            spans = zip(corpus.offsets[some].tolist(), corpus.offsets[some + 1].tolist())
            tokens = np.concatenate([corpus.tokens[first:last] for first, last in spans]).astype(np.int64)
            begins = np.concatenate(([0], np.cumsum(np.diff(corpus.offsets)[some])))
            yield tokens, begins


def score_held_out(model: TokenModel, corpus: Corpus) -> dict[str, Any]:
    """Score the held-out documents of a corpus, as pretraining's validation does.

    Returns:
        loss (nats per target, end tokens included), perplexity (its exponential), and bits_per_byte (of the text's own
        tokens, over the UTF-8 bytes of the documents with a target).

    Raises:
        RecipeError: they have no token to predict.
    """
    nats = text_nats = targets = 0
    for tokens, begins in Documents(corpus, "validation")():
        found, is_target = -model.log_probs(tokens, begins), np.ones(len(tokens), dtype=bool)
        is_target[begins[:-1][np.diff(begins) > 0]] = False
        nats, targets = nats + math.fsum(found), targets + int(is_target.sum())
        if corpus.has_end_tokens:
            found[(begins[1:] - 1)[is_target[begins[1:] - 1]]] = 0.0
        text_nats += math.fsum(found)
    documents = corpus.documents("validation")
    byte_count = int(corpus.byte_counts[documents[np.diff(corpus.offsets)[documents] > 1]].sum())
    if not targets:
        raise RecipeError(f"the held-out text of {corpus.folder} has no token to predict: hold more text out.")
    loss = nats / targets
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_byte": text_nats / math.log(2) / byte_count,
    }
