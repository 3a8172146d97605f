"""How sure a score of a data set is, where it is no mean of single scores."""

import math
from collections.abc import Sequence


def jackknife_error(without: Sequence[float]) -> float:
    """Return the standard error of a score, by the delete-a-group jackknife (Shao and Tu 1995, "The Jackknife and
    Bootstrap").

    Args:
        without: the score without each part of the data set, all of one size.
    """
    number, mean = len(without), sum(without) / len(without)
    return math.sqrt((number - 1) / number * sum((score - mean) ** 2 for score in without))
