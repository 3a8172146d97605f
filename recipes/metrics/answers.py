"""How a predicted answer is compared with the gold ones: what squad and squad_v2 share, and words of any script."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex

# As in weft.tokenizer.pre_tokenizers, without which a metric has to load.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u30FC"


@dataclass(frozen=True)
class Language:
    """How answers in a language are compared.

    Attributes:
        normalise: what does not matter removed; equal results are an exact match.
        split: into the units that F1 counts.
        count_common: of the units of two answers.
    """

    normalise: Callable[[str], str]
    split: Callable[[str], list[str]]
    count_common: Callable[[list[str], list[str]], int]

    def exact(self, gold: str, predicted: str) -> float:
        """1.0 where both are the same answer, 0.0 elsewhere."""
        return float(self.normalise(gold) == self.normalise(predicted))

    def f1(self, gold: str, predicted: str) -> float:
        """Harmonic mean of the shares of units in common, between 0 and 1; 0 where either has none."""
        units, guessed = self.split(gold), self.split(predicted)
        common = self.count_common(units, guessed)
        return 2 * common / (len(units) + len(guessed)) if common else 0.0


# A sign of these with the marks on it, or a run of letters and digits of all others.
WORD = regex.compile(rf"[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+", regex.VERSION1)
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


def _split_unspaced(text: str) -> list[str]:
    """Each sign of a script without blanks between words alone, words of other scripts whole."""
    return WORD.findall(text.lower())


def _normalise_unspaced(text: str) -> str:
    return "".join(_split_unspaced(text))


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
    "en": Language(_normalise_english, _split_english, _common_words),
    "zh": Language(_normalise_chinese, _split_chinese, _longest_common_run),
    "unspaced": Language(_normalise_unspaced, _split_unspaced, _longest_common_run),
}


def language_of(name: str) -> Language:
    """The rules of a language; raises ValueError."""
    if name not in _LANGUAGES:
        raise ValueError(f"language is {name!r}: choose one of {', '.join(_LANGUAGES)}.")
    return _LANGUAGES[name]


def score(rules: Language, predicted: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 against the best of one or more gold answers, as SQuAD 1.1's and CMRC 2018's scripts do."""
    return max(rules.exact(gold, predicted) for gold in answers), max(rules.f1(gold, predicted) for gold in answers)


def score_or_none(rules: Language, predicted: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 as SQuAD 2.0's script does: an empty text answers a question without gold answers."""
    golds = [gold for gold in answers if rules.normalise(gold)] or [""]
    exact, f1 = score(rules, predicted, golds)
    # An empty answer shares no word with any, but equals another empty one.
    is_empty = not rules.split(predicted) and any(not rules.split(gold) for gold in golds)
    return exact, 1.0 if is_empty else f1


def sums_by_threshold(
    no_answer: Sequence[float], has_answer: Sequence[bool], is_answered: Sequence[bool], scores: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """What all questions score together, by the threshold of the probability of "no answer".

    From a threshold below all, where nothing is answered, one question after the other is answered. One that has an
    answer adds its score. One that has none costs the point it had.

    Args:
        no_answer: probability of "no answer" of each question; equal ones are taken in this order.
        has_answer: whether it has a gold answer.
        is_answered: whether its prediction is not empty.
        scores: of its prediction, between 0 and 1.

    Returns:
        Thresholds, rising, and sums of scores: [questions + 1] each.
    """
    order = np.argsort(no_answer, kind="stable")
    gains = np.where(has_answer, scores, -np.asarray(is_answered, dtype=np.float64))[order]
    sums = np.cumsum([np.sum(~np.asarray(has_answer)), *gains])
    return np.concatenate([[0.0], np.asarray(no_answer, dtype=np.float64)[order]]), sums


def pair(predictions: list[dict[str, Any]], references: list[dict[str, Any]]) -> list[tuple[dict, dict]]:
    """Pair each reference with the prediction of the same id; raises ValueError."""
    by_id = {prediction["id"]: prediction for prediction in predictions}
    if len(by_id) < len(predictions) or len({reference["id"] for reference in references}) < len(references):
        raise ValueError("two predictions or two references have the same id: give one for each question.")
    missing = [reference["id"] for reference in references if reference["id"] not in by_id]
    if missing:
        raise ValueError(f"question {missing[0]!r} has no prediction: give one for each, an empty text if need be.")
    return [(by_id[reference["id"]], reference) for reference in references]
