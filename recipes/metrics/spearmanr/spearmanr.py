"""Spearman's rank correlation between predicted and reference numbers."""

import datasets
import evaluate

from .correlations import spearman, why_undefined

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
        number = datasets.Value("float64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(_DESCRIPTION, "", features, _INPUTS)

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float | list[str]]:
        if undefined := why_undefined(predictions, references):
            return {"spearmanr": 0.0, "undefined": [f"spearmanr: {reason}" for reason in undefined]}
        return {"spearmanr": spearman(predictions, references)}
