"""Exact match and F1 of answers to questions of which some have none (SQuAD 2.0)."""

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate

_DESCRIPTION = """
How well predicted answers match the best of several gold answers, or the absence of any, as SQuAD 2.0's official script
has it: exactly, and by F1; of all questions, of those with an answer and of those without; and the best that could be
had by giving no answer wherever its probability is above a threshold. Chinese answers are compared as CMRC 2018's
official script does.
"""
_CITATION = "https://huggingface.co/papers/1806.03822 and https://huggingface.co/papers/1810.07366"
_INPUTS = """
Args:
    predictions (list of dict): `id` of the question, `prediction_text` (empty for no answer) and
        `no_answer_probability` (or any number that grows with it), None for all if there is none.
    references (list of dict): `id` of the question and `answers`: `text`, the gold answers (empty if the question has
        none), and `answer_start`, which is not looked at.
    no_answer_threshold (float): a question whose no_answer_probability is larger counts as answered by nothing.
    language (str): "en" or "zh". CMRC 2018's script cuts text between Chinese characters by a tokenizer that has to be
        downloaded; here it is cut by the same rules without its model of sentences.

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
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": {"id": text, "prediction_text": text, "no_answer_probability": number},
                    "references": {"id": text, "answers": answers},
                }
            ),
        )

    def _compute(
        self,
        predictions: list[dict[str, Any]],
        references: list[dict[str, Any]],
        no_answer_threshold: float = 1.0,
        language: str = "en",
    ) -> dict[str, Any]:
        rules = _language_of(language)
        questions = [_score(rules, prediction, reference) for prediction, reference in _pair(predictions, references)]
        given = [question.no_answer_probability is not None for question in questions]
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
                    scores = [_with_threshold(question, key, no_answer_threshold) for question in group]
                    result[prefix + key] = 100 * sum(scores) / len(group)
                result[f"{prefix}total"] = len(group)
        if all(given):
            place = {prediction["id"]: i for i, prediction in enumerate(predictions)}
            questions.sort(key=lambda question: (question.no_answer_probability, place[question.id]))
            for key in ("exact", "f1"):
                result[f"best_{key}"], result[f"best_{key}_thresh"] = _best(questions, key)
        return result


@dataclass(frozen=True)
class _Question:
    """Scores, between 0 and 1, of the answer that was given."""

    id: str
    has_answer: bool
    is_answered: bool
    exact: float
    f1: float
    no_answer_probability: float | None


def _score(rules: "_Language", prediction: dict[str, Any], reference: dict[str, Any]) -> _Question:
    guess, answers = prediction["prediction_text"], reference["answers"]["text"]
    answers_with_words = [answer for answer in answers if rules.normalise(answer)] or [""]
    return _Question(
        id=reference["id"],
        has_answer=bool(answers),
        is_answered=bool(guess),
        exact=max(float(rules.normalise(answer) == rules.normalise(guess)) for answer in answers_with_words),
        f1=max(
            # An empty answer shares no word with any, but equals another empty one.
            _f1(rules, answer, guess) or float(not rules.split(answer) and not rules.split(guess))
            for answer in answers_with_words
        ),
        no_answer_probability=prediction["no_answer_probability"],
    )


def _with_threshold(question: _Question, key: str, threshold: float) -> float:
    if question.no_answer_probability is not None and question.no_answer_probability > threshold:
        return float(not question.has_answer)
    return getattr(question, key)


def _best(questions: list[_Question], key: str) -> tuple[float, float]:
    """The best score, and the threshold it is reached at, of questions in the order of their no-answer probability.

    From a threshold below all, where nothing is answered, one question after the other is answered: one that has an
    answer adds its score, one that has none costs the point it had.
    """
    score = best = float(sum(not question.has_answer for question in questions))
    threshold = 0.0
    for question in questions:
        score += getattr(question, key) if question.has_answer else -float(question.is_answered)
        if score > best:
            best, threshold = score, question.no_answer_probability
    return 100 * best / len(questions), threshold


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
