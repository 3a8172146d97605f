"""The metric that tells the best weights."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class BestMetric:
    """The metric that tells the best weights: a key of what `Task.score` returns, and its direction."""

    name: str
    greater_is_better: bool = True

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether `value` is an improvement; a value that is not a number never is, and any number is one over it."""
        if value != value:
            return False
        return than is None or than != than or (value > than if self.greater_is_better else value < than)

    def chooses(self, scores: Mapping[str, float], over: Mapping[str, float] | None) -> bool:
        """Whether scores are better than others.

        The lower loss, if there is one, decides between equal ones: a metric often stands still at first (Matthews'
        correlation at 0) while the model learns.
        """
        value, than = scores[self.name], None if over is None else over[self.name]
        if over is not None and value == than and "loss" in scores:
            return BestMetric("loss", greater_is_better=False).is_better(scores["loss"], over["loss"])
        return self.is_better(value, than)
