"""What a Trainer asks its evaluation for."""

from typing import Protocol

import transformers
from torch.utils.data import Dataset


class Evaluator(Protocol):
    """Computes the metrics of the held-out rows with a trainer's model, the same in all processes."""

    rows: Dataset

    def __call__(self, trainer: "transformers.Trainer") -> dict[str, float]: ...
