"""Scores of text classification, and the thresholds of labels of which several may hold."""

from typing import Any

import numpy as np

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.tasks.text_classification.known_task import MULTI, REGRESSION, SINGLE
from weft.recipes.metrics import load_metric

SCORES: dict[str, tuple[str, ...]] = {
    SINGLE: ("accuracy", "f1_macro", "matthews_correlation", "ece", "loss"),
    MULTI: (
        *("f1_micro", "f1_macro", "subset_accuracy", "f1_micro_tuned", "f1_macro_tuned", "subset_accuracy_tuned"),
        "loss",
    ),
    REGRESSION: ("mse", "pearson", "spearmanr", "corrcoef", "loss"),
}
BINARY_SCORES = ("f1", "f1_and_accuracy")  # the second label is the positive one
# What the best weights are chosen by; several labels rarely pass 0.5 early in training, where tuned scores tell more.
GOALS = {SINGLE: "accuracy", MULTI: "f1_micro_tuned", REGRESSION: "mse"}
LOWER_IS_BETTER = ("loss", "mse", "ece")


def choose_best_metric(
    problem_type: str, labels: int, metric: str | None, greater_is_better: bool | None
) -> BestMetric:
    """The metric to choose weights by; raises RecipeError for one that is not computed."""
    known = [*SCORES[problem_type], *(BINARY_SCORES if problem_type == SINGLE and labels == 2 else ())]
    metric = GOALS[problem_type] if metric is None else metric
    if metric not in known:
        raise RecipeError(f"metric is {metric!r}: choose one of {', '.join(known)}.")
    return BestMetric(metric, metric not in LOWER_IS_BETTER if greater_is_better is None else greater_is_better)


def score_single(logits: np.ndarray, labels: np.ndarray, positive: int | None) -> dict[str, float]:
    """Scores of class numbers.

    Args:
        logits: [examples, classes].
        labels: [examples].
        positive: also F1 of this class, and its mean with accuracy, as GLUE scores MRPC and QQP; None: not.
    """
    predicted = logits.argmax(-1)
    pair = {"predictions": predicted.tolist(), "references": labels.tolist()}
    scores = load_metric("accuracy").compute(**pair)
    # a class that the split has no example of counts where it is predicted
    scores["f1_macro"] = load_metric("f1").compute(**pair, average="macro")["f1"]
    scores |= load_metric("matthews").compute(**pair)
    if positive is not None:
        scores["f1"] = load_metric("f1").compute(**pair, average="binary", pos_label=positive)["f1"]
        scores["f1_and_accuracy"] = (scores["f1"] + scores["accuracy"]) / 2
    probabilities = softmax(logits)
    scores["ece"] = load_metric("calibration").compute(predictions=probabilities.tolist(), references=labels.tolist())[
        "ece"
    ]
    return _numbers(scores)


def score_multi(logits: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """Scores of labels of which several may hold, at a probability of 0.5 and, "tuned", at other thresholds.

    Args:
        logits, labels: [examples, labels].
        thresholds: [labels].
    """
    probabilities, scores = sigmoid(logits), {}
    for suffix, limits in (("", 0.5), ("_tuned", thresholds)):
        found = load_metric("multilabel").compute(
            predictions=(probabilities >= limits).astype(int).tolist(), references=labels.astype(int).tolist()
        )
        scores |= {f"{name}{suffix}": found[name] for name in ("f1_micro", "f1_macro", "subset_accuracy")}
    return _numbers(scores)


def score_regression(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean squared error, Pearson's and Spearman's correlation and (corrcoef) their mean; both [examples]."""
    scores = load_metric("pearson_spearman").compute(predictions=predicted.tolist(), references=labels.tolist())
    return _numbers({"mse": float(np.mean((predicted - labels) ** 2)), **scores})


def tune_thresholds(probabilities: np.ndarray, labels: np.ndarray, per_label: bool) -> np.ndarray:
    """The thresholds with the highest F1 on these examples.

    Args:
        probabilities, labels: [examples, labels].
        per_label: one for each label; otherwise one for all, with the highest micro F1.

    Returns:
        [labels]; 0.5 for a label that no example has.
    """
    if per_label:
        return np.array([_best_threshold(p, y) for p, y in zip(probabilities.T, labels.T)])
    return np.full(labels.shape[1], _best_threshold(probabilities.reshape(-1), labels.reshape(-1)))


def _best_threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Halfway between the last probability that is taken and the first that is not."""
    if not labels.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    sorted_probabilities = probabilities[order]
    hits = np.cumsum(labels[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + labels.sum())
    lower = np.append(sorted_probabilities[1:], 0.0)
    f1[sorted_probabilities == lower] = -1  # equal probabilities are taken together
    best = int(f1.argmax())
    return float((sorted_probabilities[best] + lower[best]) / 2)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of classes, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of labels, in float64."""
    return 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -700, 700)))


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}
