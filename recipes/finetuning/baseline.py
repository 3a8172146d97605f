"""Answers that need no model, beside which a model's scores mean something."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from weft.recipes.finetuning.collation import BatchLayout, EncodedExample

LONGEST_NAME, MOST_NAMES = 40, 3  # characters of a label, and labels, that are written out
_SURE = 4.0  # the logit of a label that is always given
Items = Sequence[EncodedExample]


@dataclass(frozen=True)
class Baseline:
    """An answer that does not depend on what a model has learnt.

    Attributes:
        answer: what it does, such as "always answers 'yes', the majority".
        results: what stands in the place of a model's results, one for each item in order; None where only the scores
            to be expected are known.
        scores: these, by metric.
    """

    answer: str
    results: Sequence[Any] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


def constant_baselines(
    items: Items, learnt: Items, names: Mapping[int, str], results_of: Callable[[Any, BatchLayout], list[Any]]
) -> list[Baseline]:
    """The best that can be answered without looking at a text: the most frequent class, the mean, or the same labels.

    What the targets are is seen from the training items: class numbers, numbers, or 0 and 1 for each of several labels.
    Of targets of another form there is no such baseline.

    Args:
        items: to answer for.
        learnt: the training items.
        names: of the labels, by number.
        results_of: makes results of a model's outputs, of which there are `logits` [items, labels] only.
    """
    found = _constant([item.target for item in learnt], names)
    if found is None:
        return []
    answer, logits = found
    rows = torch.tensor(np.tile(np.asarray(logits, dtype=np.float32), (len(items), 1)))
    layout = BatchLayout(
        list(items),
        rows=list(range(len(items))),
        starts=[0] * len(items),
        lengths=[len(item.sequences[0]) for item in items],
        shape=(len(items), max(len(item.sequences[0]) for item in items)),
    )
    try:
        return [Baseline(answer, results_of(SimpleNamespace(logits=rows), layout))]
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return []  # the task reads more of the outputs than such logits, and has not said what its baseline is


def _constant(targets: Sequence[Any], names: Mapping[int, str]) -> tuple[str, Sequence[float]] | None:
    """What is answered, in words, and the logits of it."""
    if all(isinstance(target, int | np.integer) for target in targets):
        return _most_frequent(np.array(targets), names)
    if all(isinstance(target, float | np.floating) for target in targets):
        mean = float(np.mean(targets))
        return f"always answers {mean:.4g}, the mean", [mean]
    if all(isinstance(target, Sequence) and len(target) == len(names) and {*target} <= {0, 1} for target in targets):
        return _most_frequent_set(np.array(targets, dtype=float), names)
    return None


def _most_frequent(targets: np.ndarray, names: Mapping[int, str]) -> tuple[str, Sequence[float]]:
    times = np.bincount(targets, minlength=len(names))
    best = int(times.argmax())
    return f"always answers {named(names.get(best, best))}, the majority", np.log((times + 0.5) / (times.sum() + 1))


def _most_frequent_set(targets: np.ndarray, names: Mapping[int, str]) -> tuple[str, Sequence[float]]:
    """The set of labels with the best micro F1 on the training items.

    Args:
        targets: [items, labels].
    """
    times = targets.sum(0)
    order = np.argsort(-times, kind="stable")
    f1 = 2 * np.cumsum(times[order]) / np.maximum(np.arange(1, len(order) + 1) * len(targets) + times.sum(), 1)
    chosen = order[: int(f1.argmax()) + 1]
    shown = " and ".join(named(names[int(label)]) for label in chosen[:MOST_NAMES])
    more = " ..." if len(chosen) > MOST_NAMES else ""
    logits = np.full(len(order), -_SURE)
    logits[chosen] = _SURE
    return f"always answers {shown}{more}, the most frequent", logits


def named(label: Any) -> str:
    """A label in quotation marks, cut where it is long."""
    text = " ".join(str(label).split())
    return repr(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}...")


def most_frequent(targets: Sequence[Any]) -> Any:
    """The most frequent of some values, the smallest of equals."""
    times = Counter(targets)
    return min(times, key=lambda value: (-times[value], value))
