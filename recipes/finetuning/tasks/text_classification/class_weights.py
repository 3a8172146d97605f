"""What each class counts in the loss."""

import math
from collections import Counter
from collections.abc import Sequence

import torch

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.text_classification.known_task import MULTI, REGRESSION
from weft.recipes.finetuning.tasks.text_classification.labels import LabelNames, number_in
from weft.recipes.finetuning.tasks.text_classification.reading import ClassificationData


def class_weights(words: Sequence[str], names: LabelNames, data: ClassificationData) -> torch.Tensor | None:
    """The weight of each class in the order of `names`; of several labels, what a label counts where it holds (its
    weight over that of its absence); None: all count the same.

    Args:
        words: see `weights_of`; "balanced" gives all classes the same share of the training examples.
    """
    if data.problem_type == REGRESSION:
        return None
    examples, times = len(data.splits["train"]), times_of_labels(names, data)
    if data.problem_type == MULTI:
        balanced = [(examples - n) / n if 0 < n < examples else 1.0 for n in times]
    else:
        there = sum(1 for n in times if n)
        balanced = [examples / (there * n) if n else 1.0 for n in times]
    weights = weights_of(words, names, balanced)
    return None if weights is None else torch.tensor(weights)


def times_of_labels(names: LabelNames, data: ClassificationData) -> list[int]:
    """How many training examples have each label."""
    labels = [example.label for example in data.splits["train"]]
    counts = Counter(name for label in labels for name in (label if data.problem_type == MULTI else (label,)))
    return [counts[name] for name in names.names]


def weights_of(words: Sequence[str], names: LabelNames, balanced: Sequence[float]) -> list[float] | None:
    """What each class counts in the loss.

    Args:
        words: "none", "balanced", or name=weight for any classes; the others count 1.
        balanced: the weights for "balanced".

    Raises:
        RecipeError: an unknown class, or a weight that is no number above 0.
    """
    if list(words) in (["none"], []):
        return None
    if list(words) == ["balanced"]:
        return list(balanced)
    weights = [1.0] * len(names)
    for word in words:
        name, equals, text = word.rpartition("=")
        weight = number_in(text)
        if not equals or weight is None or not 0 < weight < math.inf:
            raise RecipeError(f"class_weights has {word!r}: give none, balanced, or name=weight with weights above 0.")
        number = names.find(name)
        if number is None:
            raise RecipeError(f"class_weights names {name!r}: the labels are {', '.join(names.names)}.")
        weights[number] = weight
    return weights
