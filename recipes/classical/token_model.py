"""What every model of tokens that is no network can do: score documents, go token by token, be saved."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

Arrays = dict[str, np.ndarray]


class TokenModel(ABC):
    """Probabilities of each token given those before it in its document; they sum to one over the vocabulary."""

    KIND: ClassVar[str]  # as config.json names it
    vocab_size: int

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, for tables."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, str]:
        """How many numbers it has learnt, and what they are."""

    @abstractmethod
    def log_probs(self, tokens: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """Score documents, each by itself.

        Args:
            tokens: ids of all documents one after another [tokens].
            begins: where each document begins, and the end of the last [documents + 1].

        Returns:
            [tokens] float64, in nats; 0 for the first token of each document, which nothing predicts.
        """

    @abstractmethod
    def begin(self) -> Any:
        """The state before the first token of a document."""

    @abstractmethod
    def advance(self, state: Any, token: int) -> Any:
        """The state behind a token."""

    @abstractmethod
    def next_probabilities(self, state: Any) -> np.ndarray:
        """The probability of each token to come next [vocabulary] float64."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What config.json holds of it."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """What model.safetensors holds of it."""

    @classmethod
    @abstractmethod
    def from_saved(cls, settings: dict[str, Any], arrays: Arrays) -> "TokenModel":
        """Make it again of `settings` and `arrays` (raises ValueError or KeyError: they do not belong together)."""


def places_of(begins: np.ndarray) -> np.ndarray:
    """The place of each token in its document [tokens]."""
    return np.arange(begins[-1]) - np.repeat(begins[:-1], np.diff(begins))
