"""Spearman's rank correlation between predicted and reference numbers."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = (
    "Spearman's correlation: Pearson's of the ranks; how well predictions order the examples as references do."
)
_INPUTS = """
Args:
    predictions (list of float): the predicted number of each example.
    references (list of float): its right number.

Returns:
    spearmanr (float): between -1 and 1.
    undefined (list of str): only if the score is undefined, and then 0.0: fewer than two examples, all predictions or
        all references equal, or a value that is not finite.
"""


class Spearmanr(evaluate.Metric):
    """Equal to scipy.stats.spearmanr."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")},
            ),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float | list[str]]:
        predicted, true = np.array(predictions, dtype=np.float64), np.array(references, dtype=np.float64)
        undefined = _undefined(predicted, true)
        if undefined:
            return {"spearmanr": 0.0, "undefined": [f"spearmanr: {reason}" for reason in undefined]}
        return {"spearmanr": _correlation(_ranks(predicted), _ranks(true))}


def _undefined(predicted: np.ndarray, true: np.ndarray) -> list[str]:
    """Why there is no correlation; empty if there is one."""
    if len(true) < 2:
        return [f"two examples or more are needed, and {len(true)} given"]
    reasons = []
    for what, values in (("predictions", predicted), ("references", true)):
        if not np.isfinite(values).all():
            reasons.append(f"some {what} are not finite numbers")
        elif values.min() == values.max():
            reasons.append(f"all {what} are equal")
    return reasons


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    directions = []
    for values in (x, y):
        centred = values - values.mean()
        centred /= np.abs(centred).max()  # squares of very small or large numbers would leave the range of floats
        directions.append(centred / np.linalg.norm(centred))
    return float(np.clip(directions[0] @ directions[1], -1.0, 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; equal values share the mean of their places."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[group]
