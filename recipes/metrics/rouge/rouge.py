"""ROUGE-1, ROUGE-2 and ROUGE-L of texts against one or more reference texts each, for every script."""

from typing import Any

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

from .answers import WORD

_DESCRIPTION = """
How much of its references a text holds and how much of it they hold (F score): single words (rouge1), pairs of words
(rouge2), and the longest sequence of words in the same order (rougeL). Words are runs of letters and digits in lower
case. Characters of scripts that have no blanks between words (Chinese, Japanese, Thai ...) are words by themselves: the
library's own tokenizer knows only a to z and 0 to 9, and drops all others.
"""
_CITATION = "https://aclanthology.org/W04-1013"
_INPUTS = """
Args:
    predictions (list of str): the texts.
    references (list of lists of str): the references of each, one or more, of which the best counts.

Returns:
    rouge1, rouge2, rougeL (float): means over texts, between 0 and 1.
    undefined (list of str): only without examples, and where references have no word (no pair of words for rouge2):
        they count as 0.0.

Raises:
    ValueError: a text without reference.
"""
_KINDS = ("rouge1", "rouge2", "rougeL")


class Rouge(evaluate.Metric):
    """Equal to the library rouge_score on ASCII text."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.List(text)})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        for number, texts in enumerate(references):
            if not texts:
                raise ValueError(f"text {number} has no reference: give one or more.")
        if not predictions:
            return dict.fromkeys(_KINDS, 0.0) | {"undefined": [f"{', '.join(_KINDS)}: no examples were given"]}
        scorer = RougeScorer(list(_KINDS), tokenizer=_Words())
        scores = [scorer.score_multi(texts, text) for text, texts in zip(predictions, references)]
        result: dict[str, Any] = {kind: sum(s[kind].fmeasure for s in scores) / len(scores) for kind in _KINDS}
        longest = [max(len(WORD.findall(text)) for text in texts) for texts in references]
        undefined = [
            f"{names} of {count:,} texts: no reference has {what}"
            for names, what, count in (
                ("rouge1, rougeL", "a word", longest.count(0)),
                ("rouge2", "two words", sum(words < 2 for words in longest)),
            )
            if count
        ]
        return result | ({"undefined": undefined} if undefined else {})


class _Words:
    """In the form that the library takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())
