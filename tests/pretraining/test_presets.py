"""Every preset is a model that exists, has the size that the help says, and a shape that hardware multiplies well."""

from itertools import pairwise

import pytest
import torch

from weft import WeftConfig, WeftForCausalLM, WeftForMaskedLM
from weft.recipes.training.model_arguments import PRESET_SIZES, PRESETS, ModelArguments
from weft.recipes.training.model_setup import count_parameters

VOCABULARY = 32768


def config_of(name: str, **fields: object) -> WeftConfig:
    return WeftConfig(vocab_size=VOCABULARY, **PRESETS[name], **fields)


@pytest.mark.parametrize("name", PRESETS)
def test_the_size_that_the_help_says_is_right(name):
    said = PRESET_SIZES[name]
    factor = {"M": 1e6, "B": 1e9}[said[-1]]
    for config, model_class in (
        (config_of(name), WeftForCausalLM),
        (config_of(name, is_causal=False), WeftForMaskedLM),
    ):
        assert float(said[:-1]) * factor == pytest.approx(count_parameters(config, model_class).total, rel=0.005)
    shape = PRESETS[name]
    words = f"{name} ({shape['num_hidden_layers']} x {shape['hidden_size']}, {said})"
    assert words in ModelArguments.__dataclass_fields__["preset"].metadata["help"]


def test_presets_go_from_five_million_to_a_billion_in_steps_of_less_than_four_times():
    sizes = [count_parameters(config_of(name), WeftForCausalLM).total for name in PRESETS]
    assert sizes == sorted(sizes)
    assert 4e6 < sizes[0] < 6e6 and 0.9e9 < sizes[-1] < 1.1e9
    assert all(larger < 4 * smaller for smaller, larger in pairwise(sizes))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_and_divides_evenly(name):
    config = config_of(name)
    assert config.hidden_size == config.num_attention_heads * config.head_dim
    assert config.num_attention_heads % config.num_key_value_heads == 0
    assert config.head_dim % 2 == 0
    assert config.hidden_size % 64 == config.intermediate_size % 64 == 0
    assert config.num_key_value_heads * config.head_dim % 64 == 0
    assert config.head_dim == 64 or name == "tiny"
    with torch.device("meta"):
        model = WeftForCausalLM(config)
        loss = model(input_ids=torch.zeros(2, 16, dtype=torch.long), labels=torch.zeros(2, 16, dtype=torch.long)).loss
    assert loss.shape == ()
