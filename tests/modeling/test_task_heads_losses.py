"""The losses of classification: what PyTorch computes, exact under every cut of a batch, never NaN."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers.loss.loss_utils import ForQuestionAnsweringLoss

from weft.losses import (
    count_targets,
    find_problem_type,
    question_answering_loss,
    sequence_classification_loss,
    token_classification_loss,
)

EXACT = {"rtol": 0.0, "atol": 1e-12}
CUTS = ([7], [1, 6], [3, 3, 1], [1] * 7)
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0]).double()
CLASSES = torch.tensor([1, 0, -100, 3, 2, -100, 1])
MANY = torch.tensor(
    [[0, 1, 1, 0], [1, -100, 0, 0], [-100] * 4, [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1], [1, 0, -100, 0]]
)
NUMBERS = torch.randn(7, 4, generator=torch.Generator().manual_seed(3)).double()
NUMBERS[0, 2] = NUMBERS[4] = float("nan")
KINDS: dict[str, tuple[torch.Tensor, str]] = {
    "one class": (CLASSES, "single_label_classification"),
    "many classes": (MANY.double(), "multi_label_classification"),
    "numbers": (NUMBERS, "regression"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weighted": {"class_weights": WEIGHTS},
    "smoothed": {"label_smoothing": 0.15},
    "both": {"class_weights": WEIGHTS, "label_smoothing": 0.15},
}
CASES = [(kind, options) for kind in KINDS for options in OPTIONS if kind != "numbers" or options == "plain"]


def make_logits(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Random logits that want a gradient."""
    logits = 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return logits.to(dtype).requires_grad_()


def by_torch(logits: torch.Tensor, kind: str, class_weights: Any = None, label_smoothing: float = 0.0) -> torch.Tensor:
    """The mean that PyTorch computes, over what is a target."""
    labels, _ = KINDS[kind]
    if kind == "one class":
        return nn.functional.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)
    if kind == "numbers":
        return nn.functional.mse_loss(logits[~labels.isnan()], labels[~labels.isnan()])
    chosen = labels != -100
    weights = None if class_weights is None else class_weights.expand_as(labels)[chosen]
    targets = torch.full_like(labels[chosen], label_smoothing / 2)
    targets[labels[chosen] == 1] = 1 - label_smoothing / 2
    return nn.functional.binary_cross_entropy_with_logits(logits[chosen], targets, pos_weight=weights)


@pytest.mark.parametrize("kind, options", CASES)
def test_one_batch_gives_what_pytorch_computes(kind: str, options: str) -> None:
    """Loss and gradient, with targets that are none."""
    labels, problem_type = KINDS[kind]
    logits = make_logits(7, 4)
    loss = sequence_classification_loss(logits, labels, problem_type, **OPTIONS[options])
    expected = by_torch(logits, kind, **OPTIONS[options])
    torch.testing.assert_close(loss, expected, **EXACT)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, **EXACT)


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("kind, options", CASES)
def test_parts_that_are_counted_together_give_the_whole(kind: str, options: str, cut: list[int]) -> None:
    """Counts add up, and so do losses that are divided by their sum; parts without a target included."""
    labels, problem_type = KINDS[kind]
    logits, arguments = make_logits(7, 4), OPTIONS[options]
    parts = list(zip(logits.split(cut), labels.split(cut)))
    count = sum(count_targets(part, problem_type, arguments.get("class_weights")) for _, part in parts)
    losses = [
        sequence_classification_loss(*part, problem_type, num_items_in_batch=count, **arguments) for part in parts
    ]
    torch.testing.assert_close(sum(losses), by_torch(logits, kind, **arguments), **EXACT)


@pytest.mark.parametrize("options", list(OPTIONS))
def test_tokens_are_classified_in_any_shape(options: str) -> None:
    logits, labels = make_logits(2, 7, 4), torch.stack((CLASSES, CLASSES.flip(0)))
    expected = nn.functional.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        weight=OPTIONS[options].get("class_weights"),
        label_smoothing=OPTIONS[options].get("label_smoothing", 0.0),
    )
    torch.testing.assert_close(token_classification_loss(logits, labels, **OPTIONS[options]), expected, **EXACT)
    of_ints = token_classification_loss(logits[:, None], labels[:, None].int(), **OPTIONS[options])
    torch.testing.assert_close(of_ints, expected, **EXACT)


def test_one_number_may_have_labels_without_a_column() -> None:
    logits, labels = make_logits(7, 1), NUMBERS[:, 0]
    expected = nn.functional.mse_loss(logits[~labels.isnan(), 0], labels[~labels.isnan()])
    for given in (labels, labels[:, None]):
        torch.testing.assert_close(sequence_classification_loss(logits, given), expected, **EXACT)
    whole = torch.arange(7)
    expected = nn.functional.mse_loss(logits[:, 0], whole.double())
    torch.testing.assert_close(sequence_classification_loss(logits, whole), expected, **EXACT)


POSITIONS = torch.tensor([0, 8, 3, -100, 9, 5, 2]), torch.tensor([2, 8, -1, -100, 12, -100, 0])


@pytest.mark.parametrize("column", [False, True])
def test_an_answer_has_a_first_and_a_last_token(column: bool) -> None:
    """The mean of two cross-entropies; outside of the row there is no target."""
    logits = make_logits(2, 7, 9)
    start, end = (positions[:, None] if column else positions for positions in POSITIONS)
    loss = question_answering_loss(*logits, start, end)
    first = nn.functional.cross_entropy(logits[0, [0, 1, 2, 5, 6]], torch.tensor([0, 8, 3, 5, 2]))
    last = nn.functional.cross_entropy(logits[1, [0, 1, 6]], torch.tensor([2, 8, 0]))
    torch.testing.assert_close(loss, (first + last) / 2, **EXACT)
    counted = question_answering_loss(*logits, start, end, num_items_in_batch=torch.tensor(10))
    torch.testing.assert_close(counted, (5 * first + 3 * last) / 20, **EXACT)
    stock = ForQuestionAnsweringLoss(*logits[:, :3], torch.tensor([0, 9, 30]), torch.tensor([4, 8, 9]))
    ours = question_answering_loss(*logits[:, :3], torch.tensor([0, 9, 30]), torch.tensor([4, 8, 9]))
    torch.testing.assert_close(ours, stock, **EXACT)


def test_an_answer_in_padding_is_no_target() -> None:
    """Where the head has put the lowest number there is, so that the loss stays finite."""
    logits = make_logits(2, 7, 9).detach()
    logits[:, 1, 5:] = torch.finfo(torch.float64).min
    inside = question_answering_loss(*logits, torch.tensor([0, -100, 1, 2, 3, 4, 5]), torch.tensor([0] * 7))
    outside = question_answering_loss(*logits, torch.tensor([0, 5, 1, 2, 3, 4, 5]), torch.tensor([0] * 7))
    assert torch.equal(inside, outside) and inside.isfinite()


@pytest.mark.parametrize("items", [None, 0, torch.tensor(0), torch.tensor(0.0)], ids=["mean", "int", "tensor", "float"])
@pytest.mark.parametrize("kind", [*KINDS, "tokens", "answers"])
def test_no_target_is_a_loss_of_nothing(kind: str, items: Any) -> None:
    logits = make_logits(7, 4)
    if kind == "tokens":
        loss = token_classification_loss(logits, torch.full((7,), -100), items, class_weights=WEIGHTS)
    elif kind == "answers":
        loss = question_answering_loss(logits, logits, torch.full((7,), -100), torch.full((7,), 4), items)
    else:
        labels, problem_type = KINDS[kind]
        labels = torch.full_like(labels, float("nan") if kind == "numbers" else -100)
        loss = sequence_classification_loss(logits, labels, problem_type, items)
        assert count_targets(labels, problem_type) == 0
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", list(KINDS))
def test_half_precision_is_computed_in_float32(kind: str, dtype: torch.dtype) -> None:
    labels, problem_type = KINDS[kind]
    logits = make_logits(7, 4, dtype=dtype)
    options = {} if kind == "numbers" else {"class_weights": WEIGHTS, "label_smoothing": 0.1}
    loss = sequence_classification_loss(logits, labels, problem_type, **options)
    assert loss.dtype == torch.float32
    in_double = sequence_classification_loss(logits.double(), labels, problem_type, **options)
    torch.testing.assert_close(loss.double(), in_double, rtol=1e-6, atol=0)
    loss.backward()
    assert logits.grad.dtype == dtype and logits.grad.isfinite().all()
    start = question_answering_loss(logits, logits, torch.zeros(7).long(), torch.ones(7).long())
    assert start.dtype == torch.float32 and start.isfinite()


def test_the_problem_is_what_transformers_takes_it_for() -> None:
    assert find_problem_type(None, 1, CLASSES) == "regression"
    assert find_problem_type(None, 4, CLASSES) == "single_label_classification"
    assert find_problem_type(None, 4, CLASSES.int()) == "single_label_classification"
    assert find_problem_type(None, 4, MANY.float()) == "multi_label_classification"
    assert find_problem_type("regression", 4, CLASSES) == "regression"


def test_labels_of_several_at_once_may_be_whole_numbers() -> None:
    logits = make_logits(7, 4)
    given = sequence_classification_loss(logits, MANY, "multi_label_classification")
    torch.testing.assert_close(given, by_torch(logits, "many classes"), **EXACT)


def test_what_makes_no_sense_is_refused() -> None:
    logits = make_logits(7, 4)
    with pytest.raises(ValueError, match=r"Labels must be class numbers .*, not torch\.float64"):
        sequence_classification_loss(logits, CLASSES.double(), "single_label_classification")
    for options in (OPTIONS["weighted"], OPTIONS["smoothed"]):
        with pytest.raises(ValueError, match="A regression has no classes"):
            sequence_classification_loss(logits, NUMBERS, "regression", **options)
