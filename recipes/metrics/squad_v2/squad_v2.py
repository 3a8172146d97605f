"""Exact match and F1 of answers to questions of which some have none (SQuAD 2.0)."""

from typing import Any, NamedTuple

import datasets
import evaluate

from .answers import language_of, pair, score_or_none, sums_by_threshold

_DESCRIPTION = """
How well predicted answers match the best of several gold answers, or the absence of any, as SQuAD 2.0's official script
has it: exactly, and by F1; of all questions, of those with an answer and of those without; and the best that could be
had by giving no answer wherever its probability is above a threshold. Chinese answers are compared as CMRC 2018's
official script does, and so are those in other scripts without blanks between words ("unspaced").
"""
_CITATION = "https://huggingface.co/papers/1806.03822 and https://huggingface.co/papers/1810.07366"
_INPUTS = """
Args:
    predictions (list of dict): `id` of the question, `prediction_text` (empty for no answer) and
        `no_answer_probability` (or any number that grows with it), None for all if there is none.
    references (list of dict): `id` of the question and `answers`: `text`, the gold answers (empty if the question has
        none), and `answer_start`, which is not looked at.
    no_answer_threshold (float): a question whose no_answer_probability is larger counts as answered by nothing.
    language (str): "en", "zh" or "unspaced". CMRC 2018's script cuts text between Chinese characters by a tokenizer
        that has to be downloaded; here it is cut by the same rules without its model of sentences.

Returns:
    exact, f1 (float), total (int): means over questions, in percent, and the number of questions.
    HasAns_exact, HasAns_f1, HasAns_total, NoAns_exact, NoAns_f1, NoAns_total: the same of questions with and without an
        answer; each only if there are such questions.
    best_exact, best_exact_thresh, best_f1, best_f1_thresh (float): the best scores, and the thresholds they are reached
        at if answers whose probability equals it are given; only with probabilities. As in the official script,
        questions of equal probability are taken one by one, in the order of the predictions.
    undefined (list of str): only without questions; the scores are then 0.0.

Raises:
    ValueError: questions without a prediction, ids given twice, probabilities for a part of the questions only, an
        unknown language.
"""


class SquadV2(evaluate.Metric):
    """Equal to the official script."""

    def _info(self) -> evaluate.MetricInfo:
        text, number = datasets.Value("string"), datasets.Value("float64")
        answers = {"text": datasets.List(text), "answer_start": datasets.List(datasets.Value("int32"))}
        features = datasets.Features(
            {
                "predictions": {"id": text, "prediction_text": text, "no_answer_probability": number},
                "references": {"id": text, "answers": answers},
            }
        )
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(
        self,
        predictions: list[dict[str, Any]],
        references: list[dict[str, Any]],
        no_answer_threshold: float = 1.0,
        language: str = "en",
    ) -> dict[str, Any]:
        rules, questions = language_of(language), []
        for guess, reference in pair(predictions, references):
            text, answers = guess["prediction_text"], reference["answers"]["text"]
            exact, f1 = score_or_none(rules, text, answers)
            questions.append(
                _Question(guess["id"], bool(answers), bool(text), guess["no_answer_probability"], exact, f1)
            )
        given = [question.no_answer is not None for question in questions]
        if any(given) and not all(given):
            raise ValueError("some predictions have a no_answer_probability and some have none: give all or none.")
        if not questions:
            return {"exact": 0.0, "f1": 0.0, "total": 0, "undefined": ["exact and f1: no questions were given"]}
        result = {}
        for prefix, group in (
            ("", questions),
            ("HasAns_", [question for question in questions if question.has_answer]),
            ("NoAns_", [question for question in questions if not question.has_answer]),
        ):
            if group:
                for key in ("exact", "f1"):
                    scores = [question.score(key, no_answer_threshold) for question in group]
                    result[prefix + key] = 100 * sum(scores) / len(group)
                result[f"{prefix}total"] = len(group)
        if all(given):
            place = {prediction["id"]: i for i, prediction in enumerate(predictions)}
            _, has_answer, is_answered, no_answer, *scores = zip(*sorted(questions, key=lambda q: place[q.id]))
            for key, values in zip(("exact", "f1"), scores):
                thresholds, sums = sums_by_threshold(no_answer, has_answer, is_answered, values)
                best = sums.argmax()
                result[f"best_{key}"] = float(100 * sums[best] / len(questions))
                result[f"best_{key}_thresh"] = float(thresholds[best])
        return result


class _Question(NamedTuple):
    """A question with the scores, between 0 and 1, of the answer that was given."""

    id: str
    has_answer: bool
    is_answered: bool
    no_answer: float | None
    exact: float
    f1: float

    def score(self, key: str, threshold: float) -> float:
        """One of the scores, that of an empty answer where the probability of "no answer" is above the threshold."""
        if self.no_answer is not None and self.no_answer > threshold:
            return float(not self.has_answer)
        return getattr(self, key)
