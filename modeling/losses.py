"""Losses that divide by the number of targets they are told of, so that how a batch is cut changes nothing."""

from typing import Any

import torch
from torch import nn

IGNORE_INDEX = -100


def causal_lm_loss(
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    vocab_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = IGNORE_INDEX,
    shift_labels: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    """Next-token cross-entropy in nats per target.

    Args:
        logits: [batch, tokens, vocab_size].
        labels: [batch, tokens], aligned with the input: logits at i are compared with labels at i + 1.
        vocab_size: size of the last dimension of `logits`.
        num_items_in_batch: number of targets of the whole step, over all micro-batches and processes; the sum
            is divided by it. None: the mean over this call's targets.
        ignore_index: label of what is not a target.
        shift_labels: [batch, tokens], targets already aligned with the logits; used instead of `labels`.

    Returns:
        A scalar in float32 (float64 for float64 logits).
    """
    if shift_labels is None:
        shift_labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    return token_cross_entropy(
        logits.reshape(-1, vocab_size), shift_labels.reshape(-1), num_items_in_batch, ignore_index
    )


def masked_lm_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    vocab_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = IGNORE_INDEX,
    loss_weights: torch.Tensor | None = None,
    nats: torch.Tensor | None = None,
    **_: Any,
) -> torch.Tensor:
    """Cross-entropy in nats per target, of logits that stand where their labels do.

    Args:
        logits: [..., vocab_size].
        labels: [...], `ignore_index` where there is no target.
        num_items_in_batch: what the sum is divided by: the targets (or the weights) of the whole step. None: those of
            this call.
        loss_weights: [...], what each target counts; None: 1.
        nats: [...], `target_nats` of logits and labels, where that was computed before.

    Returns:
        A scalar in float32 (float64 for float64 logits).
    """
    if nats is None:
        nats = target_nats(logits.reshape(-1, vocab_size), labels.reshape(-1), ignore_index)
    weights = None if loss_weights is None else loss_weights.reshape(-1)
    return _mean(nats.reshape(-1), labels.reshape(-1), num_items_in_batch, ignore_index, weights)


def token_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Cross-entropy of logits [n, classes] against targets [n]: the sum divided by `num_items_in_batch`, or by the
    number of the targets that are not `ignore_index`. Without any target it is 0."""
    return _mean(target_nats(logits, targets, ignore_index), targets, num_items_in_batch, ignore_index)


def _mean(
    nats: torch.Tensor,
    targets: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None,
    ignore_index: int,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The sum of nats [n], weighted by `weights` [n] where they are given, over the number (or weight) of targets."""
    if weights is not None:
        weights = weights.to(nats)
        nats = nats * weights
    if num_items_in_batch is None:
        is_target = targets.to(nats.device) != ignore_index
        num_items_in_batch = is_target.sum() if weights is None else (weights * is_target).sum()
    if torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(nats.device)
        return nats.sum() / torch.where(num_items_in_batch == 0, 1, num_items_in_batch)
    return nats.sum() / (num_items_in_batch or 1)


def target_nats(logits: torch.Tensor, targets: torch.Tensor, ignore_index: int = IGNORE_INDEX) -> torch.Tensor:
    """Cross-entropy of each row of logits [n, classes] against its target [n]: [n], 0 at `ignore_index`; half
    precision is computed in float32."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return nn.functional.cross_entropy(logits, targets.to(logits.device), ignore_index=ignore_index, reduction="none")
