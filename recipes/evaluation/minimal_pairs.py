"""Minimal pairs: of two sentences that differ in one point of grammar, is the right one the more probable?

The form is that of BLiMP (https://huggingface.co/papers/1912.00582) and of its counterparts in other languages: JSON
lines with `sentence_good` and `sentence_bad`. `UID` names the paradigm of a pair; without it, the file's name does.
`linguistics_term`, `phenomenon` or `field` names the phenomenon of the paradigm.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation.likelihood import Scorer
from weft.recipes.evaluation.records import MinimalPair


def score_pairs(scorer: Scorer, pairs: Sequence[MinimalPair]) -> dict[str, Any]:
    """Compute the share of pairs in which the right sentence has the higher log-probability. A tie is wrong.

    Returns:
        accuracy (mean over paradigms), accuracy_of_pairs (over all pairs alike), pairs, ties, and the accuracy and
        number of pairs of each of the `phenomena` (mean over its paradigms) and `paradigms`.

    Raises:
        RecipeError: a sentence has no token that can be scored.
    """
    scores = scorer.score_texts([sentence for pair in pairs for sentence in (pair.good, pair.bad)])
    for number, score in enumerate(scores):
        if not len(score.log_probs):
            raise RecipeError(f"{pairs[number // 2].where}: a sentence has no token that the model predicts.")
    totals = np.array([score.total for score in scores]).reshape(-1, 2)
    is_right, is_tie = totals[:, 0] > totals[:, 1], totals[:, 0] == totals[:, 1]
    by_paradigm: dict[str, list[bool]] = defaultdict(list)
    phenomenon_of: dict[str, str] = {}
    for pair, right in zip(pairs, is_right.tolist()):
        by_paradigm[pair.paradigm].append(right)
        if pair.phenomenon is not None:
            phenomenon_of.setdefault(pair.paradigm, pair.phenomenon)
    paradigms = {
        name: {"accuracy": _mean(right), "pairs": len(right)}
        | ({"phenomenon": phenomenon_of[name]} if name in phenomenon_of else {})
        for name, right in sorted(by_paradigm.items())
    }
    phenomena = {}
    for phenomenon in sorted(set(phenomenon_of.values())):
        members = [entry for name, entry in paradigms.items() if phenomenon_of.get(name) == phenomenon]
        phenomena[phenomenon] = {
            "accuracy": _mean(member["accuracy"] for member in members),
            "pairs": sum(member["pairs"] for member in members),
        }
    return {
        "accuracy": _mean(entry["accuracy"] for entry in paradigms.values()),
        "accuracy_of_pairs": _mean(is_right.tolist()),
        "pairs": len(pairs),
        "ties": int(is_tie.sum()),
        "phenomena": phenomena,
        "paradigms": paradigms,
    }


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
