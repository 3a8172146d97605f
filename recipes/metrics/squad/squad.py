"""Exact match and F1 of answers to questions that all have one (SQuAD 1.1, CMRC 2018)."""

from typing import Any

import datasets
import evaluate

from .answers import language_of, pair, score

_DESCRIPTION = """
How well predicted answers match the best of several gold answers: exactly, and by F1. English, as SQuAD 1.1's official
script: case, punctuation, articles and white space do not matter, and F1 counts the words that both answers hold.
Chinese, as CMRC 2018's official script: case and punctuation do not matter, and F1 counts the longest run of characters
(and words of other scripts) that both answers hold. Other scripts without blanks between words ("unspaced": Thai, Lao,
Khmer, Burmese, Tibetan, Japanese) have no official script, and are compared in the same way; blanks do not matter.
"""
_CITATION = "https://huggingface.co/papers/1606.05250 and https://huggingface.co/papers/1810.07366"
_INPUTS = """
Args:
    predictions (list of dict): `id` of the question and `prediction_text`.
    references (list of dict): `id` of the question and `answers`: `text`, the gold answers (one or more), and
        `answer_start`, which is not looked at.
    language (str): "en", "zh" or "unspaced". CMRC 2018's script cuts text between Chinese characters by a tokenizer
        that has to be downloaded; here it is cut by the same rules without its model of sentences.

Returns:
    exact_match, f1 (float): means over questions, in percent.
    undefined (list of str): only without questions; the scores are then 0.0.

Raises:
    ValueError: questions without a prediction or without a gold answer, ids given twice, an unknown language.
"""


class Squad(evaluate.Metric):
    """Equal to the official scripts."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        answers = {"text": datasets.List(text), "answer_start": datasets.List(datasets.Value("int32"))}
        features = datasets.Features(
            {"predictions": {"id": text, "prediction_text": text}, "references": {"id": text, "answers": answers}}
        )
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(
        self, predictions: list[dict[str, Any]], references: list[dict[str, Any]], language: str = "en"
    ) -> dict[str, float | list[str]]:
        rules, pairs = language_of(language), pair(predictions, references)
        if not pairs:
            return {"exact_match": 0.0, "f1": 0.0, "undefined": ["exact_match and f1: no questions were given"]}
        unanswerable = [reference["id"] for _, reference in pairs if not reference["answers"]["text"]]
        if unanswerable:
            raise ValueError(f"question {unanswerable[0]!r} has no gold answer: squad_v2 scores such questions.")
        scores = [score(rules, guess["prediction_text"], reference["answers"]["text"]) for guess, reference in pairs]
        exact, f1 = (100 * sum(values) / len(pairs) for values in zip(*scores))
        return {"exact_match": exact, "f1": f1}
