"""Scores of examples that may have any number of labels."""

from typing import Any

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
For tasks where each of L labels may hold or not: F1, precision and recall over all decisions (micro), as the mean over
labels (macro) and weighted by how often each label holds; the share of examples that are right in every label (subset
accuracy) and of decisions that are wrong (Hamming loss); and, given scores, how well these rank (label-ranking average
precision within an example, area under the ROC curve within a label and overall).
"""
_INPUTS = """
Args:
    predictions (list of lists of float): [examples, labels]; 0 or 1, or, with `threshold`, a score of each label.
    references (list of lists of int): [examples, labels]; 1 if the label holds, 0 if not, -100 if nobody knows: such
        entries are left out of every score, and examples that have no other entries are left out altogether.
    threshold (float, optional): predictions are scores; a label is predicted if its score is the threshold or more
        (0.5 for probabilities, 0 for logits).

Returns:
    f1_micro, f1_macro, f1_weighted, and the same of precision and recall (float): between 0 and 1.
    subset_accuracy, hamming_loss (float): between 0 and 1.
    lrap, roc_auc_micro, roc_auc_macro (float): only with `threshold`. An example of which all or no labels hold counts
        as 1 in lrap; roc_auc_macro is the mean over the labels that hold for some examples and not for others.
    undefined (list of str): which scores are undefined and count as the worst value (0.0; a Hamming loss of 1.0):
        labels never predicted or never present, no examples, ranking by scores that are not numbers; only if there are
        any.

Raises:
    ValueError: rows of unequal length, references other than 0, 1, -100, predictions other than 0, 1 without threshold.
"""


class Multilabel(evaluate.Metric):
    """Equal to scikit-learn's scores of label indicators with zero_division=0, where no reference is -100."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.List(datasets.Value("float64")),
                    "references": datasets.List(datasets.Value("int64")),
                }
            ),
        )

    def _compute(
        self, predictions: list[list[float]], references: list[list[int]], threshold: float | None = None
    ) -> dict[str, Any]:
        scores, true = _checked(predictions, references, threshold)
        kept = (true != -100).any(axis=1)
        scores, true = scores[kept], true[kept]
        known, present = true != -100, true == 1
        predicted = ((scores == 1) if threshold is None else (scores >= threshold)) & known

        counts = [values.sum(axis=0) for values in (predicted & present, predicted, present)]
        result: dict[str, Any] = {}
        undefined = _undefined(*counts[1:])
        for average in ("micro", "macro", "weighted"):
            hits, guessed, held = (count.sum(keepdims=True) for count in counts) if average == "micro" else counts
            weights = held if average == "weighted" else np.ones(len(held))
            for name, numerator, denominator in (
                ("f1", 2 * hits, guessed + held),
                ("precision", hits, guessed),
                ("recall", hits, held),
            ):
                each = np.divide(numerator, denominator, out=np.zeros(len(hits)), where=denominator > 0)
                result[f"{name}_{average}"] = float(each @ weights / weights.sum()) if weights.sum() else 0.0
        wrong = (predicted != present) & known
        if len(true):
            result["subset_accuracy"] = float((~wrong.any(axis=1)).mean())
            result["hamming_loss"] = float(wrong.sum() / known.sum())
        else:
            result |= {"subset_accuracy": 0.0, "hamming_loss": 1.0}
            undefined = ["all scores: no examples were given"]
        if threshold is not None:
            ranking, reasons = _ranking(scores, present, known)
            result |= ranking
            undefined += reasons if len(true) else []
        return result | ({"undefined": undefined} if undefined else {})


def _checked(
    predictions: list[list[float]], references: list[list[int]], threshold: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and references as matrices [examples, labels]."""
    sizes = sorted({len(row) for rows in (predictions, references) for row in rows})
    if len(sizes) > 1:
        raise ValueError(f"predictions and references have rows of {sizes} entries: give one entry for each label.")
    shape = (len(references), sizes[0] if sizes else 0)
    scores, true = np.array(predictions, np.float64).reshape(shape), np.array(references, np.int64).reshape(shape)
    strange = true[~np.isin(true, (0, 1, -100))]
    if strange.size:
        raise ValueError(f"a reference is {strange[0]}: give 1 (holds), 0 (does not) or -100 (left out).")
    strange = scores[~np.isin(scores, (0, 1))]
    if threshold is None and strange.size:
        raise ValueError(f"a prediction is {strange[0]:g}: give 0 or 1, or scores and a threshold.")
    return scores, true


def _undefined(predicted: np.ndarray, present: np.ndarray) -> list[str]:
    """Of the numbers of times that each label is predicted and present."""
    sentences = []
    if not predicted.any() and not present.any():
        sentences.append("micro averages: no label is predicted or present")
    elif not predicted.any():
        sentences.append("precision_micro: no label is predicted")
    elif not present.any():
        sentences.append("recall_micro: no label is present")
    for label, (guesses, holds) in enumerate(zip(predicted, present)):
        if not guesses and not holds:
            sentences.append(f"f1, precision and recall of label {label}: never predicted nor present")
        elif not guesses:
            sentences.append(f"precision of label {label}: never predicted")
        elif not holds:
            sentences.append(f"recall of label {label}: never present")
    return sentences


def _ranking(scores: np.ndarray, present: np.ndarray, known: np.ndarray) -> tuple[dict[str, float], list[str]]:
    if np.isnan(scores[known]).any():
        names = ("lrap", "roc_auc_micro", "roc_auc_macro")
        return dict.fromkeys(names, 0.0), [f"{', '.join(names)}: some scores are not numbers"]
    undefined = []
    precisions = [_ranking_precision(s[k], p[k]) for s, p, k in zip(scores, present, known)]
    micro = _area(scores[known], present[known])
    if micro is None:
        undefined.append("roc_auc_micro: all labels hold or none does")
    areas = [_area(s[k], p[k]) for s, p, k in zip(scores.T, present.T, known.T)]
    for label, area in enumerate(areas):
        if area is None:
            undefined.append(f"roc_auc of label {label}: it always holds or never, and is left out of roc_auc_macro")
    defined = [area for area in areas if area is not None]
    return {
        "lrap": float(np.mean(precisions)) if precisions else 0.0,
        "roc_auc_micro": micro or 0.0,
        "roc_auc_macro": float(np.mean(defined)) if defined else 0.0,
    }, undefined


def _ranking_precision(scores: np.ndarray, present: np.ndarray) -> float:
    """Mean over an example's labels of the share of labels that hold among those scored as high or higher."""
    if present.all() or not present.any():
        return 1.0
    own = scores[present][:, None]
    return float(((scores[present] >= own).sum(axis=1) / (scores >= own).sum(axis=1)).mean())


def _area(scores: np.ndarray, present: np.ndarray) -> float | None:
    """Probability that something present is scored above something absent, a tie counting one half."""
    positives = int(present.sum())
    negatives = len(present) - positives
    if not positives or not negatives:
        return None
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]
    return float((ranks[present].sum() - positives * (positives + 1) / 2) / (positives * negatives))
