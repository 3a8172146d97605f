"""Scores and thresholds of classifiers are those of scikit-learn and scipy, or of a search through everything."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, mean_squared_error

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.text_classification.scoring import (
    choose_best_metric,
    score_multi,
    score_regression,
    score_single,
    sigmoid,
    softmax,
    tune_thresholds,
)

DRAW = np.random.default_rng(0)


def ece_by_hand(probabilities, labels, bins=15):
    """Bin after bin."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def f1_by_hand(labels, predicted):
    return 2 * (labels & predicted).sum() / max((labels.sum() + predicted.sum()), 1)


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_of_one_label(classes):
    labels = DRAW.integers(0, classes, 200)
    logits = (DRAW.normal(size=(200, classes)) + 1.5 * np.eye(classes)[labels]).astype(np.float32)
    scores, predicted = score_single(logits, labels, positive=1 if classes == 2 else None), logits.argmax(1)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert scores["f1_macro"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert scores["matthews_correlation"] == pytest.approx(matthews_corrcoef(labels, predicted))
    assert scores["ece"] == pytest.approx(ece_by_hand(softmax(logits), labels))
    assert ("f1" in scores) == (classes == 2)
    if classes == 2:
        assert scores["f1"] == pytest.approx(f1_score(labels, predicted))
        assert scores["f1_and_accuracy"] == pytest.approx((scores["f1"] + scores["accuracy"]) / 2)


def test_scores_of_several_labels_at_one_half_and_at_tuned_thresholds():
    labels = (DRAW.uniform(size=(150, 4)) < 0.3).astype(int)
    logits = (DRAW.normal(size=(150, 4)) + 2 * labels - 2.5).astype(np.float32)
    thresholds = np.array([0.1, 0.2, 0.3, 0.9])
    scores, probabilities = score_multi(logits, labels, thresholds), 1 / (1 + np.exp(-logits.astype(float)))
    for suffix, predicted in (("", probabilities >= 0.5), ("_tuned", probabilities >= thresholds)):
        for average in ("micro", "macro"):
            expected = f1_score(labels, predicted, average=average, zero_division=0)
            assert scores[f"f1_{average}{suffix}"] == pytest.approx(expected)
        assert scores[f"subset_accuracy{suffix}"] == pytest.approx(accuracy_score(labels, predicted))


def test_scores_of_a_regression():
    labels = DRAW.uniform(0, 5, 80)
    predicted = (labels + DRAW.normal(size=80)).astype(np.float32)
    scores = score_regression(predicted, labels)
    assert scores["mse"] == pytest.approx(mean_squared_error(labels, predicted))
    assert scores["pearson"] == pytest.approx(scipy.stats.pearsonr(predicted, labels)[0])
    assert scores["spearmanr"] == pytest.approx(scipy.stats.spearmanr(predicted, labels)[0])
    assert scores["corrcoef"] == pytest.approx((scores["pearson"] + scores["spearmanr"]) / 2)


@pytest.mark.parametrize("decimals", [8, 1])  # with one decimal many probabilities are equal
def test_thresholds_have_the_best_f1_that_any_threshold_has(decimals):
    labels = (DRAW.uniform(size=(60, 3)) < (0.1, 0.5, 0.8)).astype(int)
    probabilities = np.clip(DRAW.uniform(size=(60, 3)) * 0.6 + 0.3 * labels, 0, 1).round(decimals)
    grid = np.linspace(0.0005, 0.9995, 500)
    for number, threshold in enumerate(tune_thresholds(probabilities, labels, per_label=True)):
        best = max(f1_by_hand(labels[:, number], probabilities[:, number] >= t) for t in grid)
        assert f1_score(labels[:, number], probabilities[:, number] >= threshold) >= best - 1e-12
    one = tune_thresholds(probabilities, labels, per_label=False)
    assert len(set(one.tolist())) == 1
    best = max(f1_by_hand(labels, probabilities >= t) for t in grid)
    assert f1_score(labels, probabilities >= one, average="micro") >= best - 1e-12


def test_a_label_that_no_example_has_keeps_one_half():
    labels = np.array([[1, 0], [0, 0]])
    assert tune_thresholds(np.array([[0.9, 0.9], [0.1, 0.8]]), labels, per_label=True)[1] == 0.5


def test_probabilities_of_extreme_logits_are_finite():
    logits = np.array([[1e4, -1e4], [3e38, -3e38]], dtype=np.float32)
    assert softmax(logits).tolist() == [[1, 0], [1, 0]]
    assert np.isfinite(sigmoid(logits)).all()


def test_the_goal_has_its_direction_and_must_be_a_score():
    single, multi = "single_label_classification", "multi_label_classification"
    assert choose_best_metric(single, 3, None, None).name == "accuracy"
    assert choose_best_metric(single, 3, "loss", None).greater_is_better is False
    assert choose_best_metric(single, 3, "loss", True).greater_is_better is True
    assert choose_best_metric(multi, 3, None, None).greater_is_better is True
    assert choose_best_metric("regression", 0, None, None).greater_is_better is False
    assert choose_best_metric(single, 2, "f1", None).name == "f1"
    for metric in ("f1", "f1_micro"):
        with pytest.raises(RecipeError, match="choose one of accuracy, f1_macro"):
            choose_best_metric(single, 3, metric, None)
