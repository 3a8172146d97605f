"""A baseline beside the model: n-grams or a hidden Markov model of recipes/baselines.py, or another causal model."""

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedTokenizerFast

from weft.recipes.classical.folders import holds_token_model, load_token_model
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.text_source import TextSource
from weft.recipes.evaluation.arguments import EvaluateArguments
from weft.recipes.evaluation.likelihood import ScoredText, Scorer, TokenScores, TokenSpan
from weft.recipes.evaluation.likelihood_tasks import perplexity
from weft.recipes.evaluation.model_loading import load_model
from weft.tokenizer.encode_as_text import encode_as_text

FIGURE, DIFFERENCE = SHOWN = "bits_per_byte", "model_minus_baseline"


class TextScorer(Protocol):
    """What the perplexity of texts is measured with."""

    tokenizer: PreTrainedTokenizerFast

    def encode(self, texts: Sequence[str]) -> list[ScoredText]:
        """Tokenise as training did."""

    def score(self, spans: Sequence[TokenSpan]) -> list[TokenScores]:
        """Score spans."""


class TokenModelScorer:
    """Scores whole texts by a model of tokens that is no network."""

    def __init__(self, folder: str) -> None:
        self.model, self.tokenizer = load_token_model(folder)
        start = self.tokenizer.bos_token_id
        self.before = np.array([] if start is None else [start], dtype=np.int32)

    def encode(self, texts: Sequence[str]) -> list[ScoredText]:
        """Tokenise as training did."""
        found = []
        for text, encoding in zip(texts, encode_as_text(self.tokenizer, texts)):
            ids, offsets = np.array(encoding.ids, dtype=np.int32), np.array(encoding.offsets, dtype=np.int32)
            found.append(ScoredText(text, ids, offsets.reshape(-1, 2), self.before, self.before[:0]))
        return found

    def score(self, spans: Sequence[TokenSpan]) -> list[TokenScores]:
        """Score spans; which token is the most likely one is not asked."""
        rows = [np.concatenate([span.text.before, span.text.ids]).astype(np.int64) for span in spans]
        begins = np.concatenate(([0], np.cumsum([len(row) for row in rows], dtype=np.int64)))
        log_probs = self.model.log_probs(np.concatenate(rows), begins)
        found = []
        for first, span in zip(begins.tolist(), spans):
            shift = len(span.text.before)
            here = slice(first + max(1, span.first + shift), first + span.last + shift)
            found.append(TokenScores(log_probs[here], np.zeros(0, dtype=bool)))
        return found


class Baseline:
    """A model that others are compared with on texts.

    Attributes:
        title: what it is.
    """

    def __init__(self, title: str, scorer: TextScorer, limit: int | None) -> None:
        self.title, self.scorer, self.limit = title, scorer, limit

    def compare(self, of_model: dict[str, Any], source: TextSource) -> dict[str, Any]:
        """Score a source as `of_model` says that the model was; the results, and how many bits per byte the model needs
        more."""
        found = perplexity(self.scorer, itertools.islice(source.read(), self.limit))
        ours = of_model[FIGURE]
        return {**found, DIFFERENCE: None if ours is None else ours - found[FIGURE]}


def load_baseline(arguments: EvaluateArguments, scorer: Scorer) -> Baseline:
    """Load the baseline of a model; raises RecipeError where it cannot be loaded, or not be compared with."""
    if not scorer.is_causal:
        raise RecipeError(
            f"baseline is scored causally, and {arguments.model} is scored {scorer.name}: give --scoring causal, or "
            "leave baseline out."
        )
    name = arguments.baseline
    if holds_token_model(name):
        own = TokenModelScorer(name)
        return Baseline(own.model.title, own, arguments.limit)
    model, tokenizer, _ = load_model(name, "causal", arguments.device, arguments.dtype, arguments.trust_remote_code)
    fields = (arguments.window, arguments.stride, arguments.tokens_per_batch)
    return Baseline(type(model).__name__, Scorer(model, tokenizer, "causal", *fields), arguments.limit)


def refuse_token_model(name: str) -> None:
    """Raise RecipeError where the model that is asked for is one of those that only a baseline can be."""
    if holds_token_model(name):
        raise RecipeError(f"model {name} is no network, and only compared with: give a network, and --baseline {name}.")
