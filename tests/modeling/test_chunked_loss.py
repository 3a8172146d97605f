"""The loss without logits: that of the logits to rounding, gradients too, and they are never all in memory."""

from typing import Any

import pytest
import torch
from helpers.memory import LargestTensor
from helpers.models import make_model, make_role, random_ids, tiny_config
from torch import nn
from transformers import PreTrainedModel

from weft import WeftForConditionalGeneration, losses
from weft.losses import linear_cross_entropy, target_nats

IDS = random_ids(4, 13)
LABELS = IDS.masked_fill(random_ids(4, 13, seed=1) < 20, -100)
PLACES = (LABELS.flatten() >= 0).nonzero()[:, 0]
TARGETS = LABELS.flatten()[PLACES]
WEIGHTS = torch.linspace(0.5, 3.0, len(PLACES))
INPUTS: dict[str, dict[str, Any]] = {
    "causal head": {"labels": LABELS},
    "masked head": {"labels": LABELS},
    "masked head, shifted": {"labels": TARGETS, "predict_from": PLACES, "loss_weights": WEIGHTS},
    "pretraining head": {"labels": LABELS, "next_sentence_label": torch.tensor([0, 1, 1, -100])},
    "encoder-decoder": {"labels": LABELS},
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_items_in_batch": 77},
    {"z_loss": 1e-2},
    {"label_smoothing": 0.1, "num_items_in_batch": torch.tensor(19)},
]


def make(role: str, **changes: Any) -> PreTrainedModel:
    """A tiny model in one of the roles of `helpers.models`, or an encoder-decoder."""
    if role != "encoder-decoder":
        return make_role(role, **changes)
    fields = {"is_encoder_decoder": True, "decoder_start_token_id": 1, "pad_token_id": 0}
    return make_model(tiny_config(**fields, **changes), model_class=WeftForConditionalGeneration)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks, and a last one that is not full."""
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", {"cpu": 7 * 64, "cuda": 7 * 64})


def loss_and_gradients(model: PreTrainedModel, **inputs: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_close(found: tuple[torch.Tensor, dict], expected: tuple[torch.Tensor, dict], tolerance: float) -> None:
    assert found[1].keys() == expected[1].keys()
    for one, other in ((found[0], expected[0]), *((found[1][name], expected[1][name]) for name in expected[1])):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(1.0, other.abs().max().item()))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options) or "plain")
@pytest.mark.parametrize("shape", [{}, {"final_logit_softcapping": 2.0, "lm_head_scale": 3.0}], ids=["plain", "capped"])
@pytest.mark.parametrize(
    "head", [{}, {"lm_head_bias": True, "lm_head_transform": True}, {"tie_word_embeddings": False}]
)
@pytest.mark.parametrize("role", INPUTS)
def test_loss_and_gradients_are_those_of_the_logits(role: str, head: dict, shape: dict, options: dict) -> None:
    model = make(role, **head, **shape).double()
    inputs = {"input_ids": IDS, **INPUTS[role], **options}
    chunked = loss_and_gradients(model, **inputs, return_logits=False)
    assert_close(chunked, loss_and_gradients(model, **inputs), 1e-13)


def test_the_cross_entropy_of_each_target_is_told_as_well() -> None:
    model = make("masked head, shifted").double()
    inputs = {"input_ids": IDS, **INPUTS["masked head, shifted"]}
    with torch.no_grad():
        found, expected = (model(**inputs, return_logits=choice).target_nats for choice in (False, True))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("role", ["causal head", "masked head, shifted", "encoder-decoder"])
def test_the_model_returns_logits_unless_it_is_told_not_to(role: str) -> None:
    model, inputs = make(role), {"input_ids": IDS, **INPUTS[role]}
    assert model(**inputs).logits is not None
    assert model(**inputs, return_logits=False).logits is None
    assert (
        model(input_ids=IDS, return_logits=False).logits is not None
    )  # without labels there is nothing else to return


def test_logits_are_never_all_in_memory() -> None:
    hidden, linear = torch.randn(500, 8, requires_grad=True), nn.Linear(8, 300)
    targets = torch.randint(0, 300, (500,))
    with LargestTensor() as chunked:
        linear_cross_entropy(hidden, linear, targets)[0].backward()
    with LargestTensor() as whole:
        target_nats(linear(hidden), targets).mean().backward()
    assert whole.numel == 500 * 300
    assert chunked.numel == 500 * 8  # the hidden states; the map has 300 * 8, a chunk 1 * 300


@pytest.mark.parametrize("trained", ["hidden", "linear"])
def test_what_is_frozen_gets_no_gradient(trained: str) -> None:
    hidden, linear = torch.randn(20, 8, dtype=torch.float64), nn.Linear(8, 30).double()
    targets = torch.randint(0, 30, (20,))
    hidden.requires_grad_(trained == "hidden")
    linear.requires_grad_(trained == "linear")
    linear_cross_entropy(hidden, linear, targets)[0].backward()
    found = [one.grad for one in (hidden, linear.weight, linear.bias)]
    for one in (hidden, linear.weight, linear.bias):
        one.grad = None
    target_nats(linear(hidden), targets).mean().backward()
    for one, tensor in zip(found, (hidden, linear.weight, linear.bias)):
        assert (one is None) == (tensor.grad is None)
        if one is not None:
            torch.testing.assert_close(one, tensor.grad, rtol=0, atol=1e-14)


def test_far_outliers_are_exact() -> None:
    """A target whose probability is 0 in float32, and logits that overflow where they are exponentiated."""
    hidden, linear = torch.tensor([[300.0], [-300.0]]), nn.Linear(1, 3, bias=False)
    linear.weight.data = torch.tensor([[1.0], [0.0], [-1.0]])
    loss, nats = linear_cross_entropy(hidden, linear, torch.tensor([2, 1]))
    assert nats.tolist() == [600.0, 300.0] and loss.item() == 450.0


def test_far_outliers_among_others_are_those_of_the_logits() -> None:
    """With bias, cap and weights in float32, targets of probability 0 beside likely ones, forward and backward."""
    torch.manual_seed(0)
    hidden, linear, targets = 20 * torch.randn(30, 8), nn.Linear(8, 40), torch.randint(0, 40, (30,))
    linear.weight.data *= 10
    targets[::2] = linear(hidden).argmax(-1)[::2]
    logits = 400 * torch.tanh(linear(hidden.requires_grad_()) / 400)
    assert 3 < (logits.softmax(-1).gather(-1, targets[:, None]) == 0).sum() < 15
    weights, found = torch.linspace(0.5, 2, 30), []
    for whole in (True, False):
        options = {"loss_weights": weights, "num_items_in_batch": 30}
        chunked = None if whole else linear_cross_entropy(hidden, linear, targets, softcap=400.0, **options)[0]
        loss = losses.masked_lm_loss(logits, targets, 40, **options) if chunked is None else chunked
        found.append((loss, *torch.autograd.grad(loss, (hidden, linear.weight, linear.bias))))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True], ids=["weights", "autocast"])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype, autocast: bool) -> None:
    """As far from float64 as the loss of the logits is, or nearer; with loss scaling, as float16 needs it."""
    torch.manual_seed(0)
    hidden, linear, targets = torch.randn(200, 16), nn.Linear(16, 500), torch.randint(0, 500, (200,))
    exact = [one.double().detach().requires_grad_() for one in (hidden, linear.weight, linear.bias)]
    target_nats(nn.functional.linear(*exact), targets).mean().backward()
    errors = {}
    for name in ("chunked", "whole"):
        inputs, layer = hidden.clone(), nn.Linear(16, 500)
        layer.load_state_dict(linear.state_dict())
        if not autocast:
            inputs, layer = inputs.to(dtype), layer.to(dtype)
        inputs.requires_grad_()
        with torch.autocast("cpu", dtype, enabled=autocast):
            loss = linear_cross_entropy(inputs, layer, targets)[0] if name == "chunked" else None
            loss = target_nats(layer(inputs), targets).mean() if loss is None else loss
        (loss * 1024).backward()
        assert loss.dtype == torch.float32
        errors[name] = [
            (one.grad.double() / 1024 - other.grad).norm() / other.grad.norm()
            for one, other in zip((inputs, layer.weight, layer.bias), exact)
        ]
        assert [one.grad.dtype for one in (inputs, layer.weight)] == [inputs.dtype, layer.weight.dtype]
    for chunked, whole in zip(errors["chunked"], errors["whole"]):
        assert chunked < max(1.5 * whole, 2e-3)


def test_a_second_backward_pass_is_refused() -> None:
    hidden, linear = torch.randn(20, 8), nn.Linear(8, 30)
    loss, _ = linear_cross_entropy(hidden, linear, torch.randint(0, 30, (20,)))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="no second backward pass: ask for logits"):
        loss.backward()


@pytest.mark.parametrize("rows", [0, 5])
def test_without_any_target_the_loss_and_its_gradients_are_zero(rows: int) -> None:
    hidden, linear = torch.randn(rows, 8, requires_grad=True), nn.Linear(8, 30)
    loss, nats = linear_cross_entropy(hidden, linear, torch.full((rows,), -100))
    loss.backward()
    assert loss.item() == 0 and not nats.any() and not hidden.grad.any() and not linear.weight.grad.any()


def test_a_head_that_is_no_plain_linear_map_is_refused() -> None:
    model = make("causal head")
    model.lm_head = nn.Sequential(model.lm_head)
    with pytest.raises(ValueError, match="return_logits=False cannot see into Sequential: leave it True"):
        model(IDS, labels=IDS, return_logits=False)


def test_it_compiles_as_one_graph() -> None:
    model = make("causal head").double()
    expected = loss_and_gradients(model, input_ids=IDS, labels=LABELS)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    model.zero_grad()
    loss = compiled(input_ids=IDS, labels=LABELS, return_logits=False).loss
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert_close((loss.detach(), gradients), expected, 1e-13)
