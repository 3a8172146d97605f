"""torchao and bitsandbytes hold the weights of a Weft checkpoint in 8 and 4 bits; text changes little."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import make_model, tiny_config
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, TorchAoConfig


def difference(model: PreTrainedModel, exact: PreTrainedModel, ids: torch.Tensor) -> float:
    """Root mean square change of the logarithms of probabilities, over their spread."""
    with torch.no_grad():
        found, expected = (each(ids).logits.float().log_softmax(-1) for each in (model, exact))
    return float((found - expected).square().mean().sqrt() / expected.std())


@pytest.fixture
def exact(folders: dict[str, Path]) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folders["causal"]).eval()


def test_torchao_in_8_bits(folders: dict[str, Path], exact: PreTrainedModel) -> None:
    """As the checkpoint is loaded, and of a model that is there."""
    ids = torch.randint(5, 200, (2, 11))
    options = {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig())}
    loaded = AutoModelForCausalLM.from_pretrained(folders["causal"], **options).eval()
    there = AutoModelForCausalLM.from_pretrained(folders["causal"]).eval()
    quantize_(there, Int8WeightOnlyConfig())
    for model in (loaded, there):
        assert type(model.model.layers[0].mlp.up_proj.weight) is not nn.Parameter
        assert 0 < difference(model, exact, ids) < 0.05
        assert model.generate(ids, max_new_tokens=4, do_sample=False).shape == (2, 15)


@pytest.mark.parametrize(
    "fields, bound", [({"load_in_8bit": True}, 0.05), ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, 0.5)]
)
def test_bitsandbytes(fields: dict[str, Any], bound: float, tmp_path: Path) -> None:
    """Of a model whose maps are as wide as the blocks of 64 weights that share a scale."""
    ids = torch.randint(5, 60, (2, 11))
    exact = make_model(tiny_config(hidden_size=64, intermediate_size=128, num_key_value_heads=4))
    exact.save_pretrained(tmp_path)
    options = {"quantization_config": BitsAndBytesConfig(**fields), "device_map": {"": "cpu"}}
    model = AutoModelForCausalLM.from_pretrained(tmp_path, **options).eval()
    assert type(model.model.layers[0].mlp.up_proj) is not nn.Linear
    assert 0 < difference(model, exact, ids) < bound
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape == (2, 15)
