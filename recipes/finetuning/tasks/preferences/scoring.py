"""Rewards and losses of preferences, in float64 from what a model says of each answer.

The reward of an answer is implicit: of DPO (https://huggingface.co/papers/2305.18290) and KTO (2402.01306) beta times
the logarithm of how much likelier it is than at the start; of ORPO (2403.07691), which keeps no model of the start,
beta times the mean log-probability of its tokens.

What is `found` of an example is [2, sequences], of its answers and, for KTO, of another's behind its prompt: the
log-probability of each answer, less that by the model as it starts if that is kept, and of prompt and answer together.
"""

from collections.abc import Sequence

import numpy as np

from weft.recipes.finetuning.tasks.preferences.arguments import PreferenceArguments


def rewards_of(fields: PreferenceArguments, found: Sequence[np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """The reward of each answer: [examples, answers], as are `tokens`."""
    rewards = fields.beta * np.array([of_answers[: tokens.shape[1]] for of_answers, _ in found])
    return rewards / tokens if fields.loss == "orpo" else rewards


def loss_of(
    fields: PreferenceArguments, found: Sequence[np.ndarray], rewards: np.ndarray, wanted: np.ndarray, targets: int
) -> float:
    """The loss over all examples at once.

    Args:
        rewards, wanted: [examples, answers].
        targets: how many tokens the first sequences have, but for the first of each.
    """
    if fields.loss == "dpo":
        return float(np.logaddexp(0, rewards[:, 1] - rewards[:, 0]).mean())
    if fields.loss == "orpo":
        chosen, rejected = (rewards / fields.beta).T
        log_odds = chosen - rejected - np.log1p(-np.exp(chosen)) + np.log1p(-np.exp(rejected))
        nats = -sum(whole[0] for _, whole in found) / targets
        return float(nats + fields.beta * np.logaddexp(0, -log_odds).mean())
    divergence = max(0.0, float(np.mean([of_answers[-1] for of_answers, _ in found])))
    signs, weights = np.where(wanted, 1, -1), np.where(wanted, fields.desirable_weight, fields.undesirable_weight)
    return float((weights / (1 + np.exp(signs * (rewards - fields.beta * divergence)))).mean())


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
