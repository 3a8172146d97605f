"""Exact match and F1 of answers to questions that all have one (SQuAD 1.1, CMRC 2018)."""

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate

_DESCRIPTION = """
How well predicted answers match the best of several gold answers: exactly, and by F1. English, as SQuAD 1.1's official
script: case, punctuation, articles and white space do not matter, and F1 counts the words that both answers hold.
Chinese, as CMRC 2018's official script: case and punctuation do not matter, and F1 counts the longest run of characters
(and words of other scripts) that both answers hold.
"""
_CITATION = "https://huggingface.co/papers/1606.05250 and https://huggingface.co/papers/1810.07366"
_INPUTS = """
Args:
    predictions (list of dict): `id` of the question and `prediction_text`.
    references (list of dict): `id` of the question and `answers`: `text`, the gold answers (one or more), and
        `answer_start`, which is not looked at.
    language (str): "en" or "zh". CMRC 2018's script cuts text between Chinese characters by a tokenizer that has to be
        downloaded; here it is cut by the same rules without its model of sentences.

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
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": {"id": text, "prediction_text": text},
                    "references": {"id": text, "answers": answers},
                }
            ),
        )

    def _compute(
        self, predictions: list[dict[str, Any]], references: list[dict[str, Any]], language: str = "en"
    ) -> dict[str, float | list[str]]:
        rules = _language_of(language)
        pairs = _pair(predictions, references)
        if not pairs:
            return {"exact_match": 0.0, "f1": 0.0, "undefined": ["exact_match and f1: no questions were given"]}
        exact = f1 = 0.0
        for prediction, reference in pairs:
            guess, answers = prediction["prediction_text"], reference["answers"]["text"]
            if not answers:
                raise ValueError(f"question {reference['id']!r} has no gold answer: squad_v2 scores such questions.")
            exact += any(rules.normalise(guess) == rules.normalise(answer) for answer in answers)
            f1 += max(_f1(rules, answer, guess) for answer in answers)
        return {"exact_match": 100 * exact / len(pairs), "f1": 100 * f1 / len(pairs)}


# From here on squad and squad_v2 are the same: each has to work where only its own file is.


@dataclass(frozen=True)
class _Language:
    """How answers in a language are compared."""

    normalise: Callable[[str], str]  # equal results are an exact match
    split: Callable[[str], list[str]]  # into the units that F1 counts
    count_common: Callable[[list[str], list[str]], int]


_ENGLISH_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CHINESE_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")  # noqa: RUF001
_CHINESE_UNIT = re.compile("([\u4e00-\u9fa5])")
# Where the Penn Treebank's rules, which the official script leaves other scripts to, cut inside a word.
_OTHER_UNIT = re.compile(r"(\.{2,}|[;@#$%&?!()\[\]{}<>\"\u2013\u2014]|,(?!\d)|\.$|n't\b|(?<=\w)'(?:s|m|d|ll|re|ve)?\b)")


def _normalise_english(text: str) -> str:
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_ENGLISH_PUNCTUATION)).split())


def _normalise_chinese(text: str) -> str:
    return text.lower().strip().translate(_CHINESE_PUNCTUATION)


def _split_english(text: str) -> list[str]:
    return _normalise_english(text).split()


def _split_chinese(text: str) -> list[str]:
    """Each Chinese character alone, words of other scripts whole."""
    units = []
    for piece in _CHINESE_UNIT.split(_normalise_chinese(text)):
        units += _OTHER_UNIT.sub(r" \1 ", piece.strip()).split()
    return units


def _common_words(gold: list[str], predicted: list[str]) -> int:
    return (Counter(gold) & Counter(predicted)).total()


def _longest_common_run(gold: list[str], predicted: list[str]) -> int:
    """Length of the longest sequence of neighbouring units that both hold."""
    longest = 0
    before = [0] * (len(predicted) + 1)
    for unit in gold:
        runs = [0] + [before[i] + 1 if unit == other else 0 for i, other in enumerate(predicted)]
        longest = max(longest, *runs)
        before = runs
    return longest


_LANGUAGES = {
    "en": _Language(_normalise_english, _split_english, _common_words),
    "zh": _Language(_normalise_chinese, _split_chinese, _longest_common_run),
}


def _f1(language: _Language, gold: str, predicted: str) -> float:
    units, guessed = language.split(gold), language.split(predicted)
    common = language.count_common(units, guessed)
    return 2 * common / (len(units) + len(guessed)) if common else 0.0


def _pair(predictions: list[dict[str, Any]], references: list[dict[str, Any]]) -> list[tuple[dict, dict]]:
    """Each reference with the prediction of the same id."""
    by_id = {prediction["id"]: prediction for prediction in predictions}
    if len(by_id) < len(predictions) or len({reference["id"] for reference in references}) < len(references):
        raise ValueError("two predictions or two references have the same id: give one for each question.")
    missing = [reference["id"] for reference in references if reference["id"] not in by_id]
    if missing:
        raise ValueError(f"question {missing[0]!r} has no prediction: give one for each, an empty text if need be.")
    return [(by_id[reference["id"]], reference) for reference in references]


def _language_of(name: str) -> _Language:
    if name not in _LANGUAGES:
        raise ValueError(f"language is {name!r}: choose one of {', '.join(_LANGUAGES)}.")
    return _LANGUAGES[name]
