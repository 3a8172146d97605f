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


def token_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Cross-entropy of logits [n, classes] against targets [n]: summed and divided by `num_items_in_batch`, or
    averaged over the targets that are not `ignore_index`."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    targets = targets.to(logits.device)
    if num_items_in_batch is None:
        return nn.functional.cross_entropy(logits, targets, ignore_index=ignore_index)
    if torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(logits.device)
    return nn.functional.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="sum") / num_items_in_batch
