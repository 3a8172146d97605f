"""ONNX Runtime computes what PyTorch does, at other sizes than those of the export."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from helpers.models import make_model, random_ids, tiny_config
from torch import nn
from transformers import PreTrainedModel
from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

import weft

NEAR = {"rtol": 1e-4, "atol": 2e-5}
TWO_STACKS = {"is_encoder_decoder": True, "decoder_start_token_id": 1}
# Every class, and every kind of positions: class and config fields
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "base": ("WeftModel", {"is_causal": False}),
    "causal": ("WeftForCausalLM", {}),
    "masked": ("WeftForMaskedLM", {}),
    "masked, from the token before": ("WeftForMaskedLM", {"masked_next_token": True}),
    "next sentence": ("WeftForPreTraining", {"is_causal": False}),
    "sequence, last token": ("WeftForSequenceClassification", {}),
    "sequence, mean": ("WeftForSequenceClassification", {"is_causal": False}),
    "sequence, first token": ("WeftForSequenceClassification", {"is_causal": False, "classifier_pooling": "cls"}),
    "tokens": ("WeftForTokenClassification", {"is_causal": False}),
    "question": ("WeftForQuestionAnswering", {"is_causal": False}),
    "choice": ("WeftForMultipleChoice", {"is_causal": False}),
    "two stacks": ("WeftForConditionalGeneration", TWO_STACKS),
    "learned": ("WeftForMaskedLM", {"position_embedding_type": "learned"}),
    "sinusoidal": ("WeftForCausalLM", {"position_embedding_type": "sinusoidal"}),
    "ALiBi": ("WeftForSequenceClassification", {"position_embedding_type": "alibi"}),
    "T5 buckets": ("WeftForCausalLM", {"position_embedding_type": "t5"}),
    "disentangled": ("WeftForMaskedLM", {"position_embedding_type": "disentangled", "num_key_value_heads": 4}),
    "gates, windows": ("WeftForCausalLM", {"attention_gate": True, "value_residual": True, "sliding_window": 5}),
}


class Outputs(nn.Module):
    """Tensors in, tensors out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        options = {"use_cache": False} if hasattr(self.model, "generate") else {}
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, **options)
        return tuple(value for value in found.values() if torch.is_tensor(value))


def batch_of(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows, the first padded on the left."""
    mask = torch.ones(shape).long()
    mask[0, ..., :2] = 0
    return random_ids(*shape, seed=shape[-1]), mask


@pytest.mark.parametrize("case", CASES)
def test_every_head_and_every_kind_of_positions(case: str, tmp_path: Path) -> None:
    name, fields = CASES[case]
    model = make_model(tiny_config(pad_token_id=0, **fields), model_class=getattr(weft, name))
    outputs = Outputs(model).requires_grad_(False)
    choices = (3,) * (case == "choice")
    example = batch_of((2, *choices, 9))
    sizes = {0: torch.export.Dim("rows"), example[0].ndim - 1: torch.export.Dim("length", min=3, max=96)}
    options = {"dynamo": True, "dynamic_shapes": (sizes, sizes), "verbose": False}
    torch.onnx.export(outputs, example, tmp_path / "model.onnx", **options)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [one.name for one in session.get_inputs()]
    for rows, length in ((2, 9), (3, 17)):
        batch = batch_of((rows, *choices, length))
        found = session.run(None, {name: one.numpy() for name, one in zip(names, batch)})
        is_token = batch[1].bool()
        for ours, theirs in zip(found, outputs(*batch), strict=True):
            where = is_token if theirs.shape[: is_token.ndim] == is_token.shape else slice(None)
            torch.testing.assert_close(torch.from_numpy(ours)[where], theirs[where], **NEAR)


@pytest.mark.parametrize("name", ["WeftForMaskedLM", "WeftForSequenceClassification", "WeftForTokenClassification"])
def test_the_exporter_of_transformers(name: str) -> None:
    model = make_model(tiny_config(pad_token_id=0), model_class=getattr(weft, name)).requires_grad_(False)
    example, batch = (dict(zip(("input_ids", "attention_mask"), batch_of(shape))) for shape in ((2, 9), (3, 17)))
    exported = OnnxExporter().export(model, example, config=OnnxConfig(dynamic=True))
    expected = model(**batch).logits
    where = batch["attention_mask"].bool() if expected.ndim == 3 else slice(None)
    torch.testing.assert_close(exported(**batch).logits[where], expected[where], **NEAR)
