"""Pearson's and Spearman's correlations together, as GLUE scores STS-B."""

import datasets
import evaluate

from .correlations import pearson, spearman, why_undefined

_DESCRIPTION = """
Pearson's correlation (how close to a straight line predictions and references lie together), Spearman's (Pearson's of
the ranks), and the mean of the two: the scores of GLUE's STS-B.
"""
_CITATION = "https://huggingface.co/papers/1804.07461"
_INPUTS = """
Args:
    predictions (list of float): the predicted number of each example.
    references (list of float): its right number.

Returns:
    pearson, spearmanr, corrcoef (float): between -1 and 1; corrcoef is the mean of the other two.
    undefined (list of str): only if the scores are undefined, and then 0.0: fewer than two examples, all predictions or
        all references equal, or a value that is not finite.
"""


class PearsonSpearman(evaluate.Metric):
    """Equal to scipy.stats.pearsonr and spearmanr."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float | list[str]]:
        if undefined := why_undefined(predictions, references):
            sentences = [f"pearson and spearmanr: {reason}" for reason in undefined]
            return {"pearson": 0.0, "spearmanr": 0.0, "corrcoef": 0.0, "undefined": sentences}
        both = {"pearson": pearson(predictions, references), "spearmanr": spearman(predictions, references)}
        return both | {"corrcoef": (both["pearson"] + both["spearmanr"]) / 2}
