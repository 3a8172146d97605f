"""Rewards and losses of preferences, in float64 from what a model says of each answer.

The reward of an answer is implicit: of DPO (https://huggingface.co/papers/2305.18290) and KTO (2402.01306) beta times
the logarithm of how much likelier it is than at the start; of ORPO (2403.07691), which keeps no model of the start,
beta times the mean log-probability of its tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Likelihoods:
    """Log-probabilities of the sequences of one example: of its answers and, for KTO, of another's behind its prompt.

    Attributes:
        answers: [sequences], sums over the tokens of each answer.
        start: [sequences], the same by the model as it starts; 0 where that is not asked.
        whole: [sequences], sums over prompt and answer, but for the first token.
    """

    answers: np.ndarray
    start: np.ndarray
    whole: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        return self.answers - self.start


@dataclass(frozen=True)
class Objective:
    """A loss of preferences with its fields, as PreferenceArguments has them."""

    loss: str
    beta: float
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def rewards(self, found: Sequence[Likelihoods], tokens: np.ndarray) -> np.ndarray:
        """The reward of each answer.

        Args:
            tokens: [examples, answers], of the answers.
        """
        answers = tokens.shape[1]
        if self.loss == "orpo":
            return self.beta * np.array([each.answers[:answers] for each in found]) / tokens
        return self.beta * np.array([each.gains[:answers] for each in found])

    def value(self, found: Sequence[Likelihoods], tokens: np.ndarray, wanted: np.ndarray, lengths: np.ndarray) -> float:
        """The loss over all examples at once.

        Args:
            tokens: as in `rewards`.
            wanted: [examples, answers] bool.
            lengths: [examples], tokens of the first sequence.
        """
        rewards = self.rewards(found, tokens)
        if self.loss == "dpo":
            return float(np.logaddexp(0, rewards[:, 1] - rewards[:, 0]).mean())
        if self.loss == "orpo":
            chosen, rejected = (rewards / self.beta).T
            log_odds = chosen - rejected - np.log1p(-np.exp(chosen)) + np.log1p(-np.exp(rejected))
            nats = -sum(each.whole[0] for each in found) / (lengths - 1).sum()
            return float(nats + self.beta * np.logaddexp(0, -log_odds).mean())
        divergence = max(0.0, float(np.mean([each.gains[-1] for each in found])))
        signs, weights = np.where(wanted, 1, -1), np.where(wanted, self.desirable_weight, self.undesirable_weight)
        return float((weights / (1 + np.exp(signs * (rewards - self.beta * divergence)))).mean())


def score_pairs(rewards: np.ndarray) -> dict[str, float]:
    """How often and by how much the chosen answer has the higher reward.

    Args:
        rewards: [examples, 2], of the chosen and the rejected answer.
    """
    chosen, rejected = rewards.T
    return {
        "accuracy": float((chosen > rejected).mean()),
        "margin": float((chosen - rejected).mean()),
        "reward_chosen": float(chosen.mean()),
        "reward_rejected": float(rejected.mean()),
    }


def score_single(rewards: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """How often a wanted answer has a higher reward than an unwanted one (the area under the ROC curve), and by how
    much; both [examples]."""
    from sklearn.metrics import roc_auc_score  # it takes long to import, and only KTO on single answers needs it

    both = 0 < wanted.sum() < len(wanted)
    of_wanted, of_others = (float(rewards[chosen].mean()) if both else np.nan for chosen in (wanted, ~wanted))
    return {
        "auc": float(roc_auc_score(wanted, rewards)) if both else np.nan,
        "margin": of_wanted - of_others,
        "reward_wanted": of_wanted,
        "reward_unwanted": of_others,
    }
