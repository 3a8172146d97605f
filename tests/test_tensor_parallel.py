"""Tensor parallelism as transformers does it: two processes, each with half of the heads, compute what one does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.launched import run_together
from helpers.models import make_model, tiny_config
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from weft import WeftForCausalLM

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


def compare(folder: Path, config: Any) -> None:
    """What each of the two processes does."""
    torch.distributed.init_process_group("gloo")
    model = WeftForCausalLM.from_pretrained(folder / "model", distributed_config=config, dtype=torch.float64).eval()
    queries = model.model.layers[0].self_attn.q_proj.weight
    assert queries.to_local().shape[0] == queries.shape[0] // 2
    expected = torch.load(folder / "expected.pt", weights_only=True)
    found = numbers(model)
    assert found.keys() == expected.keys()
    for name, number in found.items():
        torch.testing.assert_close(number, expected[name], msg=lambda text, name=name: f"{name}: {text}", **NEAR)
    again = model.generate(BATCH, max_new_tokens=4, do_sample=False)
    assert torch.equal(again, torch.load(folder / "written.pt", weights_only=True))


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_half_of_the_heads_compute_what_one_does(kind: str, tmp_path: Path) -> None:
    fields = {**KINDS[kind], "qk_norm": True, "num_hidden_layers": 3, "vocab_size": 64, "eos_token_id": None}
    model = make_model(tiny_config(**fields)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    model.save_pretrained(tmp_path / "model")
    torch.save(numbers(model), tmp_path / "expected.pt")
    torch.save(model.generate(BATCH, max_new_tokens=4, do_sample=False), tmp_path / "written.pt")
    run_together("cpu_2.yaml", compare, tmp_path, DistributedConfig(tp_plan="auto", tp_size=2))
