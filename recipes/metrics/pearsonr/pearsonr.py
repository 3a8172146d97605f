"""Pearson's correlation between predicted and reference numbers."""

import datasets
import evaluate

from .correlations import pearson, why_undefined

_DESCRIPTION = "Pearson's correlation: how close to a straight line predictions and references lie together."
_INPUTS = """
Args:
    predictions (list of float): the predicted number of each example.
    references (list of float): its right number.

Returns:
    pearsonr (float): between -1 and 1.
    undefined (list of str): only if the score is undefined, and then 0.0: fewer than two examples, all predictions or
        all references equal, or a value that is not finite.
"""


class Pearsonr(evaluate.Metric):
    """Equal to scipy.stats.pearsonr."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(_DESCRIPTION, "", features, _INPUTS)

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float | list[str]]:
        if undefined := why_undefined(predictions, references):
            return {"pearsonr": 0.0, "undefined": [f"pearsonr: {reason}" for reason in undefined]}
        return {"pearsonr": pearson(predictions, references)}
