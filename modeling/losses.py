"""Losses that divide by the number of targets they are told of, so that how a batch is cut changes nothing.

Those of classification take plain logits and serve models of any family. All return a scalar in float32 (float64 for
float64 logits), 0 without any target."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

IGNORE_INDEX = -100
# how many logits the chunked loss makes at a time: large enough for matrix products to be fast
LOGITS_AT_ONCE = {"cpu": 1 << 24, "cuda": 1 << 27}


def causal_lm_loss(
    logits: torch.Tensor,
    labels: torch.Tensor | None,
    vocab_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = IGNORE_INDEX,
    shift_labels: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Next-token cross-entropy in nats per target: `masked_lm_loss` of labels [batch, tokens] that are aligned with the
    input, so that logits at i are compared with labels at i + 1; or of `shift_labels`, which are aligned already."""
    targets = next_labels(labels, ignore_index) if shift_labels is None else shift_labels
    return masked_lm_loss(logits, targets, vocab_size, num_items_in_batch, ignore_index, **kwargs)


def next_labels(labels: torch.Tensor, ignore_index: int = IGNORE_INDEX) -> torch.Tensor:
    """Labels [batch, tokens], each where the token before it is."""
    return nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]


def masked_lm_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    vocab_size: int,
    num_items_in_batch: torch.Tensor | int | None = None,
    ignore_index: int = IGNORE_INDEX,
    loss_weights: torch.Tensor | None = None,
    nats: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    **_: Any,
) -> torch.Tensor:
    """Cross-entropy in nats per target, of logits that stand where their labels do.
    Args:
        logits: [..., vocab_size].
        labels: [...], `ignore_index` where there is no target.
        num_items_in_batch: what the sum is divided by: the targets (or the weights) of the whole step, over all
            micro-batches and processes. None: those of this call.
        loss_weights: [...], what each target counts; None: 1.
        nats: [...], `target_nats` of logits and labels, where that was computed before.
        label_smoothing, z_loss: as in `target_nats`."""
    labels = labels.reshape(-1)
    if nats is None:
        nats = target_nats(logits.reshape(-1, vocab_size), labels, ignore_index, None, label_smoothing, z_loss)
    counts = count_each(labels.to(nats.device), loss_weights, nats.dtype, ignore_index)
    return _mean(nats.reshape(-1) * counts, counts, num_items_in_batch)


def count_each(targets: torch.Tensor, weights: torch.Tensor | None, dtype: torch.dtype, ignore: int) -> torch.Tensor:
    """What each of targets [n] counts: 0 at `ignore`, elsewhere its weight, or 1."""
    counts = (targets != ignore).to(dtype)
    return counts if weights is None else counts * weights.reshape(-1).to(counts)


def _mean(losses: torch.Tensor, counts: torch.Tensor, divisor: torch.Tensor | float | None) -> torch.Tensor:
    """The sum of losses over `divisor`, or where that is None over that of `counts`; the sum alone where that is 0."""
    total, count = losses.sum(), counts.sum() if divisor is None else divisor
    if torch.is_tensor(count):
        count = count.to(total.device, total.dtype if count.is_floating_point() else None)
        return total / torch.where(count == 0, 1, count)
    return total / (count or 1)


def target_nats(
    logits: torch.Tensor,
    targets: torch.Tensor,
    ignore_index: int = IGNORE_INDEX,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of each row of logits [n, classes] against its target [n]: [n], 0 at `ignore_index`; half
    precision is computed in float32. `class_weights` [classes] and `label_smoothing` as in PyTorch's cross_entropy;
    `z_loss` times the square of the logarithm of the softmax's denominator is added (PaLM,
    https://huggingface.co/papers/2204.02311)."""
    logits, targets = logits.to(torch.promote_types(logits.dtype, torch.float32)), targets.to(logits.device)
    weight = None if class_weights is None else class_weights.to(logits)
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    nats = nn.functional.cross_entropy(logits, targets, weight, reduction="none", **options)
    return nats + z_loss * logits.logsumexp(-1).square().where(targets != ignore_index, 0) if z_loss else nats


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of weighted cross-entropies of a linear map's outputs. The gradients are made in the forward pass, while the
    logits of a few rows are there; the logits of all rows never are."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        counts: torch.Tensor,
        options: tuple[torch.dtype, float | None, float, float, Callable | None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dtype, softcap, label_smoothing, z_loss, teach = options
        wide, classes, with_gradients = torch.promote_types(dtype, torch.float32), len(weight), ctx.needs_input_grad
        matrix, shift = weight.to(dtype), None if bias is None else bias.to(dtype)
        nats = hidden.new_empty(len(hidden), dtype=wide)
        taught = torch.zeros_like(nats)
        of_hidden = torch.empty_like(hidden) if with_gradients[0] else None
        is_written_over = dtype == wide and len(hidden) > 0  # by the first rows, which need no zeros then
        first = torch.empty_like if is_written_over else torch.zeros_like
        of_weight = first(weight, dtype=wide) if with_gradients[1] else None
        of_bias = torch.zeros_like(bias, dtype=wide) if with_gradients[2] else None
        at_once = LOGITS_AT_ONCE.get(hidden.device.type, LOGITS_AT_ONCE["cuda"]) // classes
        rows = max(1, min(len(hidden), at_once))
        room = hidden.new_empty(rows, classes, dtype=wide)  # made once: fresh memory costs a processor time
        reads_targets = hidden.device.type == "cpu" and not torch.compiler.is_compiling()

        def make_logits(inputs: torch.Tensor, logits: torch.Tensor) -> torch.Tensor | None:
            """Write the logits of inputs; returns the slope of the cap, where there is one and it is needed."""
            if dtype == wide:
                torch.mm(inputs, matrix.t(), out=logits)
            else:
                logits.copy_(inputs @ matrix.t())
            if shift is not None:
                logits += shift
            if softcap is None:
                return None
            logits.div_(softcap).tanh_()
            bends = 1 - logits.square() if any(with_gradients[:3]) else None
            logits *= softcap
            return bends

        for begin in range(0, len(hidden), rows):
            part = slice(begin, begin + rows)
            inputs, places = hidden[part].to(dtype), targets[part, None].clamp(min=0)
            logits = room[: len(inputs)]
            bends = make_logits(inputs, logits)
            of_target, mean = logits.gather(-1, places)[:, 0], logits.mean(-1) if label_smoothing else 0
            if teach is not None:
                taught[part], taught_slopes = teach(part, logits, places, label_smoothing)
            largest = None if reads_targets else logits.amax(-1)
            slopes = torch.softmax(logits, -1, out=logits)
            if largest is None:  # one number of each row instead of two passes over all of them
                share = slopes.gather(-1, places)[:, 0]
                denominator = of_target - share.log()
                lost = (share < torch.finfo(wide).tiny).nonzero()[:, 0]
                if len(lost):  # their target's probability is too small to be written
                    again = slopes.new_empty(len(lost), classes)
                    make_logits(inputs[lost], again)
                    denominator[lost] = again.logsumexp(-1)
            else:  # the largest probability never underflows
                denominator = largest - slopes.amax(-1).log()
            nats[part] = denominator - (1 - label_smoothing) * of_target - label_smoothing * mean
            if z_loss:
                nats[part] += z_loss * denominator.square()
                slopes *= 1 + 2 * z_loss * denominator[:, None]
            if not any(with_gradients[:3]):
                continue
            slopes.scatter_add_(-1, places, slopes.new_full(places.shape, label_smoothing - 1))
            if label_smoothing:
                slopes -= label_smoothing / classes
            if teach is not None:
                slopes += taught_slopes
            if softcap is not None:
                slopes *= bends
            if dtype == wide:  # counts go where few numbers are: 0 and 1 round nothing
                inputs = inputs * counts[part, None]
            else:
                slopes = slopes.mul_(counts[part, None]).to(dtype)
            if of_hidden is not None:
                of_hidden[part] = slopes @ matrix
            if of_weight is not None and dtype == wide:
                of_weight.addmm_(slopes.t(), inputs, beta=1 if begin else 0)
            elif of_weight is not None:
                of_weight += slopes.t() @ inputs
            if of_bias is not None:
                of_bias += slopes.t().mv(counts[part]) if dtype == wide else slopes.sum(0)
        if of_hidden is not None and dtype == wide:
            of_hidden *= counts[:, None]
        ctx.gradients, ctx.dtypes = (of_hidden, of_weight, of_bias), (hidden.dtype, weight.dtype, weight.dtype)
        nats = nats.where(targets != IGNORE_INDEX, 0)
        ctx.mark_non_differentiable(nats)
        return ((nats + taught) * counts).sum(), nats

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("The chunked loss has no second backward pass: ask for logits (return_logits=True).")
        scaled = (None if one is None else one.mul_(slope).to(dtype) for one, dtype in zip(gradients, ctx.dtypes))
        return (*scaled, None, None, None)


def linear_cross_entropy(
    hidden_states: torch.Tensor,
    linear: nn.Linear,
    targets: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    loss_weights: torch.Tensor | None = None,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    teach: Callable[[slice, torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of `masked_lm_loss`, to rounding, of the logits that `linear` makes of hidden_states [..., hidden_size],
    which are never there all at once. It has one backward pass, and no gradient of a gradient.
    Args:
        targets: [...], the class at each place, -100 where there is no target.
        softcap: logits are `softcap * tanh(logits / softcap)`.
        teach: what else is learnt: of some of the rows, their logits [m, classes], targets [m, 1] and label_smoothing
            it makes what is added to the loss of each [m], and the slopes of that [m, classes].
    Returns: the loss, and the cross-entropy of each target [n] without gradient."""
    hidden, targets = hidden_states.flatten(0, -2), targets.to(hidden_states.device).flatten()
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    counts = count_each(targets, loss_weights, torch.promote_types(dtype, torch.float32), IGNORE_INDEX)
    options = (dtype, softcap, label_smoothing, z_loss, teach)
    with torch.autocast(device, enabled=False):
        total, nats = _LinearCrossEntropy.apply(hidden, linear.weight, linear.bias, targets, counts, options)
    return _mean(total, counts, num_items_in_batch), nats


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
    """What the loss of these labels is divided by; added up over parts of a batch, it is `num_items_in_batch`.
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
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels = labels.to(logits.device).reshape(logits.shape)
    if problem_type == "multi_label_classification":
        is_target = labels != IGNORE_INDEX
        targets = labels.where(is_target, 0).to(logits) * (1 - label_smoothing) + label_smoothing / 2
        weight = None if class_weights is None else class_weights.to(logits)
        losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
    else:
        if class_weights is not None or label_smoothing:
            raise ValueError("A regression has no classes: leave out class_weights and label_smoothing.")
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
            f"Labels must be class numbers (torch.int64), not {labels.dtype}: give such, or set another problem_type."
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
        num_items_in_batch: number of answers of the whole step, which divides both sums; None: each sum by its own."""
    losses = []
    for logits, positions in ((start_logits, start_positions), (end_logits, end_positions)):
        positions = positions.to(logits.device).reshape(-1)
        is_inside = (positions >= 0) & (positions < logits.shape[-1])
        chosen = logits.gather(-1, positions.where(is_inside, 0)[:, None])[:, 0]
        is_inside = is_inside & (chosen > torch.finfo(logits.dtype).min)
        targets = positions.where(is_inside, IGNORE_INDEX)
        losses.append(token_classification_loss(logits, targets, num_items_in_batch))
    return (losses[0] + losses[1]) / 2


def check_count(name: str, found: int, number: int, what: str, each: int = 1) -> None:
    """Refuse anything but `each` labels for every one of `number` documents (or tokens, or examples)."""
    if found != number * each:
        wanted = "one" if each == 1 else each
        raise ValueError(f"{name} has {found} values for {number} {what}s: give {wanted} for each {what}.")
