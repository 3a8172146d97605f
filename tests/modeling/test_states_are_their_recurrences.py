"""Gated DeltaNet and recurrent networks compute what their formulas, written out token by token, say."""

import types
from typing import Any

import pytest
import torch
from helpers.models import shake, tiny_config
from helpers.stock import LiftFloat32
from torch import nn
from transformers.models.olmo_hybrid.modeling_olmo_hybrid import OlmoHybridGatedDeltaNet
from transformers.models.qwen3_next import modeling_qwen3_next

from weft import WeftForCausalLM, linear_attention
from weft.linear_attention import WeftLinearAttention, gated_delta_rule
from weft.recurrent import CELLS, WeftCell, WeftRecurrent
from weft.sequences import Sequences, find_sequences

EXACT = {"rtol": 1e-11, "atol": 1e-12}
LINEAR, RECURRENT = "linear_attention", "recurrent"
TOKENS = 21


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row has several chunks, the last of which is not full."""
    monkeypatch.setattr(linear_attention, "CHUNK", 8)


def inputs_of_rule(tokens: int = TOKENS, batch: int = 2, heads: int = 3) -> list[torch.Tensor]:
    """Queries, keys, values, decays and betas as a layer makes them."""
    query, key = torch.randn(2, batch, tokens, heads, 4, dtype=torch.float64)
    value = torch.randn(batch, tokens, heads, 6, dtype=torch.float64)
    decay = -torch.rand(batch, tokens, heads, dtype=torch.float64).square() * 3
    return [query, key, value, decay, 2 * torch.rand(batch, tokens, heads, dtype=torch.float64)]


def rule_slowly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor | None = None,
    documents: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The recurrence, one row, head and token after the other."""
    batch, tokens, heads, width = key.shape
    mixed, last = torch.zeros_like(value), torch.zeros(batch, heads, width, value.shape[-1], dtype=value.dtype)
    for row in range(batch):
        for head in range(heads):
            kept = torch.zeros(width, value.shape[-1], dtype=value.dtype) if state is None else state[row, head]
            for token in range(tokens):
                if documents is not None and token and documents[row, token] != documents[row, token - 1]:
                    kept = torch.zeros_like(kept)
                q, k, v = (each[row, token, head] for each in (query, key, value))
                q, k = (each / (each.square().sum() + 1e-6).sqrt() for each in (q, k))
                kept = kept * decay[row, token, head].exp()
                kept = kept + beta[row, token, head] * torch.outer(k, v - k @ kept)
                mixed[row, token, head] = q @ kept / width**0.5
            last[row, head] = kept
    return mixed, last


def test_chunks_are_the_recurrence_and_so_are_its_gradients() -> None:
    torch.manual_seed(0)
    direction = torch.randn(2, TOKENS, 3, 6, dtype=torch.float64)
    for documents in (None, torch.tensor([[0] * 3 + [1] * 9 + [2] * 9, [0] * 8 + [1] * 8 + [2] * 5])):
        given, gradients = [each.requires_grad_() for each in inputs_of_rule()], []
        for compute in (rule_slowly, gated_delta_rule):
            mixed, state = compute(
                *given, documents=documents, **({} if compute is rule_slowly else {"needs_state": True})
            )
            gradients.append([mixed, state, *torch.autograd.grad((mixed * direction).sum() + state.sin().sum(), given)])
        for one, other in zip(*gradients):
            torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("parts", [(TOKENS,), (5, 1, 9, 6), (1,) * TOKENS])
def test_a_state_is_handed_on(parts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    given, state, mixed = inputs_of_rule(), None, []
    for part in zip(*(each.split(parts, dim=1) for each in given)):
        one, state = gated_delta_rule(*part, state=state, needs_state=True)
        mixed.append(one)
    expected, last = rule_slowly(*given)
    torch.testing.assert_close(torch.cat(mixed, dim=1), expected, **EXACT)
    torch.testing.assert_close(state, last, **EXACT)


def test_the_rule_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    query, key, value, decay, beta = inputs_of_rule(tokens=70)
    state = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    options = {"initial_state": state, "output_final_state": True, "use_qk_l2norm_in_kernel": True}
    found = gated_delta_rule(query, key, value, decay, beta, state=state, needs_state=True)
    for name in ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"):
        with LiftFloat32():
            expected = getattr(modeling_qwen3_next, name)(query, key, value, g=decay, beta=beta, **options)
        for one, other in zip(found, expected):
            torch.testing.assert_close(one, other, **EXACT)


def layer_of(layer_type: str, **changes: Any) -> nn.Module:
    config = tiny_config(layer_types=[layer_type] * 2, linear_num_key_heads=2, linear_num_value_heads=4, **changes)
    made = {LINEAR: WeftLinearAttention, RECURRENT: WeftRecurrent}[layer_type](config, 0)
    return shake(made, std=0.5).double()


def linear_slowly(layer: WeftLinearAttention, states: torch.Tensor) -> torch.Tensor:
    """A layer with two key heads and four value heads, one row [tokens, width] after the other, from the front."""
    parts = torch.cat([each(states) for each in (layer.q_proj, layer.k_proj, layer.v_proj)], dim=-1)
    sums = torch.zeros_like(parts)
    for token in range(len(states)):
        for lag in range(min(4, token + 1)):
            sums[token] += layer.conv1d.weight[:, 0, 3 - lag] * parts[token - lag]
    query, key, value = nn.functional.silu(sums).split(layer.widths, dim=-1)
    query, key = (each.view(-1, 2, 1, 8).expand(-1, -1, 2, -1).reshape(-1, 4, 8) for each in (query, key))
    decay = -layer.A_log.exp() * nn.functional.softplus(layer.a_proj(states) + layer.dt_bias)
    beta = layer.b_proj(states).sigmoid() * layer.largest_beta
    return rule_slowly(*(each[None] for each in (query, key, value.view(-1, 4, 16), decay, beta)))[0][0]


@pytest.mark.parametrize("strong", [False, True])
def test_linear_attention_is_written_out(strong: bool) -> None:
    """From both ends: half of the heads read the row turned round."""
    torch.manual_seed(0)
    rows = torch.randn(2, 9, 32, dtype=torch.float64)
    causal = layer_of(LINEAR, linear_allow_neg_eigval=strong)
    both = layer_of(LINEAR, linear_allow_neg_eigval=strong, is_causal=False)
    for layer in (causal, both):
        ahead = torch.stack([linear_slowly(layer, row) for row in rows])
        back = torch.stack([linear_slowly(layer, row.flip(0)).flip(0) for row in rows])
        heads = ahead if layer is causal else torch.cat((ahead[:, :, :2], back[:, :, 2:]), dim=2)
        normed = heads * torch.rsqrt(heads.square().mean(-1, keepdim=True) + 1e-6) * layer.norm.weight
        gate = nn.functional.silu(layer.g_proj(rows)).view_as(heads)
        torch.testing.assert_close(layer(rows)[0], layer.o_proj((normed * gate).flatten(2)), **EXACT)


def test_it_is_the_layer_of_olmo_hybrid() -> None:
    torch.manual_seed(0)
    layer, names = (
        layer_of(LINEAR, linear_allow_neg_eigval=True, linear_norm_eps=1e-5),
        {"norm.weight": "o_norm.weight"},
    )
    fields = {name: getattr(tiny_config(), name) for name in ("hidden_size", "hidden_act", "initializer_range")}
    heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8}
    bounds = {"linear_a_log_min": 0.1, "linear_a_log_max": 16.0, "linear_dt_min": 0.001, "linear_dt_max": 0.1}
    bounds |= {"linear_dt_init_floor": 1e-4, "linear_allow_neg_eigval": True, "rms_norm_eps": 1e-6}
    options = {"linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "layer_types": [LINEAR]}
    stock = OlmoHybridGatedDeltaNet(types.SimpleNamespace(**fields, **heads, **bounds, **options), 0).double()
    stock.load_state_dict({names.get(name, name): each for name, each in layer.state_dict().items()})
    rows = torch.randn(2, 9, 32, dtype=torch.float64)
    with LiftFloat32():
        expected = stock(rows)
    torch.testing.assert_close(layer(rows)[0], expected, **EXACT)


def step_slowly(kind: str, row: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """All outputs of a row [tokens, width] from the front."""
    of_input, of_state, bias, other_bias = weights
    width = of_state.shape[1]
    hidden = cell = torch.zeros(width, dtype=row.dtype)
    outputs = []
    for token in row:
        given, known = of_input @ token + bias, of_state @ hidden + other_bias
        if kind == "lstm":
            write, keep, new, show = (given + known).view(4, width)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(write) * torch.tanh(new)
            hidden = torch.sigmoid(show) * torch.tanh(cell)
        elif kind == "gru":
            reset, keep = torch.sigmoid((given + known)[: 2 * width]).view(2, width)
            new = torch.tanh(given[2 * width :] + reset * known[2 * width :])
            hidden = (1 - keep) * new + keep * hidden
        else:
            hidden = torch.tanh(given + known)
        outputs.append(hidden)
    return torch.stack(outputs)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_recurrent_networks_are_written_out_and_pytorchs_own(kind: str, is_causal: bool) -> None:
    torch.manual_seed(0)
    layer = layer_of(RECURRENT, recurrent_cell=kind, is_causal=is_causal, recurrent_hidden_size=10)
    rows, weights = torch.randn(2, 7, 32, dtype=torch.float64), list(layer.rnn.parameters())
    ends = [torch.stack([step_slowly(kind, row, weights[:4]) for row in rows])]
    if not is_causal:
        ends.append(torch.stack([step_slowly(kind, row.flip(0), weights[4:]).flip(0) for row in rows]))
    mixed = torch.cat(ends, dim=-1)
    torch.testing.assert_close(layer(rows)[0], layer.o_proj(mixed), **EXACT)
    own = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
    module = own(32, 10 if is_causal else 5, batch_first=True, bidirectional=not is_causal).double()
    module.load_state_dict(layer.rnn.state_dict())
    torch.testing.assert_close(module(rows)[0], mixed, **EXACT)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_a_compiled_graph_takes_the_same_steps(kind: str, both: bool) -> None:
    """With padding anywhere, or documents; the states behind the last token are the same too."""
    torch.manual_seed(0)
    cell = shake(WeftCell(kind, 6, 5, both), std=0.5).double()
    rows, before = torch.randn(3, 8, 6, dtype=torch.float64), list(torch.randn(2, 3, 5, dtype=torch.float64))
    mask = torch.tensor([[0, 0, 1, 1, 0, 1, 1, 0], [1] * 8, [0] * 8])
    documents = torch.tensor([[0, 0, 1, 1, 1, -1, 2, 2], [0] * 8, [-1] * 8])
    for given, states in ((None, None), (mask, before[: cell.states]), (documents >= 0, None)):
        ids = documents if given is not None and states is None else None
        told = find_sequences(rows, given, ids, is_packed=True) or Sequences()
        cases = [cell(rows, states, told)]
        start = states or [torch.zeros(3, 5, dtype=torch.float64)] * cell.states
        cases.append(cell._unrolled(rows, list(cell.parameters()), start, told))
        seen = torch.ones(3, 8, dtype=torch.bool) if given is None else given.bool()
        torch.testing.assert_close(cases[0][0][seen], cases[1][0][seen], **EXACT)
        if not both:
            for one, other in zip(cases[0][1], cases[1][1]):
                torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("documents", [None, torch.tensor([[0] * 5 + [1] * 7, [0] * 12])])
def test_kernels_of_flash_linear_attention_are_called_as_they_want(
    documents: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with their convention: one row and where its parts end, or a batch of whole rows."""
    calls = []

    def compute(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        g: torch.Tensor,
        beta: torch.Tensor,
        initial_state: torch.Tensor | None = None,
        output_final_state: bool = False,
        use_qk_l2norm_in_kernel: bool = False,
        cu_seqlens: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        assert use_qk_l2norm_in_kernel and all(each.is_contiguous() for each in (q, k, v, g, beta))
        calls.append(cu_seqlens)
        rows = [each.float() for each in (q, k, v, g, beta)]
        if cu_seqlens is None:
            mixed, state = rule_slowly(*rows, state=initial_state)
        else:
            assert len(q) == 1 and cu_seqlens.dtype == torch.long
            ids = torch.bucketize(torch.arange(q.shape[1]), cu_seqlens[1:], right=True)[None]
            mixed, state = rule_slowly(*rows, documents=ids)
        return mixed.to(v.dtype), state if output_final_state else None

    torch.manual_seed(0)
    given = [each.to(torch.bfloat16 if index < 3 else torch.float32) for index, each in enumerate(inputs_of_rule(12))]
    expected, _ = gated_delta_rule(*given, documents=documents)
    kernels = types.SimpleNamespace(chunk_gated_delta_rule=compute, fused_recurrent_gated_delta_rule=compute)
    monkeypatch.setattr(linear_attention, "find_kernels", lambda device: kernels)
    found, state = gated_delta_rule(*given, documents=documents)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    assert state is None and len(calls) == 1
    assert calls[0] is None if documents is None else calls[0].tolist() == [0, 5, 12, 24]
    first, state = gated_delta_rule(*(each[:, :11] for each in given), needs_state=True)
    with torch.no_grad():
        last, _ = gated_delta_rule(*(each[:, 11:] for each in given), state=state, needs_state=True)
    whole, _ = gated_delta_rule(*given)
    torch.testing.assert_close(torch.cat((first, last), dim=1), whole, rtol=0.02, atol=0.02)
    gated_delta_rule(*(each.float() for each in given), documents=documents)  # for half precision alone
    assert len(calls) == 4


def test_initial_weights_are_those_of_the_papers() -> None:
    """Decays per step between exp(-16 x 0.1) and nearly 1, forget gates that are open, small maps to the stream."""
    config = tiny_config(hidden_size=256, num_attention_heads=64, layer_types=[LINEAR, RECURRENT], head_dim=4)
    torch.manual_seed(0)
    first, second = (layer for layer in WeftForCausalLM(config).model.layers)
    linear, cell = first.linear_attn, second.recurrent.rnn
    step = nn.functional.softplus(linear.dt_bias)
    assert 1e-3 < step.min() < 5e-3 and 0.05 < step.max() < 0.1 + 1e-6
    assert 1e-3 <= linear.A_log.exp().min() < 2 and 14 < linear.A_log.exp().max() <= 16
    assert (linear.norm.weight == 1).all()
    assert cell.weight_hh_l0.abs().max() <= 1 / 16 and cell.weight_hh_l0.std() > 0.03
    assert (cell.bias_ih_l0.view(4, 256)[1] == 1).all() and cell.bias_ih_l0.sum() == 256
    assert (cell.bias_hh_l0 == 0).all()
    assert linear.o_proj.weight.std() < 0.6 * linear.v_proj.weight.std()
