"""Scores of answers to questions, by the rules of the official evaluation scripts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.recipes.finetuning.tasks.question_answering.reading import Question
from weft.recipes.finetuning.tasks.question_answering.spans import AnswerSpan, no_answer_probability, probabilities
from weft.recipes.metrics import load_metric
from weft.recipes.metrics.answers import language_of, score, score_or_none, sums_by_threshold

HALF = 0.5


@dataclass(frozen=True)
class Answered:
    """A question with the best spans of its context, the best first."""

    question: Question
    spans: list[AnswerSpan]

    @property
    def no_answer(self) -> float:
        """Probability of "no answer" against the best span."""
        return no_answer_probability(self.spans)

    @property
    def best(self) -> str:
        """The best span's text, whatever the probability of "no answer"."""
        return self.spans[0].text if self.spans else ""

    def text(self, threshold: float | None) -> str:
        """The answer: empty where "no answer" is more probable than the threshold; None: always a span."""
        return "" if threshold is not None and self.no_answer > threshold else self.best

    def confidence(self, threshold: float | None) -> float:
        """Probability of what is answered; that of a span among the best ones (None: without "no answer")."""
        if threshold is not None and self.text(threshold) == "":
            return self.no_answer
        among = probabilities(self.spans, with_none=threshold is not None)
        return among[0] if self.spans else 0.0


def score_all(
    answered: Sequence[Answered], language: str, version_2: bool, threshold: float | None, tune: bool
) -> tuple[dict[str, float], float | None]:
    """Exact match and F1 in percent, by the official definitions.

    Args:
        threshold: of the probability of "no answer"; None: 0.5.
        tune: choose it anew, so that F1 is best on these questions.

    Returns:
        exact_match and f1 of all questions and, for version 2, of those with (has_answer_) and without an answer
        (no_answer_); and the threshold.
    """
    references = [_reference(one) for one in answered]
    if not version_2:
        guesses = [{"id": one.question.id, "prediction_text": one.best} for one in answered]
        scores = load_metric("squad").compute(predictions=guesses, references=references, language=language)
        return {name: scores[name] for name in ("exact_match", "f1")}, threshold
    guesses = [_guess_2(one) for one in answered]

    def compute(at: float) -> dict[str, Any]:
        return load_metric("squad_v2").compute(
            predictions=guesses, references=references, no_answer_threshold=at, language=language
        )

    chosen = HALF if threshold is None else threshold
    scores = compute(chosen)
    if tune and scores["best_f1_thresh"] != chosen:
        chosen = scores["best_f1_thresh"]
        scores = compute(chosen)
    found = {"exact_match": scores["exact"], "f1": scores["f1"]}
    for prefix, name in (("HasAns_", "has_answer_"), ("NoAns_", "no_answer_")):
        if f"{prefix}f1" in scores:
            found |= {f"{name}exact_match": scores[f"{prefix}exact"], f"{name}f1": scores[f"{prefix}f1"]}
    return found, chosen


def score_each(answered: Sequence[Answered], language: str, threshold: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of each question, between 0 and 1: [questions] each.

    Args:
        threshold: of the probability of "no answer"; None: version 1, where a span is always the answer.
    """
    rules = language_of(language)
    score_one = score if threshold is None else score_or_none
    golds = [[answer.text for answer in one.question.answers] for one in answered]
    scores = [score_one(rules, one.text(threshold), texts) for one, texts in zip(answered, golds)]
    exact, f1 = np.array(scores, dtype=np.float64).reshape(-1, 2).T
    return exact, f1


def threshold_used(version_2: bool, threshold: float | None) -> float | None:
    """The probability of "no answer" above which none is given; None: a span always is."""
    if not version_2:
        return None
    return HALF if threshold is None else threshold


def log_odds_at(threshold: float | None) -> str:
    """As Python: the log-odds of a span below which "no answer" is more probable than the threshold."""
    at = HALF if threshold is None else threshold
    if not 0 < at < 1:
        return f'float("{"inf" if at <= 0 else "-inf"}")'
    return f"{math.log1p(-at) - math.log(at):.6g}"


def threshold_curve(answered: Sequence[Answered], language: str) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, rising, and the F1 in percent of all questions at each."""
    _, f1 = score_each(answered, language, math.inf)
    thresholds, sums = sums_by_threshold(
        [one.no_answer for one in answered],
        [bool(one.question.answers) for one in answered],
        [bool(one.best) for one in answered],
        f1,
    )
    return thresholds, sums / len(answered) * 100


def _reference(one: Answered) -> dict[str, Any]:
    texts = [answer.text for answer in one.question.answers]
    return {"id": one.question.id, "answers": {"text": texts, "answer_start": [0] * len(texts)}}


def _guess_2(one: Answered) -> dict[str, Any]:
    return {"id": one.question.id, "prediction_text": one.best, "no_answer_probability": one.no_answer}
