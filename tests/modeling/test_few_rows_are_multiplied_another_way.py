"""A few rows are multiplied another way while a model writes: the same numbers, and nothing is left behind."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import make_model, random_ids, tiny_config
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import prune
from transformers import AutoModelForCausalLM

from weft import WeftForConditionalGeneration, products
from weft.modeling_weft import MODELS, WeftTextEncoder
from weft.products import LARGE_MATRIX, MANY_ROWS, multiply

needs_mkl = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="only MKL gains by it")
LARGE = (4 * LARGE_MATRIX // 4000, 1000)
OTHER_WAY = [((400, 300), rows) for rows in (1, 2, 8)] + [((403, 300), 1), ((200, 1024), 3), (LARGE, 1), (LARGE, 8)]
TWO_STACKS = (WeftForConditionalGeneration, WeftTextEncoder)
OTHER_WAY += [(LARGE, 33), (LARGE, MANY_ROWS)]
PLAIN = [((400, 300), 9), ((7, 20_000), 1), ((300, 300), 1), ((200, 1024), 4), (LARGE, MANY_ROWS + 1), ((400, 300), 0)]


def linear_of(shape: tuple[int, int], bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(shape[1], shape[0], bias=bias)


class Holder(nn.Module):
    """A module with one map."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return multiply(self.linear, states)


@pytest.fixture
def plain_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each product that nn.Linear itself computes."""
    rows, forward = [], nn.Linear.forward

    def count(self: nn.Linear, states: torch.Tensor) -> torch.Tensor:
        rows.append(states.numel() // self.in_features)
        return forward(self, states)

    monkeypatch.setattr(nn.Linear, "forward", count)
    return rows


@needs_mkl
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "rows"), OTHER_WAY)
def test_the_product_is_that_of_float64(shape, rows, bias, plain_calls):
    linear, states = linear_of(shape, bias), torch.randn(1, rows, shape[1])
    with torch.inference_mode():
        found = multiply(linear, states)
        expected = copy.deepcopy(linear).double()(states.double())
    assert plain_calls == [rows], "only float64 was to be computed by nn.Linear"
    assert found.shape == (1, rows, shape[0]) and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("shape", "rows"), PLAIN)
def test_other_shapes_are_left_to_pytorch(shape, rows, plain_calls):
    linear, states = linear_of(shape), torch.randn(rows, shape[1])
    with torch.no_grad():
        assert torch.equal(multiply(linear, states), nn.functional.linear(states, linear.weight, linear.bias))
    assert plain_calls == [rows]


@pytest.mark.parametrize("case", ["gradient", "half", "double", "autocast", "by column", "pruned", "traced"])
def test_everything_but_plain_float32_without_gradients_is_left_to_pytorch(case, plain_calls):
    linear, states = linear_of((400, 300)), torch.randn(1, 300)
    if case in ("half", "double"):
        dtype = torch.bfloat16 if case == "half" else torch.float64
        linear, states = linear.to(dtype), states.to(dtype)
    if case == "by column":
        linear.weight.data = linear.weight.data.t().contiguous().t()
    if case == "pruned":
        prune.l1_unstructured(linear, "weight", 0.5)
    with torch.set_grad_enabled(case == "gradient"), torch.autocast("cpu", enabled=case == "autocast"):
        holder = Holder(linear)
        module = torch.jit.trace(holder, states, check_trace=False) if case == "traced" else holder
        found, expected = module(states), nn.functional.linear(states, linear.weight, linear.bias)
    assert torch.equal(found, expected) and plain_calls == [1]


@needs_mkl
@pytest.mark.parametrize(("rows", "product"), [(1, "bmm"), (4, "@"), (9, "linear(")])
def test_a_compiled_graph_multiplies_few_rows_the_same_way(rows, product):
    """An exported one, which is for other processors too, does not."""
    linear, states, graphs = Holder(linear_of((400, 300))), torch.randn(rows, 300), []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph.code)
        return graph.forward

    with torch.no_grad():
        expected = linear(states)
        torch._dynamo.reset()
        found = torch.compile(linear, backend=keep, fullgraph=True)(states)
        exported = torch.export.export(linear, (states,)).module()
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    assert len(graphs) == 1 and product in graphs[0]
    assert "linear" in exported.code and "mm" not in exported.code


WATCHED: dict[str, Callable[[nn.Linear, Callable[..., None]], Any]] = {
    "hook": lambda linear, see: linear.register_forward_hook(see),
    "hook before": lambda linear, see: linear.register_forward_pre_hook(see),
    "hook of all modules": lambda _, see: register_module_forward_hook(see),
    "hook before all modules": lambda _, see: register_module_forward_pre_hook(see),
    "another forward": lambda linear, see: setattr(linear, "forward", see),
}


@pytest.mark.parametrize("kind", WATCHED)
def test_whoever_watches_a_map_sees_every_product(kind):
    linear, seen = linear_of((400, 300)), []
    handle = WATCHED[kind](linear, lambda *_: seen.append(1))
    with torch.no_grad():
        multiply(linear, torch.randn(1, 300))
    if handle is not None:
        handle.remove()
    assert seen == [1]


@pytest.mark.parametrize("model_class", MODELS, ids=lambda each: each.__name__)
def test_maps_are_of_the_plain_class_that_quantisers_look_for(model_class):
    """bitsandbytes, FP8 and GGUF in transformers pass over every other class without a word."""
    two = {"is_encoder_decoder": True, "decoder_start_token_id": 0} if model_class in TWO_STACKS else {}
    model = model_class(tiny_config(**two))
    maps = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert maps and {type(module) for module in maps} == {nn.Linear}


def test_writing_leaves_a_model_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights and how they are stored, what is saved, and the next step of training, to the last bit."""
    monkeypatch.setattr(products, "SMALL_MATRIX", 0)
    model = make_model(tiny_config(pad_token_id=0, tie_word_embeddings=True))
    untouched, ids = copy.deepcopy(model), random_ids(2, 9)
    before = {name: (value.clone(), value.stride(), value.data_ptr()) for name, value in model.state_dict().items()}
    written = model.generate(ids[:1], max_new_tokens=5, do_sample=False)
    for name, value in model.state_dict().items():
        values, strides, place = before[name]
        assert torch.equal(value, values) and value.stride() == strides and value.data_ptr() == place, name
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.generate(ids[:1], max_new_tokens=5, do_sample=False), written)
    for each in (model, untouched):
        each.train()(ids, labels=ids).loss.backward()
    for (name, parameter), other in zip(model.named_parameters(), untouched.parameters()):
        assert torch.equal(parameter.grad, other.grad), name


@needs_mkl
def test_a_model_writes_with_it(plain_calls, monkeypatch):
    """Every map of a step but those of a few outputs; no token changes by it."""
    monkeypatch.setattr(products, "SMALL_MATRIX", 0)
    model, ids = make_model(tiny_config(pad_token_id=0, vocab_size=301)), random_ids(1, 4)
    written = model.generate(ids, max_new_tokens=12, do_sample=False)
    assert plain_calls == []
    monkeypatch.setattr(products, "SMALL_MATRIX", sys.maxsize)
    assert torch.equal(model.generate(ids, max_new_tokens=12, do_sample=False), written)
    assert len(plain_calls) > 12
