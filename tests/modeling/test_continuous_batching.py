"""Prompts served together from a paged cache get the tokens of `generate`; a backend that would compute something else
is refused."""

from typing import Any

import pytest
import torch
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from weft import WeftForCausalLM, WeftForConditionalGeneration
from weft.backends import refusal

MIXED = {"num_hidden_layers": 3, "sliding_window": 5, "layer_types": [SLIDING, FULL, SLIDING]}
BUCKETS = {"position_embedding_type": "t5", "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
DISENTANGLED = {"position_embedding_type": "disentangled", "position_buckets": 8, "num_key_value_heads": 4}
# What is served -> backend and config fields; the default has grouped queries and rotary positions
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rotary": ("sdpa", {}),
    "rotary on eager": ("eager", {}),
    "rotary with a bidirectional base": ("sdpa", {"is_causal": False}),
    "sliding layers": ("sdpa", {"sliding_window": 5}),
    "mixed layers": ("sdpa", MIXED),
    "learned positions": ("sdpa", {"position_embedding_type": "learned", "position_offset": 2}),
    "sinusoidal positions": ("sdpa", {"position_embedding_type": "sinusoidal"}),
    "no positions": ("sdpa", {"position_embedding_type": "none"}),
    "ALiBi": ("sdpa", {"position_embedding_type": "alibi"}),
    "ALiBi on eager, mixed layers": ("eager", {"position_embedding_type": "alibi", **MIXED}),
    "T5 buckets": ("sdpa", BUCKETS),
    "T5 buckets per layer, mixed layers": ("sdpa", {"relative_attention_per_layer": True, **BUCKETS, **MIXED}),
    "T5 buckets with a bidirectional base": ("eager", {"is_causal": False, **BUCKETS}),
    "disentangled": ("sdpa", DISENTANGLED),
    "disentangled on eager, sliding layers": ("eager", {"sliding_window": 5, **DISENTANGLED}),
    "gates and values of the first layer": ("sdpa", {"attention_gate": True, "value_residual": True, **MIXED}),
    "cap of scores": ("eager", {"attn_logit_softcapping": 2.0, **MIXED}),
    "cap of scores and ALiBi": ("eager", {"attn_logit_softcapping": 2.0, "position_embedding_type": "alibi"}),
}


def serve(model: PreTrainedModel, prompts: list[list[int]], settings: GenerationConfig) -> list[list[int]]:
    """The new tokens of each prompt; rows are so short that prompts are taken in parts."""
    paging = ContinuousBatchingConfig(page_size=16, num_blocks=32, max_batch_tokens=12)
    options = {"generation_config": settings, "continuous_batching_config": paging}
    served = {tuple(one.prompt_ids): one for one in model.generate_batch(prompts, **options).values()}
    assert [served[tuple(prompt)].error for prompt in prompts] == [None] * len(prompts)
    return [served[tuple(prompt)].generated_tokens for prompt in prompts]


@pytest.mark.parametrize("case", CASES)
def test_continuous_batching_equals_generate(case: str) -> None:
    """Prompts of several lengths, one of them longer than a row."""
    backend, fields = CASES[case]
    model = make_model(tiny_config(pad_token_id=0, eos_token_id=2, **fields), backend)
    prompts = [random_ids(1, length, seed=length) for length in (9, 3, 14)]
    settings = GenerationConfig(max_new_tokens=8, do_sample=False, eos_token_id=2, pad_token_id=0)
    expected = [model.generate(ids, generation_config=settings)[0, ids.shape[1] :].tolist() for ids in prompts]
    assert serve(model, [ids[0].tolist() for ids in prompts], settings) == expected
    assert model.config._attn_implementation == backend


def test_an_encoder_decoder_says_that_it_cannot_be_served() -> None:
    config = tiny_config(is_encoder_decoder=True, pad_token_id=0, decoder_start_token_id=1)
    model = make_model(config, model_class=WeftForConditionalGeneration)
    with pytest.raises(ValueError, match="Continuous batching cannot run an encoder-decoder: use `generate`"):
        model.generate_batch([[5, 6, 7]])


def test_the_backend_of_continuous_batching_is_refused_elsewhere() -> None:
    model = make_model(backend="paged|eager")
    with pytest.raises(ValueError, match=r"paged\|eager is for continuous batching alone"):
        model(random_ids(1, 5))


# What transformers or a server may register, and what is no name of a backend known to compute caps and biases
STRANGERS = ("vllm", "my_flash_attention", "someone/flash-attn2", "paged|flex_attention")
BIASED = {"alibi": {}, "t5": {}, "disentangled": {"num_key_value_heads": 4}}


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a registered backend that computes attention and passes over all that it does not know."""

    def attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> Any:
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return mixed.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "vllm", attend)
    return "vllm"


def test_a_backend_that_nobody_knows_computes_what_needs_no_knowledge(stranger: str) -> None:
    ids = random_ids(2, 9)
    with torch.no_grad():
        found, expected = (make_model(backend=name)(ids).logits for name in (stranger, "sdpa"))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", STRANGERS)
def test_caps_and_biases_are_refused_on_backends_that_are_not_known_to_compute_them(stranger: str, name: str) -> None:
    """When a model is made, and when its backend is changed."""
    for reason, fields in {
        "cap scores, and attn_logit_softcapping is 2.0": {"attn_logit_softcapping": 2.0},
        **{f"position_embedding_type='{one}'": {"position_embedding_type": one, **BIASED[one]} for one in BIASED},
    }.items():
        config = tiny_config(**fields)
        model, expected = make_model(config, "eager"), rf"is not known to .*{reason}.*: use attn_implementation="
        with pytest.raises(ValueError, match=expected):
            model.set_attn_implementation(name)
        config._attn_implementation = stranger
        with pytest.raises(ValueError, match=expected):
            WeftForCausalLM(config)


@pytest.mark.parametrize("name", ["flash_attention_2", "flash_attention_3", "kernels-community/flash-attn2"])
def test_flash_attention_caps_scores_and_adds_nothing_to_them(name: str) -> None:
    assert refusal(tiny_config(attn_logit_softcapping=2.0), name) is None
    for one in BIASED:
        said = refusal(tiny_config(position_embedding_type=one, **BIASED[one]), name)
        assert said.startswith(f"{name} cannot add to scores")


def test_a_prefix_makes_no_backend_known() -> None:
    for field in ({"attn_logit_softcapping": 2.0}, {"position_embedding_type": "alibi"}):
        assert "paged|sdpa is not known to" in refusal(tiny_config(**field), "paged|sdpa")
