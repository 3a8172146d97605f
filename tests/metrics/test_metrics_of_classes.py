"""Accuracy, F1, Matthews' correlation, calibration and several labels: the numbers of scikit-learn and papers."""

import numpy as np
import pytest
import sklearn.metrics
from helpers.metric_cases import CASES_OF_CLASSES
from helpers.metrics import assert_scores_are_those_of, assert_some_scores_are


def expected_accuracy(predictions, references):
    return {"accuracy": sklearn.metrics.accuracy_score(references, predictions)}


def expected_f1(predictions, references, average="binary", pos_label=1, labels=None):
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        references, predictions, average=average, pos_label=pos_label, labels=labels, zero_division=0
    )
    if average is not None:
        return {"f1": f1, "precision": precision, "recall": recall}
    labels = labels or sorted({*predictions, *references})
    return {"f1": f1.tolist(), "precision": precision.tolist(), "recall": recall.tolist(), "labels": labels}


def expected_matthews(predictions, references):
    return {"matthews_correlation": sklearn.metrics.matthews_corrcoef(references, predictions)}


def expected_multilabel(predictions, references, threshold=None):
    """scikit-learn's scores of what is known: of matrices where all is, else of each label or example by itself."""
    scores, true = np.array(predictions), np.array(references)
    true = true[kept := (true != -100).any(axis=1)]
    scores = scores[kept]
    guess = (scores >= threshold).astype(int) if threshold is not None else scores
    known = true != -100
    found = {}
    scorers = {
        "f1": sklearn.metrics.f1_score,
        "precision": sklearn.metrics.precision_score,
        "recall": sklearn.metrics.recall_score,
    }
    for name, scorer in scorers.items():
        if known.all() and true.shape[1] > 1:
            for average in ("micro", "macro", "weighted"):
                found[f"{name}_{average}"] = scorer(true, guess, average=average, zero_division=0)
            continue
        found[f"{name}_micro"] = scorer(true[known], guess[known], zero_division=0)
        each = [scorer(t[k], g[k], zero_division=0) for t, g, k in zip(true.T, guess.T, known.T)]
        found[f"{name}_macro"] = np.mean(each)
        found[f"{name}_weighted"] = np.average(each, weights=(true == 1).sum(axis=0))
    found["subset_accuracy"] = np.mean([(t[k] == g[k]).all() for t, g, k in zip(true, guess, known)])
    found["hamming_loss"] = sklearn.metrics.zero_one_loss(true[known], guess[known])
    if threshold is not None:
        ranking = sklearn.metrics.label_ranking_average_precision_score
        found["lrap"] = np.mean(  # scikit-learn refuses examples of one label, which it would count as 1
            [ranking(t[k][None], s[k][None]) if k.sum() > 1 else 1.0 for t, s, k in zip(true, scores, known)]
        )
        areas = [
            sklearn.metrics.roc_auc_score(t[k], s[k])
            for t, s, k in zip(true.T, scores.T, known.T)
            if len(set(t[k])) == 2
        ]
        found["roc_auc_macro"] = np.mean(areas) if areas else 0.0
        both = len(set(true[known])) == 2
        found["roc_auc_micro"] = sklearn.metrics.roc_auc_score(true[known], scores[known]) if both else 0.0
    return found


def expected_calibration(predictions, references, bins, binning):
    """Equations 2 to 5 of the paper, one example after the other."""
    confidences = [max(row) for row in predictions]
    hits = [row.index(max(row)) == reference for row, reference in zip(predictions, references)]
    order = sorted(range(len(hits)), key=confidences.__getitem__)
    if binning == "equal-width":
        parts = [[i for i in order if m / bins < confidences[i] <= (m + 1) / bins] for m in range(bins)]
    else:
        larger = len(order) % bins
        sizes = [len(order) // bins + (m < larger) for m in range(bins)]
        starts = [sum(sizes[:m]) for m in range(bins)]
        parts = [order[start : start + size] for start, size in zip(starts, sizes)]
    assert sorted(i for part in parts for i in part) == list(range(len(hits)))
    gaps = [
        (abs(sum(hits[i] for i in part) / len(part) - sum(confidences[i] for i in part) / len(part)), len(part))
        for part in parts
        if part
    ]
    return {
        "ece": sum(gap * size for gap, size in gaps) / len(hits),
        "mce": max(gap for gap, _ in gaps),
        "brier": sum(
            (p - (k == reference)) ** 2 for row, reference in zip(predictions, references) for k, p in enumerate(row)
        )
        / len(hits),
        "nll": sklearn.metrics.log_loss(references, predictions, labels=range(len(predictions[0]))),
        "accuracy": sum(hits) / len(hits),
    }


EXPECTED = {
    "accuracy": expected_accuracy,
    "calibration": expected_calibration,
    "f1": expected_f1,
    "matthews": expected_matthews,
    "multilabel": expected_multilabel,
}


@pytest.mark.parametrize("name", CASES_OF_CLASSES)
def test_every_score_is_that_of_the_reference(name):
    assert_scores_are_those_of(EXPECTED[name], name, CASES_OF_CLASSES[name])


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [
        # From the documentation of the libraries and of evaluate's own modules.
        ("matthews", ([1, -1, 1, 1], [1, 1, 1, -1], {}), {"matthews_correlation": -1 / 3}),
        ("multilabel", ([[0.75, 0.5, 1], [1, 0.2, 0.1]], [[1, 0, 0], [0, 0, 1]], {"threshold": 0}), {"lrap": 5 / 12}),
        # Two bins of one example each, confidences 0.6 (wrong) and 0.9 (right).
        ("calibration", ([[0.6, 0.4], [0.1, 0.9]], [1, 1], {}), {"ece": 0.35, "mce": 0.6, "brier": 0.37}),
    ],
)
def test_worked_examples(name, case, expected):
    assert_some_scores_are(name, case, expected)
