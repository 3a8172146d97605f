"""A bound on the log-probability that a masked language model gives to a text, as masked diffusion has it.

A stretch of n tokens is masked at several rates k/n, k of its tokens at random, and each masked token counts n/k
(`recipes/common/masked_diffusion.py`). The mean over masks of the log-probabilities, so weighted, is at most the
logarithm of the probability with which the model writes the stretch in random order, one token at a time: MDLM
(https://huggingface.co/papers/2406.07524), LLaDA (https://huggingface.co/papers/2502.09992). The number of tokens is
given. The rest of the text is seen; of one that is longer than the window each stretch is given what stands before it.

Masks depend on the stretch alone, not on the texts beside it, so that a score comes again.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from weft.recipes.common.masked_diffusion import bound_variance, masked_counts, stratified
from weft.recipes.evaluation.likelihood import Scorer, ScoringRow, TokenScores, TokenSpan


def make_scorer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, scoring: str, *args: Any, rates: int = 32, **kwargs: Any
) -> Scorer:
    """Make the scorer of a way of scoring.

    Args:
        rates: of diffusion scoring, as in `DiffusionScorer`.
        args, kwargs: of `Scorer`.
    """
    if scoring == "diffusion":
        return DiffusionScorer(model, tokenizer, scoring, *args, rates=rates, **kwargs)
    return Scorer(model, tokenizer, scoring, *args, **kwargs)


class _Stretch(NamedTuple):
    """Tokens that are bounded together: an input, the first and behind the last of them in it, and in the span."""

    ids: np.ndarray
    first: int
    last: int
    place: int


class DiffusionScorer(Scorer):
    """Bounds the log-probability of spans; of the bound, each token has the share that it contributes in the mean."""

    def __init__(self, *args: Any, rates: int = 32, **kwargs: Any) -> None:
        """Args:
        rates: how many times each stretch is masked; an even number.
        args, kwargs: of `Scorer`.
        """
        super().__init__(*args, **kwargs)
        self.rates = rates

    def score(self, spans: Sequence[TokenSpan]) -> list[TokenScores]:
        """Score spans.

        Returns:
            For each the shares of its tokens, whether a token was the most likely one wherever it was masked, and the
            variance that the choice of rates and masks leaves to the sum.

        Raises:
            RecipeError: as `Scorer.score`.
        """
        rows = (row for span in spans for stretch in self._stretches(span) for row, _ in self._noised(stretch))
        found = self.score_rows(rows, self._number_of_scored(spans))
        return [self._score_span(span, found) for span in spans]

    def _score_span(self, span: TokenSpan, found: Iterator[TokenScores]) -> TokenScores:
        size, variance = max(0, span.last - self._first_of(span)), 0.0
        log_probs, is_top = np.zeros(size), np.ones(size, dtype=bool)
        for stretch in self._stretches(span):
            totals = np.zeros(self.rates)
            for number, (row, weight) in enumerate(self._noised(stretch)):
                scores, places = next(found), row.scored - stretch.first + stretch.place
                log_probs[places] += scores.log_probs * weight / self.rates
                is_top[places] &= scores.is_top
                totals[number] = scores.log_probs.sum() * weight
            variance += float(bound_variance(totals))
        return TokenScores(log_probs, is_top, variance)

    def _number_of_scored(self, spans: Sequence[TokenSpan]) -> int:
        """About how many tokens are scored in all rows, for the progress bar."""
        return sum(max(0, span.last - self._first_of(span)) * (self.rates + 1) // 2 for span in spans)

    def _first_of(self, span: TokenSpan) -> int:
        return max(span.first, self._first_predictable(span.text))

    def _stretches(self, span: TokenSpan) -> Iterator[_Stretch]:
        """Yield the stretches of a span: all of it at once where the text fits the window, else one after another."""
        text, shift = span.text, len(span.text.before)
        ids = np.concatenate([text.before, text.ids, text.after])
        begin, end = self._first_of(span) + shift, span.last + shift
        if len(ids) <= self.window:
            if begin < end:
                yield _Stretch(ids, begin, end, 0)
            return
        room, first = self.window - len(text.after), begin
        stride = min(self.stride, room - self.predicts_next)  # so that something stands before each stretch
        while first < end:
            last = min(end, max(first + stride, room))
            stop = len(ids) if last == shift + len(text.ids) else last
            start = max(0, stop - self.window)
            yield _Stretch(ids[start:stop], first - start, last - start, first - begin)
            first = last

    def _noised(self, stretch: _Stretch) -> Iterator[tuple[ScoringRow, float]]:
        """Yield the inputs of a stretch, and what each of their masked tokens counts."""
        size = stretch.last - stretch.first
        draw = np.random.default_rng([zlib.crc32(stretch.ids.tobytes()), stretch.first, size])
        for count in masked_counts(stratified(draw.random(self.rates)), np.full(self.rates, size)).tolist():
            chosen = stretch.first + np.sort(draw.permutation(size)[:count])
            yield ScoringRow(stretch.ids, stretch.first, stretch.last, stretch.last, chosen), size / count
