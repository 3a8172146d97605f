"""Models divided over two processes as transformers does it, by heads or by layers, compute what one process does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.launched import run_together
from helpers.models import make_model, tiny_config
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.distributed import DistributedConfig

from weft import WeftForCausalLM, WeftForSequenceClassification
from weft.layers import WeftLayer

NEAR = {"rtol": 1e-9, "atol": 1e-11}
# What new models of the recipes have, and what a stock Qwen3 has.
KINDS = {"new": {"attention_gate": True, "value_residual": True}, "plain": {}}
BATCH = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))


def numbers(model: WeftForCausalLM) -> dict[str, torch.Tensor]:
    """Logits, and the whole gradient of each weight."""
    output = model(BATCH, labels=BATCH)
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    gradients = {name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in gradients.items()}
    return {"logits": output.logits.detach(), **gradients}


def load(folder: Path, **how: Any) -> WeftForCausalLM:
    """The part of the model that is this process's."""
    torch.distributed.init_process_group("gloo")
    options = {"distributed_config": DistributedConfig(**how), "dtype": torch.float64}
    return WeftForCausalLM.from_pretrained(folder / "model", **options).eval()


def compare_heads(folder: Path) -> None:
    """What each of the two processes does that have half of the heads."""
    model = load(folder, tp_plan="auto", tp_size=2)
    queries = model.model.layers[0].self_attn.q_proj.weight
    assert queries.to_local().shape[0] == queries.shape[0] // 2
    expected = torch.load(folder / "expected.pt", weights_only=True)
    found = numbers(model)
    assert found.keys() == expected.keys()
    for name, number in found.items():
        torch.testing.assert_close(number, expected[name], msg=lambda text, name=name: f"{name}: {text}", **NEAR)
    assert torch.equal(written(model, padded=True), torch.load(folder / "written.pt", weights_only=True))


def compare_layers(folder: Path) -> None:
    """What each of the two processes does that have half of the layers."""
    model = load(folder, pp_size=2)
    assert sum(isinstance(layer, WeftLayer) for layer in model.model.layers) == 2
    with torch.no_grad():
        logits = model(BATCH).logits
    torch.testing.assert_close(logits, torch.load(folder / "expected.pt", weights_only=True)["logits"], **NEAR)
    assert torch.equal(written(model, padded=False), torch.load(folder / "written.pt", weights_only=True))


def written(model: WeftForCausalLM, padded: bool) -> torch.Tensor:
    """Greedily, behind the batch. (transformers' pipelines do not see padding once there is a cache.)"""
    is_token = torch.ones_like(BATCH)
    is_token[1, : 3 * padded] = 0
    return model.generate(BATCH, attention_mask=is_token, max_new_tokens=4, do_sample=False)


def save_model(folder: Path, padded: bool, **fields: Any) -> None:
    """With weights that matter, and what one process computes with them."""
    model = make_model(tiny_config(qk_norm=True, vocab_size=64, eos_token_id=None, **fields)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    model.save_pretrained(folder / "model")
    torch.save(numbers(model), folder / "expected.pt")
    torch.save(written(model, padded), folder / "written.pt")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_half_of_the_heads_compute_what_one_does(kind: str, tmp_path: Path) -> None:
    save_model(tmp_path, padded=True, num_hidden_layers=3, **KINDS[kind])
    run_together("cpu_2.yaml", compare_heads, tmp_path)


@pytest.mark.parametrize("position", ["rope", "none"])
def test_two_processes_with_half_of_the_layers_compute_what_one_does(position: str, tmp_path: Path) -> None:
    save_model(tmp_path, False, num_hidden_layers=4, attention_gate=True, position_embedding_type=position)
    run_together("cpu_2.yaml", compare_layers, tmp_path)


@pytest.mark.parametrize(
    ("model_class", "fields"),
    [
        (WeftForCausalLM, {"value_residual": True}),
        (WeftForCausalLM, {"embedding_norm": True}),
        (WeftForCausalLM, {"position_embedding_type": "alibi"}),
        (WeftForCausalLM, {"is_causal": False}),
        (WeftForSequenceClassification, {}),
    ],
)
def test_layers_are_not_divided_where_they_would_compute_something_else(
    model_class: type[PreTrainedModel], fields: dict[str, Any]
) -> None:
    model = model_class(tiny_config(**fields))
    assert model.config.base_model_pp_plan is None or not fields
    with pytest.raises(ValueError, match=r"pipeline \(pp_size\) cannot compute this model: .* \(tp_size\)"):
        model_class.maybe_distribute_model(model, DistributedConfig(pp_size=2), None)
