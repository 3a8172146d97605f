"""Scores of examples that may have any number of labels."""

from typing import Any

import datasets
import evaluate
import numpy as np

from .undefined import nothing_to_divide_by

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
_AVERAGES = ("micro", "macro", "weighted")
_SCORES = (
    *(f"{name}_{average}" for average in _AVERAGES for name in ("f1", "precision", "recall")),
    *("subset_accuracy", "hamming_loss"),
)
_RANKING = ("lrap", "roc_auc_micro", "roc_auc_macro")


class Multilabel(evaluate.Metric):
    """Equal to scikit-learn's scores of label indicators with zero_division=0, where no reference is -100."""

    def _info(self) -> evaluate.MetricInfo:
        scores, labels = datasets.List(datasets.Value("float64")), datasets.List(datasets.Value("int64"))
        features = datasets.Features({"predictions": scores, "references": labels})
        return evaluate.MetricInfo(_DESCRIPTION, "", features, _INPUTS)

    def _compute(
        self, predictions: list[list[float]], references: list[list[int]], threshold: float | None = None
    ) -> dict[str, Any]:
        scores, true = _checked(predictions, references, threshold)
        kept = (true != -100).any(axis=1)
        scores, true = scores[kept], true[kept]
        known, present = true != -100, true == 1
        predicted = ((scores == 1) if threshold is None else (scores >= threshold)) & known
        if not len(true):
            worst = dict.fromkeys(_SCORES + (() if threshold is None else _RANKING), 0.0)
            return {**worst, "hamming_loss": 1.0, "undefined": ["all scores: no examples were given"]}
        wrong = predicted != present
        result: dict[str, Any] = {
            **_averages(predicted, present),
            "subset_accuracy": float((~wrong.any(axis=1)).mean()),
            "hamming_loss": float(wrong.sum() / known.sum()),
        }
        undefined = _undefined(predicted.sum(axis=0), present.sum(axis=0))
        if threshold is not None:
            ranking, reasons = _ranking(scores, present, known)
            result |= ranking
            undefined += reasons
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


def _averages(predicted: np.ndarray, present: np.ndarray) -> dict[str, float]:
    """F1, precision and recall of matrices that are false where nobody knows."""
    from sklearn.metrics import precision_recall_fscore_support

    matrices, labels, scores = (_widened(present, False), _widened(predicted, False)), range(present.shape[1]), []
    for average in _AVERAGES:
        precision, recall, f1, _ = precision_recall_fscore_support(
            *matrices, labels=labels, average=average, zero_division=0
        )
        scores += [f1, precision, recall]
    return dict(zip(_SCORES, scores))


def _widened(matrix: np.ndarray, value: Any) -> np.ndarray:
    """Add a column, since scikit-learn takes a matrix of one column for classes."""
    return np.pad(matrix, ((0, 0), (0, 1)), constant_values=value)


def _undefined(predicted: np.ndarray, present: np.ndarray) -> list[str]:
    """Of the numbers of times that each label is predicted and present."""
    sentences = []
    if not predicted.any() and not present.any():
        sentences.append("micro averages: no label is predicted or present")
    elif not predicted.any():
        sentences.append("precision_micro: no label is predicted")
    elif not present.any():
        sentences.append("recall_micro: no label is present")
    labels = [f"label {label}" for label in range(len(present))]
    return sentences + nothing_to_divide_by(zip(labels, predicted, present))


def _ranking(scores: np.ndarray, present: np.ndarray, known: np.ndarray) -> tuple[dict[str, float], list[str]]:
    """The scores of _RANKING, and which are undefined."""
    if np.isnan(scores[known]).any():
        return dict.fromkeys(_RANKING, 0.0), [f"{', '.join(_RANKING)}: some scores are not numbers"]
    from sklearn.metrics import label_ranking_average_precision_score

    # whole numbers in the same order, since scikit-learn refuses infinite scores; -1 where nobody knows ranks last
    order = np.where(known, np.unique(scores, return_inverse=True)[1].reshape(scores.shape), -1)
    micro = _area(present[known], order[known])
    areas = [_area(p[k], o[k]) for p, o, k in zip(present.T, order.T, known.T)]
    undefined = [] if micro is not None else ["roc_auc_micro: all labels hold or none does"]
    undefined += [
        f"roc_auc of label {label}: it always holds or never, and is left out of roc_auc_macro"
        for label, area in enumerate(areas)
        if area is None
    ]
    defined = [area for area in areas if area is not None]
    return {
        "lrap": label_ranking_average_precision_score(_widened(present, False), _widened(order, -1)),
        "roc_auc_micro": micro or 0.0,
        "roc_auc_macro": float(np.mean(defined)) if defined else 0.0,
    }, undefined


def _area(present: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve; None where all are present or none is."""
    from sklearn.metrics import roc_auc_score

    return None if present.all() or not present.any() else float(roc_auc_score(present, scores))
