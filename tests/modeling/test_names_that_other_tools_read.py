"""What servers, exporters and Auto classes look for in a model is there, under the names that they look for."""

import json
import math
from pathlib import Path

import pytest
import torch
from helpers.elsewhere import make_folder, succeed
from helpers.models import make_model, random_ids, tiny_config
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForTextEncoding

from weft import (
    WeftConfig,
    WeftForCausalLM,
    WeftForConditionalGeneration,
    WeftForMaskedLM,
    WeftForPreTraining,
    WeftForSequenceClassification,
    WeftModel,
)

TWO_STACKS = {"is_encoder_decoder": True, "decoder_start_token_id": 1, "num_decoder_layers": 1}


@pytest.mark.parametrize("fields", [{}, {"attention_gate": True, "value_residual": True}, TWO_STACKS])
def test_the_first_name_of_the_tensor_parallel_plan_that_fits_is_the_most_specific(fields: dict) -> None:
    names = list(WeftConfig(**fields).base_model_tp_plan)
    for index, name in enumerate(names):
        assert not [later for later in names[index + 1 :] if later.startswith(f"{name}.")]


def test_an_embedding_says_what_it_is_multiplied_by() -> None:
    model = make_model(tiny_config(embedding_scale=math.sqrt(32)))
    table, ids = model.get_input_embeddings(), random_ids(1, 4)
    assert table.embed_scale == math.sqrt(32)
    torch.testing.assert_close(table(ids), torch.nn.functional.embedding(ids, table.weight) * table.embed_scale)


def test_d_model_is_the_width(tmp_path: Path) -> None:
    config = tiny_config(**TWO_STACKS)
    assert config.d_model == 32
    config.save_pretrained(tmp_path)
    assert "d_model" not in json.loads((tmp_path / "config.json").read_text())
    assert (
        WeftConfig.from_pretrained(tmp_path).d_model == WeftConfig(d_model=48, num_attention_heads=4).hidden_size - 16
    )


PRETRAINED = {
    "causal": (WeftForCausalLM, {}, WeftForCausalLM),
    "two stacks": (WeftForConditionalGeneration, TWO_STACKS, WeftForConditionalGeneration),
    "masked": (WeftForMaskedLM, {"is_causal": False}, WeftForPreTraining),
    "sentence pairs": (WeftForPreTraining, {"is_causal": False, "type_vocab_size": 2}, WeftForPreTraining),
    "sentence pairs, causal elsewhere": (WeftForPreTraining, {}, WeftForPreTraining),
    "a causal classifier": (WeftForSequenceClassification, {}, WeftForCausalLM),
}


@pytest.mark.parametrize("kind", PRETRAINED)
def test_pretraining_goes_on_with_the_head_of_the_kind(kind: str, tmp_path: Path) -> None:
    """As of GPT-2, BART and BERT."""
    saver, fields, expected = PRETRAINED[kind]
    model = make_model(tiny_config(**fields), model_class=saver)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is expected
    if saver is expected:
        assert not report["missing_keys"] and not report["unexpected_keys"]
        ids = random_ids(2, 7)
        with torch.no_grad():
            assert torch.equal(loaded(ids)[0], model(ids)[0])
    assert type(AutoModelForPreTraining.from_config(model.config)) is expected


def test_text_is_encoded_by_the_stack_and_of_two_by_the_encoder(tmp_path: Path) -> None:
    """As of BERT and T5; the encoder saves, loads and gives states of the width."""
    ids, mask = random_ids(2, 7), torch.ones(2, 7).long()
    mask[0, 4:] = 0
    for name, saver, fields in (("one", WeftForMaskedLM, {}), ("two", WeftForConditionalGeneration, TWO_STACKS)):
        make_model(tiny_config(is_causal=name == "two", **fields), model_class=saver).save_pretrained(tmp_path / name)
        loaded, report = AutoModelForTextEncoding.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        whole = AutoModel.from_pretrained(tmp_path / name)
        stack = whole if name == "one" else whole.encoder
        loaded.save_pretrained(tmp_path / "again")
        again = AutoModelForTextEncoding.from_pretrained(tmp_path / "again")
        with torch.no_grad():
            expected = stack(ids, attention_mask=mask).last_hidden_state
            for each in (loaded, again):
                assert torch.equal(each(ids, attention_mask=mask).last_hidden_state, expected)
        assert (type(loaded) is WeftModel) == (name == "one")
        names = {parameter for parameter, _ in loaded.named_parameters()}
        assert name == "one" or all(parameter.startswith("encoder.") for parameter in names)


def test_both_work_where_there_is_no_package(tmp_path: Path) -> None:
    make_folder(tmp_path / "causal")
    make_folder(tmp_path / "two", model_class=WeftForConditionalGeneration, **TWO_STACKS, layer_types=None)
    succeed(
        """
        from transformers import AutoModelForPreTraining, AutoModelForTextEncoding

        for folder, names in (
            ("causal", ("WeftForCausalLM", "WeftModel")),
            ("two", ("WeftForConditionalGeneration", "WeftTextEncoder")),
        ):
            for auto, name in zip((AutoModelForPreTraining, AutoModelForTextEncoding), names):
                model, report = auto.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
                assert type(model).__name__ == name, (type(model), name)
                assert not report["missing_keys"] and not report["unexpected_keys"], report
                model.save_pretrained("again")
                model = auto.from_pretrained("again", trust_remote_code=True)
                assert type(model).__name__ == name, (type(model), name)
        """,
        tmp_path,
    )
