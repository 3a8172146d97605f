"""F1 of classes, with the precision and recall it is made of."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .undefined import nothing_to_divide_by

_DESCRIPTION = """
F1 is the harmonic mean of precision (the share of predictions of a class that are right) and recall (the share of a
class's examples that are found): 2 * hits / (times predicted + times present).
"""
_INPUTS = """
Args:
    predictions (list of int): the predicted class of each example.
    references (list of int): its right class.
    average (str or None): "binary", of `pos_label` alone; "macro", the plain mean over classes; "weighted", weighted by
        how often the references hold a class; "micro", of the counts of all classes together; None, each class.
    pos_label (int): the class that "binary" scores.
    labels (list of int, optional): the classes that count, in this order; all in the data, sorted, if not given.
        Not for "binary".

Returns:
    f1, precision, recall (float, or list of float for average=None): between 0 and 1.
    labels (list of int): the classes in the order of the lists; only for average=None.
    undefined (list of str): which scores had nothing to divide by and count as 0.0; only if there are any.

Raises:
    ValueError: an unknown average; "binary" with more than two classes, or with two that are not `pos_label`.
"""
_AVERAGES = ("binary", "macro", "micro", "weighted", None)


class F1(evaluate.Metric):
    """Equal to scikit-learn's precision_recall_fscore_support with zero_division=0."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        features = datasets.Features({"predictions": label, "references": label})
        return evaluate.MetricInfo(_DESCRIPTION, "", features, _INPUTS)

    def _compute(
        self,
        predictions: list[int],
        references: list[int],
        average: str | None = "binary",
        pos_label: int = 1,
        labels: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        classes = _classes_that_count(predictions, references, average, pos_label, labels)
        if references and classes:
            from sklearn.metrics import precision_recall_fscore_support

            mean = "macro" if average == "binary" else average  # "binary": the mean over pos_label alone
            precision, recall, f1, _ = precision_recall_fscore_support(
                references, predictions, labels=classes, average=mean, zero_division=0
            )
            predicted, present = Counter(predictions), Counter(references)
            groups = [(f"class {label}", predicted[label], present[label]) for label in classes]
            if average == "micro":
                groups = [("all classes together", sum(g[1] for g in groups), sum(g[2] for g in groups))]
            undefined = nothing_to_divide_by(groups)
        else:
            precision = recall = f1 = 0.0 if average else np.zeros(len(classes))
            undefined = ["f1, precision and recall: no examples"]
        result: dict[str, Any] = {"f1": f1, "precision": precision, "recall": recall}
        if average is None:
            result = {name: values.tolist() for name, values in result.items()} | {"labels": classes}
        return result | ({"undefined": undefined} if undefined else {})


def _classes_that_count(
    predictions: list[int], references: list[int], average: str | None, pos_label: int, labels: Sequence[int] | None
) -> list[int]:
    if average not in _AVERAGES:
        raise ValueError(f"average is {average!r}: choose binary, macro, micro, weighted or None.")
    present = sorted({*predictions, *references})
    if average != "binary":
        return present if labels is None else [int(label) for label in dict.fromkeys(labels)]
    if labels is not None:
        raise ValueError('average="binary" scores pos_label alone: choose another average for labels.')
    if len(present) > 2:
        raise ValueError(
            f'average="binary" is for two classes, and the data hold {len(present)}: choose macro, micro, weighted '
            "or None."
        )
    if len(present) == 2 and pos_label not in present:
        raise ValueError(f"pos_label is {pos_label}, and the data hold the classes {present[0]} and {present[1]}.")
    return [int(pos_label)]
