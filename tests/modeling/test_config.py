"""A config says what it derives, refuses what cannot work in words that name the field, and survives saving."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import weft
from weft import (
    WeftConfig,
    WeftForCausalLM,
    WeftForConditionalGeneration,
    WeftForMaskedLM,
    WeftForPreTraining,
    WeftForSequenceClassification,
    WeftForTokenClassification,
    modeling_weft,
)
from weft.configuration_weft import AUTO_MAP


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_act": "silou"}, "hidden_act='silou' is unknown: choose one of"),
        ({"rope_parameters": {"rope_type": "ntk"}}, "rope_parameters has rope_type 'ntk', which is unknown"),
        ({"layer_types": ["chunked_attention"] * 2}, "layer_types names chunked_attention: choose among"),
        ({"layer_types": [FULL, "slidding_attention"]}, "layer_types names slidding_attention: choose among"),
        ({"layer_types": [FULL]}, "num_hidden_layers.*layer_types"),
        ({"linear_num_key_heads": 2, "linear_num_value_heads": 3}, "linear_num_key_heads=2 must divide"),
        ({"linear_conv_kernel_dim": 0}, "linear_conv_kernel_dim=0 is not allowed: it must be at least 1"),
        ({"recurrent_cell": "gated"}, "recurrent_cell='gated' is unknown: choose one of lstm, gru, rnn"),
        (
            {"layer_types": ["recurrent"] * 2, "is_causal": False, "recurrent_hidden_size": 9},
            "recurrent_hidden_size=9 is odd, and half of it reads from the end in recurrent layers",
        ),
        ({"layer_types": [SLIDING, FULL]}, "a sliding_window of at least 1, not None"),
        ({"sliding_window": 0}, "a sliding_window of at least 1, not 0"),
        ({"sliding_window": -3}, "a sliding_window of at least 1, not -3"),
        ({"hidden_size": 30}, "hidden_size=30 is not a multiple of num_attention_heads=4"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 must divide num_attention_heads=4"),
        ({"num_key_value_heads": 8}, "num_key_value_heads=8 must divide num_attention_heads=4"),
        ({"head_dim": 7}, "head_dim.*7"),
        ({"head_dim": 3}, "head_dim=3 is odd"),
        ({"attention_dropout": 1.0}, r"attention_dropout=1\.0 is not allowed: it must be in \[0, 1\)"),
        ({"attention_dropout": -0.1}, r"attention_dropout=-0\.1 is not allowed"),
        ({"hidden_dropout": 1}, "hidden_dropout=1 is not allowed"),
        ({"hidden_dropout": float("nan")}, "hidden_dropout=nan is not allowed"),
        ({"classifier_dropout": 1.0}, r"classifier_dropout=1\.0 is not allowed: it must be in \[0, 1\)"),
        ({"classifier_pooling": "max"}, "classifier_pooling='max' is unknown: choose one of cls, mean, last, None"),
        ({"classifier_pooling": "cls"}, "classifier_pooling='cls' cannot work with is_causal=True, where the first"),
        ({"hidden_size": "32"}, "hidden_size.*expected int, got str"),
        ({"qk_norm": "yes"}, "qk_norm.*expected bool, got str"),
        ({"sliding_window": 4.0}, "sliding_window"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.*yarn.*factor"),
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.5}},
            r"partial_rotary_factor 1\.5: it must",
        ),
        ({"rope_parameters": {SLIDING: {"rope_type": "default"}}}, "rope_parameters has no dict for full_attention"),
        (
            {"position_embedding_type": "rotary"},
            "position_embedding_type='rotary' is unknown: choose one of rope, lear",
        ),
        ({"norm_type": "batchnorm"}, "norm_type='batchnorm' is unknown: choose one of rmsnorm, layernorm"),
        ({"norm_position": "none"}, "norm_position='none' is unknown: choose one of pre, post, sandwich, output"),
        ({"layers_without_positions": [2]}, "layers_without_positions names layer 2, but there are layers 0 to 1"),
        ({"pos_att_type": ["p2p"]}, "pos_att_type=.*choose among c2p and p2c"),
        ({"position_embedding_type": "disentangled"}, "needs num_key_value_heads=4, as many as num_attention_heads"),
        ({"is_encoder_decoder": True, "is_causal": False}, "the decoder is causal, leave it True"),
        (
            {"relative_attention_num_buckets": 3},
            "relative_attention_num_buckets=3 is not allowed: it must be at least 4",
        ),
        (
            {"position_embedding_type": "t5", "relative_attention_max_distance": 16},
            "relative_attention_max_distance=16: it must be above 16",
        ),
        (
            {"position_embedding_type": "t5", "is_causal": False, "relative_attention_max_distance": 8},
            "relative_attention_max_distance=8: it must be above 8",
        ),
        ({"position_buckets": 1}, "position_buckets=1 is not allowed: give 0, for a vector of each distance, or at l"),
        (
            {
                "position_embedding_type": "disentangled",
                "num_key_value_heads": 4,
                "position_buckets": 8,
                "max_relative_positions": 5,
            },
            "max_relative_positions=5: it must be above 5",
        ),
        ({"parallel_residual": True, "norm_position": "post"}, "parallel_residual has no sum behind"),
        ({"embedding_scale": 0.0}, r"embedding_scale=0\.0 is not allowed: it must be above 0"),
        ({"attn_logit_softcapping": -1.0}, r"attn_logit_softcapping=-1\.0 is not allowed: it must be above 0"),
        ({"position_offset": -1}, "position_offset=-1 is not allowed: it must be at least 0"),
        ({"is_encoder_decoder": True, "num_decoder_layers": 0}, "num_decoder_layers=0 is not allowed"),
        ({"type_vocab_size": -1}, "type_vocab_size=-1 is not allowed: it must be at least 0"),
        ({"masked_next_token": 1}, "masked_next_token.*expected bool, got int"),
        ({"norm_eps": -1e-6}, "norm_eps=-1e-06 is not allowed: it must be above 0"),
        ({"initializer_range": 0.0}, r"initializer_range=0\.0 is not allowed: it must be above 0"),
        *(
            ({name: 0}, f"{name}=0 is not allowed: it must be at least 1")
            for name in (
                "vocab_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_key_value_heads",
                "head_dim",
                "max_position_embeddings",
            )
        ),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_by_name(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match=f"(?s){sentence}"):
        tiny_config(**changes)


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads"])
@pytest.mark.parametrize("value", [0, -4])
def test_sizes_that_others_divide_by_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(Exception, match=f"(?s){name}={value} is not allowed: it must be at least 1"):
        tiny_config(**{name: value})


def test_a_field_is_checked_when_it_is_set_later_and_when_saved(tmp_path: Path) -> None:
    config = tiny_config()
    with pytest.raises(Exception, match="num_hidden_layers"):
        config.num_hidden_layers = "two"
    config.attention_dropout = 2.0
    with pytest.raises(Exception, match="attention_dropout"):
        config.save_pretrained(tmp_path)


def test_the_default_shape() -> None:
    config = WeftConfig()
    assert (config.head_dim, config.num_key_value_heads, config.intermediate_size) == (64, 12, 2048)
    assert config.layer_types == [FULL] * 12
    assert config.rope_parameters == {"rope_theta": 10000.0, "rope_type": "default"}
    assert config.qk_norm and config.is_causal and config.tie_word_embeddings and config.use_cache
    assert not config.attention_bias and not config.mlp_bias
    assert not config.type_vocab_size and not config.masked_next_token
    assert not config.lm_head_transform and not config.lm_head_bias
    assert not config.classifier_dropout and config.classifier_pooling is None


@pytest.mark.parametrize(
    ("hidden_size", "intermediate_size"), [(64, 192), (96, 256), (128, 384), (192, 512), (768, 2048), (1024, 2752)]
)
def test_the_default_feed_forward_is_as_large_as_a_plain_one(hidden_size: int, intermediate_size: int) -> None:
    """Three matrices of 8/3 instead of two of 4 times the width, rounded up to a multiple of 64."""
    derived = WeftConfig(hidden_size=hidden_size, num_attention_heads=2).intermediate_size
    assert derived == intermediate_size
    assert 0 <= derived - hidden_size * 8 / 3 < 64


def test_what_is_derived_follows_what_is_given() -> None:
    config = WeftConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=3, sliding_window=7)
    assert config.layer_types == [SLIDING] * 3
    assert (config.head_dim, config.num_key_value_heads) == (16, 4)
    config = WeftConfig(hidden_size=64, num_attention_heads=5, head_dim=20, num_hidden_layers=2, intermediate_size=10)
    assert (config.head_dim, config.num_key_value_heads, config.intermediate_size) == (20, 5, 10)
    assert (config.linear_num_key_heads, config.linear_num_value_heads, config.recurrent_hidden_size) == (2, 2, 64)
    assert (config.linear_key_head_dim, config.linear_value_head_dim, config.linear_norm_eps) == (20, 40, 1e-6)
    config = tiny_config(sliding_window=7, layer_types=[FULL, FULL])
    assert config.layer_types == [FULL, FULL]


@pytest.mark.parametrize("old", [{"rope_theta": 5e5}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}])
def test_older_names_of_the_rotary_fields_are_understood(old: dict[str, Any]) -> None:
    config = tiny_config(**old)
    assert config.rope_parameters["rope_theta"] == old.get("rope_theta", 10000.0)
    assert config.rope_parameters["rope_type"] == old.get("rope_scaling", {"rope_type": "default"})["rope_type"]


@pytest.mark.parametrize("model_class", [WeftForCausalLM, WeftForPreTraining])
def test_initial_weights(model_class: type) -> None:
    """What writes to the residual stream starts smaller by the square root of the number of writers."""
    torch.manual_seed(0)
    config = WeftConfig(
        vocab_size=500,
        hidden_size=128,
        num_hidden_layers=8,
        num_attention_heads=4,
        initializer_range=0.05,
        attention_bias=True,
        mlp_bias=True,
        type_vocab_size=40,
        lm_head_transform=True,
        lm_head_bias=True,
        tie_word_embeddings=False,
    )
    for name, parameter in model_class(config).named_parameters():
        if "norm" in name:
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            expected = 0.05 / 4 if "o_proj" in name or "down_proj" in name else 0.05
            tolerance = 3 / parameter.numel() ** 0.5
            assert parameter.std().item() == pytest.approx(expected, rel=tolerance), name
            assert abs(parameter.mean().item()) < expected * tolerance, name


FAR_FROM_DEFAULT = {
    "vocab_size": 71,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 10,
    "hidden_act": "gelu",
    "max_position_embeddings": 33,
    "initializer_range": 0.07,
    "norm_eps": 1e-4,
    "qk_norm": False,
    "attention_bias": True,
    "mlp_bias": True,
    "attention_dropout": 0.25,
    "hidden_dropout": 0.5,
    "is_causal": False,
    "masked_next_token": True,
    "rope_parameters": {"rope_type": "linear", "rope_theta": 77.0, "factor": 3.0},
    "layer_types": [SLIDING, FULL, SLIDING],
    "sliding_window": 9,
    "linear_num_key_heads": 4,
    "linear_key_head_dim": 5,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 7,
    "linear_conv_kernel_dim": 3,
    "linear_allow_neg_eigval": True,
    "linear_norm_eps": 0.5,
    "recurrent_cell": "gru",
    "recurrent_hidden_size": 10,
    "type_vocab_size": 3,
    "lm_head_transform": True,
    "lm_head_bias": True,
    "classifier_dropout": 0.25,
    "classifier_pooling": "last",
    "classifier_transform": "tanh",
    "classifier_transform_norm": True,
    "classifier_transform_bias": False,
    "classifier_transform_tokens": True,
    "classifier_bias": False,
    "tie_word_embeddings": False,
    "use_cache": False,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": [2, 5],
    "norm_type": "layernorm",
    "norm_affine": False,
    "norm_bias": False,
    "norm_offset": 1.0,
    "norm_position": "sandwich",
    "first_norm": False,
    "embedding_norm": True,
    "embedding_scale": 3.0,
    "residual_scale": 0.4,
    "parallel_residual": True,
    "mlp_gated": False,
    "qk_norm_over": "width",
    "attention_gate": True,
    "attention_gate_over": "element",
    "attention_out_bias": True,
    "linear_norm_position": "output",
    "value_residual": True,
    "attention_scale": 1.5,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
    "position_embedding_type": "learned",
    "layers_without_positions": [1],
    "position_interleaved": True,
    "position_offset": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "relative_attention_per_layer": True,
    "position_buckets": 6,
    "max_relative_positions": 12,
    "pos_att_type": ["p2c"],
    "norm_rel_ebd": False,
    "lm_head_transform_bias": True,
    "lm_head_scale": 0.5,
    "is_encoder_decoder": True,
    "num_decoder_layers": 2,
    "decoder_start_token_id": 4,
}
# What a field depends on to have an effect.
TRANSFORM = {"classifier_transform": "gelu"}
T5 = {"position_embedding_type": "t5", "layer_types": [FULL] * 3}
LINEAR = {"layer_types": ["linear_attention"] * 3, "linear_num_key_heads": 2}
ONLY_WITH: dict[str, dict[str, Any]] = {
    "norm_bias": {"norm_type": "layernorm"},
    "attention_gate_over": {"attention_gate": True},
    "linear_norm_position": {"layer_types": ["linear_attention", FULL, FULL]},
    "position_offset": {"position_embedding_type": "learned", "max_position_embeddings": 64},
    "position_embedding_type": {"max_position_embeddings": 64},
    **{name: LINEAR for name in FAR_FROM_DEFAULT if name.startswith("linear_")},
    **{
        name: {"layer_types": ["recurrent"] * 3, "is_causal": False}
        for name in FAR_FROM_DEFAULT
        if "recurrent_" in name
    },
    **{name: T5 for name in FAR_FROM_DEFAULT if name.startswith("relative_attention")},
    **{
        name: {"position_embedding_type": "disentangled"}
        for name in ("position_buckets", "max_relative_positions", "pos_att_type", "norm_rel_ebd")
    },
    "lm_head_transform_bias": {"lm_head_transform": True},
    "classifier_transform_norm": TRANSFORM,
    "classifier_transform_bias": TRANSFORM,
    "classifier_transform_tokens": TRANSFORM,
    "num_decoder_layers": {"is_encoder_decoder": True},
    "decoder_start_token_id": {"is_encoder_decoder": True},
}
NOT_ALL_AT_ONCE = {
    **{"is_encoder_decoder": False, "num_decoder_layers": None, "is_causal": False, "decoder_start_token_id": 4}
}


def test_every_field_survives_saving_and_loading(tmp_path: Path) -> None:
    fields = {**FAR_FROM_DEFAULT, **NOT_ALL_AT_ONCE}
    config = WeftConfig(**fields)
    own = {name for name in WeftConfig.__annotations__ if not name.startswith("_")}
    assert own == set(FAR_FROM_DEFAULT), "a field is missing in this test"
    config.save_pretrained(tmp_path)
    for loaded in (WeftConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert isinstance(loaded, WeftConfig)
        for name, value in fields.items():
            assert getattr(loaded, name) == value, name
    two_stacks = {name: FAR_FROM_DEFAULT[name] for name in ("is_encoder_decoder", "num_decoder_layers")}
    WeftConfig(**two_stacks).save_pretrained(tmp_path / "two")
    loaded = AutoConfig.from_pretrained(tmp_path / "two")
    assert loaded.is_encoder_decoder and loaded.num_decoder_layers == 2 and loaded.num_hidden_layers == 12


@pytest.mark.parametrize("name", sorted(set(FAR_FROM_DEFAULT) - {"use_cache", "bos_token_id", "eos_token_id"}))
def test_every_field_reaches_the_model(name: str) -> None:
    """No field is decoration: changing it alone changes the weights or what is computed with them."""
    base = {
        "vocab_size": 61,
        "hidden_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": 16,
        "sliding_window": 4,
        "layer_types": [FULL] * 3 if name == "layer_types" else [SLIDING] * 3,
        "is_causal": name != "classifier_pooling",
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 50.0},
    }
    change = {name: FAR_FROM_DEFAULT[name]}
    if name == "num_hidden_layers":
        base |= {name: 2, "layer_types": [SLIDING] * 2}
        change["layer_types"] = [SLIDING] * 3
    base |= ONLY_WITH.get(name, {})
    two_stacks = {**base, **change}.get("is_encoder_decoder", False)
    if two_stacks:
        base |= {"is_causal": True, "decoder_start_token_id": 1}
    if name == "attn_logit_softcapping":
        base["hidden_act"] = "gelu"
    tokens = name == "classifier_transform_tokens"
    model_class = WeftForTokenClassification if tokens else WeftForSequenceClassification
    if not name.startswith("classifier"):
        model_class = WeftForConditionalGeneration if two_stacks else WeftForMaskedLM
    results = []
    for fields in (base, {**base, **change}):
        torch.manual_seed(0)
        one_stack = not fields.get("is_encoder_decoder") and model_class is WeftForConditionalGeneration
        model = (WeftForCausalLM if one_stack else model_class)(WeftConfig(**fields)).train()
        weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape))
            hidden = model.model(random_ids(1, 30)).last_hidden_state
            logits = model(random_ids(1, 30)).logits
        tied = model.get_output_embeddings() is not None and model.config.tie_word_embeddings
        results.append((weights, (hidden, logits), tied, model.get_input_embeddings().padding_idx))
    (weights, computed, *rest), (other_weights, other_computed, *other_rest) = results
    same_weights = weights.keys() == other_weights.keys() and all(
        torch.equal(weight, other_weights[key]) for key, weight in weights.items()
    )
    same_numbers = all(one.equal(other) for one, other in zip(computed, other_computed))
    assert not (same_weights and same_numbers and rest == other_rest)


def test_a_config_with_unknown_keys_still_loads(tmp_path: Path) -> None:
    """Other versions of transformers write keys of their own."""
    make_model().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"written_by_the_future": {"a": 1}, "flag": True}))
    assert WeftConfig.from_pretrained(tmp_path).written_by_the_future == {"a": 1}
    model, ids = WeftForCausalLM.from_pretrained(tmp_path), random_ids(1, 5)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, make_model()(ids).logits)


def test_the_auto_map_names_every_class() -> None:
    heads = {name for name in weft.__all__ if name.startswith("Weft") and name != "WeftPreTrainedModel"}
    named = WeftConfig().auto_map
    assert named == AUTO_MAP
    chosen = {"AutoModelForPreTraining": "WeftForPreTraining", "AutoModelForTextEncoding": "WeftTextEncoder"}
    for auto_class, class_name in chosen.items():  # by a class that makes models of others
        assert getattr(modeling_weft, class_name)._auto_class == auto_class
        named[auto_class] = f"modeling_weft.{class_name}"
    del named["AutoModelForTextEncoding"]
    assert {reference.split(".")[1] for reference in named.values()} == heads
    for auto_class, reference in named.items():
        module, _, class_name = reference.partition(".")
        found = getattr(weft, class_name)
        assert found.__module__ == f"weft.{module}"
        assert found._auto_class == auto_class


def test_the_users_own_auto_map_wins(tmp_path: Path) -> None:
    config = tiny_config(auto_map={"AutoModel": "mine.MyModel", "AutoModelForVision": "mine.Other"})
    expected = {**AUTO_MAP, "AutoModel": "mine.MyModel", "AutoModelForVision": "mine.Other"}
    assert config.auto_map == expected
    config.save_pretrained(tmp_path)
    assert WeftConfig.from_pretrained(tmp_path).auto_map == {**expected, "AutoConfig": AUTO_MAP["AutoConfig"]}


@pytest.mark.parametrize("rope_type", ["default", *ROPE_INIT_FUNCTIONS])
def test_every_rope_type_of_transformers_is_accepted(rope_type: str) -> None:
    extra = {
        "default": {},
        "yarn": {"original_max_position_embeddings": 16},
        "longrope": {"original_max_position_embeddings": 16, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
        "llama3": {"original_max_position_embeddings": 16, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    }.get(rope_type, {})
    factor = {} if rope_type == "default" else {"factor": 8.0}
    config = tiny_config(rope_parameters={"rope_type": rope_type, "rope_theta": 100.0, **factor, **extra})
    assert config.rope_parameters["rope_type"] == rope_type
