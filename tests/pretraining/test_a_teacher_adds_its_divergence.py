"""The loss with a teacher: the written-out Kullback-Leibler divergence to rounding, gradients too, in little memory."""

from typing import Any

import pytest
import torch
from helpers.memory import LargestTensor
from helpers.models import make_model, make_role, random_ids, tiny_config
from torch import nn
from transformers import PreTrainedModel

from weft import WeftForConditionalGeneration, losses
from weft.losses import linear_cross_entropy, target_nats
from weft.recipes.pretraining.distillation.lesson import Lesson

ROWS, WIDTH, CLASSES = 23, 8, 31


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks, and a last one that is not full."""
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", {"cpu": 7 * CLASSES, "cuda": 7 * CLASSES})


def divergence(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    """temperature^2 KL(teacher || student) of each row, written out; over the classes that both have."""
    shared = min(teacher.shape[-1], student.shape[-1])
    teachers = torch.softmax(teacher[:, :shared] / temperature, -1)
    students = torch.softmax(student / temperature, -1)[:, :shared]
    return temperature**2 * (teachers * (teachers.log() - students.log())).sum(-1)


def draw(teacher_classes: int = CLASSES, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Hidden states, an output matrix with bias, targets of which some are none, and a teacher's logits."""
    hidden, linear = torch.randn(ROWS, WIDTH, dtype=dtype), nn.Linear(WIDTH, CLASSES, dtype=dtype)
    targets = torch.randint(0, CLASSES, (ROWS,)).masked_fill(torch.rand(ROWS) < 0.3, -100)
    return hidden.requires_grad_(), linear, targets, 3 * torch.randn(ROWS, teacher_classes, dtype=dtype)


@pytest.mark.parametrize("teacher_classes", [CLASSES, CLASSES - 4, CLASSES + 5])
@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}, {"z_loss": 0.1}, {"label_smoothing": 0.2, "z_loss": 0.1}])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_loss_and_gradients_are_those_of_the_formula(
    weight: float, temperature: float, options: dict[str, float], teacher_classes: int
) -> None:
    hidden, linear, targets, teacher = draw(teacher_classes)
    counts = torch.linspace(0.5, 3.0, ROWS, dtype=torch.float64)
    lesson = Lesson(lambda part: teacher[part], weight, temperature)
    given = {"loss_weights": counts, "num_items_in_batch": 19, **options}
    found, nats = linear_cross_entropy(hidden, linear, targets, **given, teach=lesson)

    logits, cap = linear(hidden), options.get("softcap")
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    cross_entropy = target_nats(logits, targets, label_smoothing=options.get("label_smoothing", 0.0))
    squares = options.get("z_loss", 0.0) * logits.logsumexp(-1) ** 2
    each = (1 - weight) * cross_entropy + weight * divergence(teacher, logits, temperature) + squares
    expected = (each * counts * (targets != -100)).sum() / 19
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    wanted = (hidden, linear.weight, linear.bias)
    for one, other in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14 * max(1.0, other.abs().max().item()))
    told = (cross_entropy + squares).masked_fill(targets == -100, 0)  # parts of the loss are told without the teacher
    torch.testing.assert_close(nats, told.detach(), rtol=1e-13, atol=0)


def test_a_weight_of_zero_changes_nothing_to_the_last_bit() -> None:
    hidden, linear, targets, teacher = draw(dtype=torch.float32)
    lesson, found = Lesson(lambda part: teacher[part], 0.0, 2.0), []
    for teach in (lesson, None):
        loss, _ = linear_cross_entropy(hidden, linear, targets, z_loss=1e-3, teach=teach)
        found.append((loss, *torch.autograd.grad(loss, (hidden, linear.weight, linear.bias))))
    assert all(torch.equal(one, other) for one, other in zip(*found))


def test_a_student_that_is_its_teacher_has_nothing_to_learn_of_it() -> None:
    hidden, linear, targets, _ = draw()
    lesson = Lesson(lambda part: linear(hidden[part]).detach(), 1.0, 1.0)
    loss, _ = linear_cross_entropy(hidden, linear, targets, teach=lesson)
    assert loss.abs() < 1e-14
    assert torch.autograd.grad(loss, hidden)[0].abs().max() < 1e-14


def test_logits_of_both_are_never_all_in_memory() -> None:
    hidden, linear, targets = torch.randn(500, 8, requires_grad=True), nn.Linear(8, 300), torch.randint(0, 300, (500,))
    states, matrix = torch.randn(500, 12), nn.Linear(12, 300).requires_grad_(False)
    with LargestTensor() as chunked:
        lesson = Lesson(lambda part: matrix(states[part]), 0.5, 2.0)
        linear_cross_entropy(hidden, linear, targets, teach=lesson)[0].backward()
    with LargestTensor() as whole:
        divergence(matrix(states), linear(hidden), 2.0).mean().backward()
    assert whole.numel == 500 * 300
    assert chunked.numel == 500 * 8  # the hidden states; maps have 300 * 12 at most, a chunk 1 * 300


IDS = random_ids(4, 13)
PLACES = (random_ids(4, 13, seed=1) < 20).flatten().nonzero()[:, 0]
INPUTS: dict[str, dict[str, Any]] = {
    "causal head": {"labels": IDS},
    "masked head, shifted": {"labels": IDS.flatten()[PLACES], "predict_from": PLACES},
    "encoder-decoder": {"labels": IDS},
}


def make(role: str, seed: int = 0) -> PreTrainedModel:
    """A tiny model in a role, with everything between its stack and its logits."""
    fields = {"lm_head_transform": True, "lm_head_bias": True, "final_logit_softcapping": 3.0, "lm_head_scale": 1.5}
    if role != "encoder-decoder":
        return make_role(role, seed=seed, **fields)
    fields |= {"is_encoder_decoder": True, "decoder_start_token_id": 1, "pad_token_id": 0}
    return make_model(tiny_config(**fields), model_class=WeftForConditionalGeneration, seed=seed)


def make_lesson(role: str, dtype: torch.dtype) -> Lesson:
    """Half of the loss is what another such model says."""
    with torch.no_grad():
        logits = make(role, seed=1).to(dtype)(input_ids=IDS, **INPUTS[role]).logits.flatten(0, -2)
    return Lesson(lambda part: logits[part], 0.5, 1.0)


def loss_and_gradients(model: PreTrainedModel, forward: Any = None, **inputs: Any) -> list[torch.Tensor]:
    model.zero_grad()
    loss = (model if forward is None else forward)(input_ids=IDS, return_logits=False, **inputs).loss
    loss.backward()
    return [loss.detach(), *(weight.grad for weight in model.parameters())]


@pytest.mark.parametrize("role", INPUTS)
@pytest.mark.parametrize("way", ["plain", "compiled", "checkpointed"])
def test_a_model_passes_it_on_compiled_and_with_checkpoints_of_activations(role: str, way: str) -> None:
    model, lesson = make(role).double().train(), make_lesson(role, torch.float64)
    logits = model(input_ids=IDS, **INPUTS[role]).logits.flatten(0, -2)
    targets = INPUTS[role]["labels"].flatten()
    if role == "causal head":
        targets = nn.functional.pad(IDS, (0, 1), value=-100)[:, 1:].flatten()
    is_target = targets != -100
    each = target_nats(logits, targets) + divergence(lesson.logits_of(slice(None)), logits, 1.0)
    expected = (each[is_target] / 2).mean()
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    if way == "checkpointed":
        model.gradient_checkpointing_enable()
    forward = torch.compile(model, backend="aot_eager") if way == "compiled" else None
    found = loss_and_gradients(model, forward, **INPUTS[role], teach=lesson)
    for one, other in zip(found, (expected, *gradients), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * max(1.0, other.abs().max().item()))


@pytest.mark.parametrize("role", INPUTS)
def test_half_precision_is_near_the_exact_loss(role: str) -> None:
    exact = loss_and_gradients(make(role).double(), **INPUTS[role], teach=make_lesson(role, torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_and_gradients(make(role), **INPUTS[role], teach=make_lesson(role, torch.float32))
        plain = loss_and_gradients(make(role), **INPUTS[role])
    assert found[0].dtype == torch.float32
    assert found[0] == pytest.approx(exact[0].item(), rel=1e-2) and plain[0] != found[0]
