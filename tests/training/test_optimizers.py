"""Muon: the right step for the right matrices, AdamW for the rest, and one state that is saved and goes on."""

import copy
from typing import Any

import pytest
import torch
from helpers.models import make_model, make_role, random_ids, tiny_config
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import PreTrainedModel

from weft import WeftForConditionalGeneration
from weft.recipes.training import optimizers
from weft.recipes.training.optimizers import MuonWithAdamW, make_optimizer, orthogonalise


def decayed(model: nn.Module) -> list[str]:
    """Matrices that are no embeddings, as the recipes decay them."""
    return [name for name, one in model.named_parameters() if one.ndim == 2 and "embed" not in name]


def make(model: nn.Module, **changes: Any) -> MuonWithAdamW:
    fields = {"kind": "muon", "learning_rate": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.95), **changes}
    return make_optimizer(model, decayed(model), **fields)


def backward(model: PreTrainedModel, seed: int) -> None:
    ids = random_ids(2, 9, seed=seed)
    model(input_ids=ids, labels=ids).loss.backward()


@pytest.mark.parametrize("shape", [(8, 8), (40, 7), (7, 40), (3, 5, 16)])
def test_singular_values_become_alike_and_singular_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, dtype=torch.float64)
    found = orthogonalise(matrices, torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ found @ right.mT
    diagonal = inside.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(inside, torch.diag_embed(diagonal), rtol=0, atol=1e-12)
    largest = values.amax(-1, keepdim=True)
    large = values > 0.05 * largest
    assert ((diagonal > 0.6) & (diagonal < 1.25))[large].all()


def test_the_step_is_that_of_pytorch() -> None:
    """torch.optim.Muon computes in bfloat16, so this does too, for once."""
    muon = pytest.importorskip("torch.optim._muon", reason="this PyTorch has no Muon")
    torch.manual_seed(0)
    ours = nn.ParameterList([nn.Parameter(torch.randn(12, 20)), nn.Parameter(torch.randn(20, 12))])
    theirs = copy.deepcopy(ours)
    group = {"params": list(ours), "is_muon": True, "is_cautious": False, "weight_decay": 0.1}
    optimizer = MuonWithAdamW([group], lr=0.05)
    reference = muon.Muon(list(theirs), lr=0.05, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "iteration_dtype", lambda weight: torch.bfloat16)
        for _ in range(4):
            for one, other in zip(ours, theirs):
                one.grad = torch.randn_like(one)
                other.grad = one.grad.clone()
            optimizer.step()
            reference.step()
    for one, other in zip(ours, theirs):  # bfloat16 has 8 bits, and the products are summed in another order
        torch.testing.assert_close(one.data, other.data, rtol=0, atol=4 * 0.05 * 0.2 * 20**0.5 * 0.02)


def test_what_is_no_matrix_of_a_layer_is_trained_by_adamw() -> None:
    model = make_role("causal head", qk_norm=True)
    reference = copy.deepcopy(model)
    names = [name for name, one in model.named_parameters() if one.ndim == 1 or "embed" in name]
    optimizer = make(model)
    decays = set(decayed(reference))
    theirs = torch.optim.AdamW(
        [
            {"params": [one], "weight_decay": 0.1 if name in decays else 0.0}
            for name, one in reference.named_parameters()
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    for step in range(3):
        for each, one in ((model, optimizer), (reference, theirs)):
            one.zero_grad()
            for name, parameter in each.named_parameters():
                draw = torch.Generator().manual_seed(100 * step + len(name))
                parameter.grad = torch.randn(parameter.shape, generator=draw)
            one.step()
    found, expected = dict(model.named_parameters()), dict(reference.named_parameters())
    assert names
    for name, parameter in expected.items():
        is_same = torch.allclose(found[name], parameter, rtol=0, atol=1e-6)
        assert is_same == (name in names), name


@pytest.mark.parametrize("role", ["causal head", "pretraining head", "encoder-decoder"])
def test_muon_trains_the_matrices_of_all_layers_and_nothing_else(role: str) -> None:
    if role == "encoder-decoder":
        fields = {"is_encoder_decoder": True, "decoder_start_token_id": 1, "tie_word_embeddings": False}
        model = make_model(tiny_config(**fields), model_class=WeftForConditionalGeneration)
    else:
        model = make_role(role, tie_word_embeddings=False)
    optimizer = make(model)
    by_identity = {id(one): name for name, one in model.named_parameters()}
    found = {by_identity[id(one)] for group in optimizer.param_groups if group["is_muon"] for one in group["params"]}
    assert found == {name for name in by_identity.values() if ".layers." in name and "_proj.weight" in name}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(by_identity)


def test_matrices_of_gates_are_orthogonalised_one_by_one() -> None:
    """And convolutions, decay rates and biases are AdamW's."""
    types = {"layer_types": ["linear_attention", "recurrent"], "num_hidden_layers": 2}
    model, twin = (make_model(tiny_config(**types)) for _ in range(2))
    optimizer = make(model)
    names = {id(one): name.split("layers.")[-1] for name, one in model.named_parameters()}
    taken = {
        names[id(one)]: group["stacked"]
        for group in optimizer.param_groups
        if group["is_muon"]
        for one in group["params"]
    }
    cells = {f"1.recurrent.rnn.weight_{kind}_l0": 4 for kind in ("ih", "hh")}
    maps = {f"0.linear_attn.{kind}_proj.weight": 1 for kind in "qkvgbao"} | {"1.recurrent.o_proj.weight": 1}
    maps |= {f"{layer}.mlp.{kind}_proj.weight": 1 for layer in range(2) for kind in ("gate", "up", "down")}
    assert taken == cells | maps
    cell, other = (each.model.layers[1].recurrent.rnn for each in (model, twin))
    slope = torch.randn_like(cell.weight_hh_l0)
    cell.weight_hh_l0.grad = slope
    optimizer.step()
    for gate in range(4):
        rows = slice(32 * gate, 32 * gate + 32)
        alone = nn.Module()
        alone.layers = nn.ModuleList([nn.Linear(32, 32, bias=False)])
        with torch.no_grad():
            alone.layers[0].weight.copy_(other.weight_hh_l0[rows])
        alone.layers[0].weight.grad = slope[rows].clone()
        make(alone).step()
        torch.testing.assert_close(alone.layers[0].weight, cell.weight_hh_l0[rows], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_cautious_decay_shrinks_what_moves_towards_zero_and_nothing_else(kind: str) -> None:
    """Against the same step without decay, which the decay is added to."""
    model = make_role("causal head", tie_word_embeddings=False)
    start, plain = copy.deepcopy(model), copy.deepcopy(model)
    names = set(decayed(model))
    pair = ((model, {"weight_decay": 0.5, "is_cautious": True}), (plain, {"weight_decay": 0.0}))
    for each, fields in pair:
        optimizer = make(each, kind=kind, **fields)
        backward(each, 0)
        optimizer.step()
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, fields["weight_decay"]}
    shrunk = 0
    for (name, old), one, other in zip(start.named_parameters(), model.parameters(), plain.parameters()):
        decays = (old * (old - other) >= 0) if name in names else torch.zeros_like(old, dtype=torch.bool)
        shrunk += int(decays.sum())
        torch.testing.assert_close(one, other - 1e-2 * 0.5 * old.where(decays, 0), rtol=0, atol=1e-7)
    assert 0 < shrunk < sum(old.numel() for name, old in start.named_parameters() if name in names)


def test_its_state_is_saved_and_goes_on_bit_for_bit() -> None:
    whole = make_role("causal head")
    first = copy.deepcopy(whole)
    optimizer = make(whole)
    for step in range(6):
        optimizer.zero_grad()
        backward(whole, step)
        optimizer.step()
    before = make(first)
    for step in range(3):
        before.zero_grad()
        backward(first, step)
        before.step()
    second = copy.deepcopy(first)
    after = make(second, learning_rate=1.0)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for step in range(3, 6):
        after.zero_grad()
        backward(second, step)
        after.step()
    for (name, one), other in zip(second.named_parameters(), whole.parameters()):
        assert torch.equal(one, other), name


def test_a_schedule_moves_both_kinds_of_step() -> None:
    model = make_role("causal head")
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = copy.deepcopy(model.state_dict())
    backward(model, 0)
    optimizer.step()
    schedule.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_sharded_matrices_are_refused() -> None:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        weight = nn.Parameter(distribute_tensor(torch.randn(4, 4), mesh, [Shard(0)]))
        weight.grad = torch.ones_like(weight)
        optimizer = MuonWithAdamW(
            [{"params": [weight], "is_muon": True, "is_cautious": False, "weight_decay": 0.0}], lr=0.1
        )
        with pytest.raises(ValueError, match="Muon needs whole matrices, not a DTensor: give optimizer adamw"):
            optimizer.step()
    finally:
        torch.distributed.destroy_process_group()
