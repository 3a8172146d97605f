"""Gates of attention heads (https://huggingface.co/papers/2505.06708) beside their formula."""

import pytest
import torch
from helpers.models import make_model, tiny_config

from weft.interop import InteropError, find_family
from weft.interop.convert import export_model

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("over", ["head", "element"])
def test_each_head_is_scaled_by_the_sigmoid_of_a_map_of_the_layers_input(over, backend, is_causal):
    options = {"position_embedding_type": "none", "qk_norm": False, "is_causal": True}
    config = tiny_config(attention_gate=True, attention_gate_over=over, **options)
    config._attn_implementation = backend
    attention = make_model(config).double().model.layers[0].self_attn
    heads, width, groups = config.num_attention_heads, config.head_dim, attention.num_key_value_groups
    states = torch.randn(2, 7, config.hidden_size, dtype=torch.float64)
    found, *_ = attention(states, is_causal=is_causal)

    query = attention.q_proj(states).view(2, 7, heads, width)
    key = attention.k_proj(states).view(2, 7, -1, width).repeat_interleave(groups, dim=2)
    value = attention.v_proj(states).view(2, 7, -1, width).repeat_interleave(groups, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / width**0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), value)
    gate = 1 / (1 + torch.exp(-states @ attention.head_gate.weight.T))
    gate = gate.view(2, 7, heads, width if over == "element" else 1)
    expected = (mixed * gate).flatten(2) @ attention.o_proj.weight.T
    torch.testing.assert_close(found, expected, **EXACT)


def test_gates_of_zero_weights_halve_every_head():
    gated, plain = (make_model(tiny_config(attention_gate=gated)).double().eval() for gated in (True, False))
    weights = gated.state_dict()
    for name in [name for name in weights if "head_gate" in name]:
        weights.pop(name).zero_()
    plain.load_state_dict(weights)
    with torch.no_grad():
        for layer in plain.model.layers:
            layer.self_attn.o_proj.weight /= 2
    ids = torch.randint(2, 60, (2, 9))
    torch.testing.assert_close(gated(ids).logits, plain(ids).logits, **EXACT)


def test_a_token_written_with_the_cache_is_the_same():
    model = make_model(tiny_config(attention_gate=True)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    ids = torch.randint(2, 60, (2, 9))
    first = model(ids[:, :5], use_cache=True)
    rest = model(ids[:, 5:], past_key_values=first.past_key_values, use_cache=True).logits
    torch.testing.assert_close(rest, model(ids).logits[:, 5:], **EXACT)


def test_no_stock_class_is_said_to_compute_them():
    model = make_model(tiny_config(attention_gate=True, qk_norm=True))
    with pytest.raises(InteropError, match=r"attention_gate=True \(it would be False\)"):
        export_model(model, find_family("qwen3"), "causal")
