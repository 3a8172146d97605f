"""Families that mix attention with gated DeltaNet, beyond what holds for every family: losses, states of all layers,
documents, caches, files, and what is refused."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.families import CASES, InnerFloat64, make_pair
from helpers.models import FULL, SLIDING, random_ids, tiny_config
from safetensors.torch import load_file
from transformers import PreTrainedModel

from weft.interop import InteropError, find_family, weft_class
from weft.recipes.conversion.run import convert

LINEAR = "linear_attention"
HYBRIDS = ("olmo_hybrid", "olmo_hybrid-nope", "qwen3_5_text", "qwen3_next")
EXACT = {"rtol": 0, "atol": 1e-9}


@pytest.fixture(scope="module", params=HYBRIDS)
def pair(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A stock model and Weft's with the same weights, in float64."""
    _, stock, model = make_pair(request.param, "causal")
    return stock.double(), model.double()


def test_loss_and_the_states_of_every_layer_are_those_of_the_stock_class(pair) -> None:
    ids = random_ids(2, 70)  # more than a chunk of the stock class
    labels = ids.masked_fill(torch.rand(ids.shape) < 0.3, -100)
    with InnerFloat64(), torch.no_grad():
        expected, found = (model(ids, labels=labels, output_hidden_states=True) for model in pair)
    torch.testing.assert_close(found.loss, expected.loss, **EXACT)
    assert len(found.hidden_states) == len(expected.hidden_states) == 4
    for own, other in zip(found.hidden_states, expected.hidden_states):
        torch.testing.assert_close(own, other, **EXACT)


def test_a_document_in_a_packed_row_is_read_as_if_it_were_alone(pair) -> None:
    """The stock classes cannot, without the kernels of another package: what a document left behind goes on."""
    ids, lengths = random_ids(1, 20), (9, 11)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    with InnerFloat64(), torch.no_grad():
        alone = [pair[0](each).logits for each in ids.split(lengths, dim=1)]
        stock, own = (model(ids, position_ids=positions, use_cache=False).logits for model in pair)
    torch.testing.assert_close(own, torch.cat(alone, dim=1), **EXACT)
    assert (stock - own)[:, lengths[0] :].abs().max() > 1e-3, "the stock class has learnt it: say so in the page"


def test_a_text_read_in_pieces_is_the_text_read_at_once(pair) -> None:
    stock, model = pair
    ids, cache, pieces = random_ids(2, 12), None, []
    with InnerFloat64(), torch.no_grad():
        for piece in ids.split((5, 4, 1, 2), dim=1):
            outputs = model(piece, past_key_values=cache, use_cache=True)
            cache = outputs.past_key_values
            pieces.append(outputs.logits)
        expected = stock(ids).logits
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, **EXACT)


@pytest.mark.parametrize("case", ["olmo_hybrid-nope", "qwen3_5_text"])
def test_files_keep_tensors_and_dtype_and_are_read_without_a_warning(case: str, tmp_path: Path) -> None:
    _, stock, _ = make_pair(case, "causal")
    stock.to(torch.bfloat16).save_pretrained(tmp_path / "stock")
    convert("import", str(tmp_path / "stock"), tmp_path / "weft", None)
    convert("export", str(tmp_path / "weft"), tmp_path / "back", CASES[case][0])
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    transformers.logging.set_verbosity_warning()
    transformers.logging.add_handler(handler)
    try:
        options = {"dtype": "auto", "output_loading_info": True}
        model, _ = weft_class("causal").from_pretrained(tmp_path / "weft", **options)
        back, info = type(stock).from_pretrained(tmp_path / "back", **options)
    finally:
        transformers.logging.remove_handler(handler)
    assert said == [] and not any(info.values())
    assert model.dtype == back.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings == stock.config.tie_word_embeddings
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


def test_an_olmo_hybrid_is_written_as_the_released_ones_are(tmp_path: Path) -> None:
    """Each convolution by itself; transformers' own saving cuts them into three parts of one size."""
    _, stock, model = make_pair("olmo_hybrid", "causal")
    model.save_pretrained(tmp_path / "weft")
    convert("export", str(tmp_path / "weft"), tmp_path / "out", "olmo_hybrid")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    shapes = [list(tensors[f"model.layers.0.linear_attn.{name}_conv1d.weight"].shape) for name in "qkv"]
    assert shapes == [[12, 1, 3], [12, 1, 3], [40, 1, 3]]
    assert "model.layers.1.post_attention_layernorm.weight" in tensors
    back = type(stock).from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(tensor, back[name]) for name, tensor in stock.state_dict().items())


def test_of_a_model_that_sees_images_the_language_model_is_imported(tmp_path: Path, capsys) -> None:
    _, text, _ = make_pair("qwen3_5_text", "causal")
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 48}
    vision |= {"num_position_embeddings": 4, "patch_size": 2, "spatial_merge_size": 1}
    config = transformers.Qwen3_5Config(text_config=text.config.to_dict(), vision_config=vision)
    stock = transformers.Qwen3_5ForConditionalGeneration(config).eval()
    stock.save_pretrained(tmp_path / "stock")
    convert("import", str(tmp_path / "stock"), tmp_path / "weft", None)
    assert "note: of qwen3_5 the language model is converted, and what sees images" in capsys.readouterr().out
    model, ids = weft_class("causal").from_pretrained(tmp_path / "weft").eval(), random_ids(2, 9)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, stock(ids).logits, rtol=0, atol=1e-5)


HYBRID = {"layer_types": [LINEAR, FULL], "linear_num_value_heads": 2, "linear_num_key_heads": 2}
OLMO = {**HYBRID, "qk_norm_over": "width", "norm_position": "output", "linear_norm_position": "pre"}
OLMO |= {"linear_norm_eps": 1e-5, "linear_allow_neg_eigval": True}
QWEN = {**HYBRID, "norm_offset": 1.0, "attention_gate": True, "attention_gate_over": "element"}


@pytest.mark.parametrize(
    ("family", "fields", "reason"),
    [
        ("qwen3", HYBRID, "cannot be expressed as qwen3: layer_types has linear_attention"),
        ("olmo_hybrid", HYBRID, "norm_position='pre'"),
        ("olmo_hybrid", {**OLMO, "hidden_act": "gelu"}, "hidden_act='gelu' .it would be 'silu'"),
        (
            "olmo_hybrid",
            {**OLMO, "layer_types": [LINEAR, SLIDING], "sliding_window": 4},
            "layer_types has sliding_attention",
        ),
        ("qwen3_5_text", {**QWEN, "attention_gate_over": "head"}, "attention_gate_over='head' .it would be 'element'"),
        ("qwen3_5_text", {**QWEN, "linear_allow_neg_eigval": True}, "linear_allow_neg_eigval=True"),
        ("qwen3_5_text", {**QWEN, "attention_bias": True}, "attention_bias=True"),
    ],
)
def test_what_a_family_cannot_express_is_named(family: str, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InteropError, match=reason):
        find_family(family).export_config(tiny_config(**fields), "causal")


@pytest.mark.parametrize(("family", "fields"), [("olmo_hybrid", OLMO), ("qwen3_5_text", QWEN), ("qwen3_next", QWEN)])
def test_rotary_positions_may_be_written_for_each_layer_type(family: str, fields: dict[str, Any]) -> None:
    rope = {"rope_type": "default", "rope_theta": 500.0}
    one, each = (tiny_config(**fields, rope_parameters=given) for given in (dict(rope), {FULL: dict(rope)}))
    exported = [find_family(family).export_config(config, "causal") for config in (one, each)]
    assert exported[0].rope_parameters == exported[1].rope_parameters
    assert exported[0].rope_parameters["rope_theta"] == 500.0


def test_experts_are_refused_by_the_layer_that_has_them() -> None:
    fields = {**CASES["qwen3_next"][1], "mlp_only_layers": [0, 2]}
    with pytest.raises(InteropError, match="layer 1 chooses among 4 experts, and Weft's layers are dense"):
        find_family("qwen3_next").import_config(transformers.Qwen3NextConfig(**fields), "causal")
