"""SciPy's correlations, quietly, and why there is none: what pearsonr, spearmanr and pearson_spearman share."""

import warnings
from collections.abc import Sequence

import numpy as np


def why_undefined(predictions: Sequence[float], references: Sequence[float]) -> list[str]:
    """Say why there is no correlation; nothing where there is one."""
    if len(references) < 2:
        return [f"two examples or more are needed, and {len(references)} given"]
    reasons = []
    for what, values in (("predictions", predictions), ("references", references)):
        if not np.isfinite(values).all():
            reasons.append(f"some {what} are not finite numbers")
        elif min(values) == max(values):
            reasons.append(f"all {what} are equal")
    return reasons


def pearson(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Pearson's correlation of values that have one, between -1 and 1."""
    from scipy.stats import pearsonr

    with warnings.catch_warnings(action="ignore"):  # of values that are nearly equal
        return float(pearsonr(predictions, references).statistic)


def spearman(predictions: Sequence[float], references: Sequence[float]) -> float:
    """Spearman's rank correlation of values that have one, between -1 and 1; equal values share their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(predictions, references).statistic)
