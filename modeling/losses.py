"""Losses that divide by the number of targets they are told of, so that how a batch is cut changes nothing.

Those of classification take plain logits and serve models of any family. All return a scalar in float32 (float64 for
float64 logits), 0 without any target."""

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
        num_items_in_batch: number of targets of the whole step, over all micro-batches and processes; the sum is
            divided by it. None: the mean over this call's targets.
        ignore_index: label of what is not a target.
        shift_labels: [batch, tokens], targets already aligned with the logits; used instead of `labels`."""
    if shift_labels is None:
        shift_labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    logits, targets = logits.reshape(-1, vocab_size), shift_labels.reshape(-1)
    return token_cross_entropy(logits, targets, num_items_in_batch, ignore_index)


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
        nats: [...], `target_nats` of logits and labels, where that was computed before."""
    labels = labels.reshape(-1)
    if nats is None:
        nats = target_nats(logits.reshape(-1, vocab_size), labels, ignore_index)
    nats, counts = nats.reshape(-1), labels.to(nats.device) != ignore_index
    if loss_weights is not None:
        weights = loss_weights.reshape(-1).to(nats)
        nats, counts = nats * weights, weights * counts
    return _mean(nats, counts, num_items_in_batch)


def token_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> torch.Tensor:
    """Cross-entropy of logits [n, classes] against targets [n]: the sum divided by `num_items_in_batch`, or by the
    number of the targets that are not `ignore_index`."""
    return _mean(target_nats(logits, targets, ignore_index), targets != ignore_index, num_items_in_batch)


def _mean(losses: torch.Tensor, counts: torch.Tensor, divisor: torch.Tensor | float | None) -> torch.Tensor:
    """The sum of losses over `divisor`, or where that is None over the sum of `counts`, what each of them counts; the
    sum alone where that is 0."""
    total, count = losses.sum(), counts.sum() if divisor is None else divisor
    if torch.is_tensor(count):
        count = count.to(total.device, total.dtype if count.is_floating_point() else None)
        return total / torch.where(count == 0, 1, count)
    return total / (count or 1)


def _lift(logits: torch.Tensor) -> torch.Tensor:
    """Half precision in float32."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def target_nats(
    logits: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int = IGNORE_INDEX,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of each row of logits [n, classes] against its target [n]: [n], 0 at `ignore_index`; half
    precision is computed in float32. `class_weights` [classes] and `label_smoothing` as in PyTorch's cross_entropy."""
    logits, targets = _lift(logits), targets.to(logits.device)
    weight = None if class_weights is None else class_weights.to(logits)
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    return nn.functional.cross_entropy(logits, targets, weight, reduction="none", **options)


def find_problem_type(problem_type: str | None, num_labels: int, labels: torch.Tensor) -> str:
    """The config's problem_type, or where it is None the one that transformers takes: regression with one label, else
    what the labels are: class numbers (int32, int64), or anything else for several labels at once."""
    if problem_type is not None:
        return problem_type
    if num_labels == 1:
        return "regression"
    is_class = labels.dtype in (torch.int32, torch.int64)
    return "single_label_classification" if is_class else "multi_label_classification"


def count_targets(
    labels: torch.Tensor, problem_type: str | None = None, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """What the loss of these labels is divided by; it adds up over parts of a batch, to be given as
    `num_items_in_batch`.
    Args:
        labels: as the loss takes them: of sequences, tokens, choices, or the first tokens of answers.
        problem_type: as in `find_problem_type`; None: class numbers.
        class_weights: [classes], as the loss takes them.
    Returns: a scalar, the number of labels (of several labels at once and of regression: of their entries) that are
        targets, or of class numbers with class_weights the sum of their weights."""
    if problem_type == "regression":
        return (~labels.isnan()).sum()
    is_target = labels != IGNORE_INDEX
    if class_weights is None or problem_type == "multi_label_classification":
        return is_target.sum()
    return (class_weights.to(labels.device)[labels.where(is_target, 0).long()] * is_target).sum()


def sequence_classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    problem_type: str | None = None,
    num_items_in_batch: torch.Tensor | int | None = None,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    **_: Any,
) -> torch.Tensor:
    """Cross-entropy, binary cross-entropy or squared error per target.
    Args:
        logits: [documents, num_labels].
        labels: by problem_type "single_label_classification": class numbers [documents], -100 where there is no target;
            "multi_label_classification": [documents, num_labels] from 0 to 1, -100 where an entry is no target;
            "regression": [documents, num_labels], or with one label [documents], NaN where an entry is no target.
        problem_type: None: as in `find_problem_type`.
        num_items_in_batch: what the sum is divided by: `count_targets` of the labels of the whole step. None: of these.
        class_weights: [num_labels], what each class counts; of several labels at once what a label counts where it is
            1 (`pos_weight` of PyTorch's binary_cross_entropy_with_logits).
        label_smoothing: share of each target that is spread over all classes; of several labels at once, over 0 and 1.
    Raises: ValueError for labels that are no class numbers where such are needed, and for class_weights or
        label_smoothing of a regression."""
    problem_type = find_problem_type(problem_type, logits.shape[-1], labels)
    if problem_type == "single_label_classification":
        return token_classification_loss(logits, labels, num_items_in_batch, class_weights, label_smoothing)
    logits, labels = _lift(logits), labels.to(logits.device).reshape(logits.shape)
    if problem_type == "multi_label_classification":
        is_target = labels != IGNORE_INDEX
        targets = labels.where(is_target, 0).to(logits) * (1 - label_smoothing) + label_smoothing / 2
        weight = None if class_weights is None else class_weights.to(logits)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
    else:
        if class_weights is not None or label_smoothing:
            raise ValueError(
                "A regression has no classes: class_weights and label_smoothing must be left out, or problem_type be "
                "one of the two classifications."
            )
        is_target = ~labels.isnan()
        losses = (logits - labels.where(is_target, 0).to(logits)).square()
    return _mean(losses.where(is_target, 0), is_target, num_items_in_batch)


def token_classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    **_: Any,
) -> torch.Tensor:
    """Cross-entropy in nats per target: torch.nn.functional.cross_entropy where all targets are given at once.
    Args:
        logits: [..., classes].
        labels: class numbers [...], -100 where there is no target; others are refused with a ValueError.
        num_items_in_batch, class_weights, label_smoothing: as in `sequence_classification_loss`. Smoothing gives every
            class a share: it has no meaning where logits of choices that do not exist are the dtype's minimum."""
    if labels.is_floating_point():
        raise ValueError(
            f"The labels must be class numbers (torch.int64), but they are {labels.dtype}: give such, or set "
            "problem_type='multi_label_classification' or 'regression' in the config."
        )
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1).long()
    nats = target_nats(logits, labels, class_weights=class_weights, label_smoothing=label_smoothing)
    return _mean(nats, count_targets(labels, class_weights=class_weights), num_items_in_batch)


def question_answering_loss(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    start_positions: torch.Tensor,
    end_positions: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    **_: Any,
) -> torch.Tensor:
    """Cross-entropy in nats per answer of its first and of its last token, the mean of both.
    Args:
        start_logits, end_logits: [documents, tokens]; the dtype's minimum where there is no token.
        start_positions, end_positions: [documents], the answer's first and last token. -100, and anything else that
            is outside of the tokens, is no target.
        num_items_in_batch: the number of answers of the whole step, which both sums are divided by. None: each by the
            number of its own targets."""
    losses = []
    for logits, positions in ((start_logits, start_positions), (end_logits, end_positions)):
        positions = positions.to(logits.device).reshape(-1)
        is_inside = (positions >= 0) & (positions < logits.shape[-1])
        chosen = logits.gather(-1, positions.where(is_inside, 0)[:, None])[:, 0]
        is_inside = is_inside & (chosen > torch.finfo(logits.dtype).min)
        losses.append(token_cross_entropy(logits, positions.where(is_inside, IGNORE_INDEX), num_items_in_batch))
    return (losses[0] + losses[1]) / 2
