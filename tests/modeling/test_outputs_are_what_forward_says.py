"""The class that `forward` is annotated with is that of what it returns: other libraries read fields off it."""

import typing

import pytest
import torch
from helpers.models import make_model, random_ids, tiny_config
from transformers import modeling_outputs
from transformers.utils import ModelOutput

import weft

LIKE_STOCK = {
    "WeftModel": modeling_outputs.BaseModelOutputWithPast,
    "WeftForCausalLM": modeling_outputs.CausalLMOutputWithPast,
    "WeftForConditionalGeneration": modeling_outputs.Seq2SeqLMOutput,
    "WeftForMaskedLM": modeling_outputs.MaskedLMOutput,
    "WeftForMultipleChoice": modeling_outputs.MultipleChoiceModelOutput,
    "WeftForPreTraining": ModelOutput,
    "WeftForQuestionAnswering": modeling_outputs.QuestionAnsweringModelOutput,
    "WeftForSequenceClassification": modeling_outputs.SequenceClassifierOutput,
    "WeftForTokenClassification": modeling_outputs.TokenClassifierOutput,
}


def test_every_class_is_tried() -> None:
    classes = {name for name in weft.__all__ if isinstance(getattr(weft, name), type)}
    assert set(LIKE_STOCK) == classes - {"WeftConfig", "WeftPreTrainedModel"}


@pytest.mark.parametrize("name", LIKE_STOCK)
def test_forward_returns_what_it_says(name: str) -> None:
    """The class of stock models, or one that adds fields to it."""
    model_class = getattr(weft, name)
    said = typing.get_type_hints(model_class.forward)["return"]
    assert issubclass(said, LIKE_STOCK[name]) and said is not ModelOutput
    fields = {"is_encoder_decoder": True, "decoder_start_token_id": 1} if "Conditional" in name else {}
    model = make_model(tiny_config(**fields), model_class=model_class)
    ids = random_ids(2, 3, 5) if "Choice" in name else random_ids(2, 5)
    with torch.no_grad():
        assert type(model(ids)) is said
        assert isinstance(model(ids, return_dict=False), tuple)
