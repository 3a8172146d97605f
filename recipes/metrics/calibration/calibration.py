"""Calibration: are examples predicted with probability p right in a share p of the cases?"""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Expected and maximum calibration error, Brier score and negative log-likelihood of predicted class probabilities. For
the calibration errors, examples are put into bins by their confidence (the largest probability); a bin's error is the
distance between its accuracy and its mean confidence; the expected error is the mean over examples, the maximum that
over bins.
"""
_CITATION = "https://huggingface.co/papers/1706.04599"
_INPUTS = """
Args:
    predictions (list of lists of float): for each example, the probability of each class; not logits.
    references (list of int): its right class.
    bins (int): how many.
    binning (str): "equal-width", bins ((m - 1) / bins, m / bins] of confidence; "equal-mass", bins of equally many
        examples in the order of confidence, the first ones larger by one if they do not divide evenly.

Returns:
    ece (float): expected calibration error, between 0 and 1.
    mce (float): maximum calibration error, between 0 and 1.
    brier (float): the mean over examples of the squared distances between the probabilities and 1 for the right class,
        0 for the others, summed over classes: between 0 and 2 (for two classes, twice the score of one probability).
    nll (float): mean of -ln(probability of the right class), probabilities below 2.2e-16 counted as that.
    accuracy (float): the share of examples whose right class has the largest probability (the first of equal ones).
    undefined (list of str): only if there is no example or a probability is not finite (all scores then have their
        worst values: 1, 1, 2, 36.04, 0), or if a right class has probability 0 (the nll would be infinite).

Raises:
    ValueError: rows that are no probabilities of the same classes, a reference that is none of the classes, no bins.
"""
_SMALLEST = float(np.finfo(np.float64).eps)
_WORST = {"ece": 1.0, "mce": 1.0, "brier": 2.0, "nll": -float(np.log(_SMALLEST)), "accuracy": 0.0}
_TOLERANCE = 0.01  # of a sum of probabilities that were rounded to bfloat16


class Calibration(evaluate.Metric):
    """Guo et al. 2017, section 2."""

    def _info(self) -> evaluate.MetricInfo:
        probabilities, label = datasets.List(datasets.Value("float64")), datasets.Value("int64")
        features = datasets.Features({"predictions": probabilities, "references": label})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(
        self, predictions: list[list[float]], references: list[int], bins: int = 15, binning: str = "equal-width"
    ) -> dict[str, float | list[str]]:
        if bins < 1:
            raise ValueError(f"bins is {bins}: give 1 or more.")
        if binning not in ("equal-width", "equal-mass"):
            raise ValueError(f"binning is {binning!r}: choose equal-width or equal-mass.")
        if not references:
            return _WORST | {"undefined": ["all scores: no examples were given"]}
        probabilities, true = _checked(predictions, references)
        if not np.isfinite(probabilities).all():
            return _WORST | {"undefined": ["all scores: some probabilities are not finite numbers"]}

        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == true
        if binning == "equal-width":
            bin_of = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
        else:
            bin_of = np.empty(len(true), dtype=np.int64)
            parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
            for number, part in enumerate(parts):
                bin_of[part] = number
        sizes = np.bincount(bin_of, minlength=bins)
        gaps = np.abs(np.bincount(bin_of, weights=right - confidence, minlength=bins))  # times the size of the bin
        filled = sizes > 0
        of_right_class = probabilities[np.arange(len(true)), true]
        result: dict[str, float | list[str]] = {
            "ece": float(gaps.sum() / len(true)),
            "mce": float((gaps[filled] / sizes[filled]).max()),
            "brier": float(((probabilities**2).sum(axis=1) - 2 * of_right_class + 1).mean()),
            "nll": float(-np.log(np.maximum(of_right_class, _SMALLEST)).mean()),
            "accuracy": float(right.mean()),
        }
        impossible = int((of_right_class <= 0).sum())
        if impossible:
            result["undefined"] = [f"nll: {impossible} right classes have probability 0, counted as {_SMALLEST:.1e}"]
        return result


def _checked(predictions: list[list[float]], references: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [examples, classes] and right classes [examples]."""
    sizes = {len(row) for row in predictions}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(f"predictions have rows of {sorted(sizes)} numbers: give one probability for each class.")
    probabilities, true = np.array(predictions, dtype=np.float64), np.array(references, dtype=np.int64)
    outside = (true < 0) | (true >= probabilities.shape[1])
    if outside.any():
        raise ValueError(f"reference {true[outside][0]} is none of the {probabilities.shape[1]} classes.")
    rows = np.isfinite(probabilities).all(axis=1)
    wrong = rows & ((np.abs(probabilities.sum(axis=1) - 1) > _TOLERANCE) | (probabilities < 0).any(axis=1))
    if wrong.any():
        raise ValueError(
            f"row {int(wrong.argmax())} of predictions holds no probabilities: give softmax outputs, not logits."
        )
    return probabilities, true
