"""The Matthews correlation coefficient, of two or more classes."""

import datasets
import evaluate

_DESCRIPTION = """
The correlation between predicted and right classes: 1 when all are right, 0 when the predictions are unrelated to the
references, negative when they tend to be wrong. Classes of unequal size do not flatter it. With more than two classes
it is Gorodkin's generalisation (R_K).
"""
_CITATION = "Gorodkin 2004, Comparing two K-category assignments by a K-category correlation coefficient"
_INPUTS = """
Args:
    predictions (list of int): the predicted class of each example.
    references (list of int): its right class.

Returns:
    matthews_correlation (float): between -1 and 1.
    undefined (list of str): only if the score is undefined, and then 0.0: without examples, or if all predictions or
        all references are the same class.
"""


class Matthews(evaluate.Metric):
    """Equal to scikit-learn's matthews_corrcoef."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        features = datasets.Features({"predictions": label, "references": label})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float | list[str]]:
        if not references:
            return {"matthews_correlation": 0.0, "undefined": ["matthews_correlation: no examples were given"]}
        undefined = [
            f"matthews_correlation: all {what} are class {values[0]}"
            for what, values in (("predictions", predictions), ("references", references))
            if len(set(values)) == 1
        ]
        if undefined:
            return {"matthews_correlation": 0.0, "undefined": undefined}
        from sklearn.metrics import matthews_corrcoef

        return {"matthews_correlation": matthews_corrcoef(references, predictions)}
