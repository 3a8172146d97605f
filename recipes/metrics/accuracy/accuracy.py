"""Accuracy: the share of predictions that equal their references."""

import datasets
import evaluate

_DESCRIPTION = "Accuracy: the share of predicted classes that equal the reference."
_INPUTS = """
Args:
    predictions (list of int): the predicted class of each example.
    references (list of int): its right class.

Returns:
    accuracy (float): between 0 and 1. Without examples 0.0, and `undefined` says so.
"""


class Accuracy(evaluate.Metric):
    """Equal to scikit-learn's accuracy_score."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        features = datasets.Features({"predictions": label, "references": label})
        return evaluate.MetricInfo(_DESCRIPTION, "", features, _INPUTS)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float | list[str]]:
        if not references:
            return {"accuracy": 0.0, "undefined": ["accuracy: no examples were given"]}
        from sklearn.metrics import accuracy_score

        return {"accuracy": accuracy_score(references, predictions)}
