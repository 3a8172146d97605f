"""The Matthews correlation coefficient, of two or more classes."""

import math
from collections import Counter

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
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")},
            ),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float | list[str]]:
        if not references:
            return {"matthews_correlation": 0.0, "undefined": ["matthews_correlation: no examples were given"]}
        total = len(references)
        predicted, true = Counter(predictions), Counter(references)
        undefined = [
            f"matthews_correlation: all {what} are class {next(iter(counter))}"
            for what, counter in (("predictions", predicted), ("references", true))
            if len(counter) == 1
        ]
        if undefined:
            return {"matthews_correlation": 0.0, "undefined": undefined}
        right = sum(guess == label for guess, label in zip(predictions, references))
        # Whole numbers of any size until the square roots: exact for any number of examples.
        covariance = right * total - sum(count * true[label] for label, count in predicted.items())
        spreads = [total**2 - sum(count**2 for count in counter.values()) for counter in (predicted, true)]
        return {"matthews_correlation": covariance / (math.sqrt(spreads[0]) * math.sqrt(spreads[1]))}
