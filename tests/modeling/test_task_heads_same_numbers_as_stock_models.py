"""A fine-tuning head computes what stock classes of the same shape compute: logits, loss and every gradient."""

from typing import Any

import pytest
import torch
from helpers.models import random_ids, shake, tiny_config
from helpers.stock import assert_close, run, shared_fields
from torch import nn
from transformers import (
    EuroBertConfig,
    EuroBertForSequenceClassification,
    EuroBertForTokenClassification,
    LlamaConfig,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForQuestionAnswering,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
)

from weft import (
    WeftConfig,
    WeftForMultipleChoice,
    WeftForQuestionAnswering,
    WeftForSequenceClassification,
    WeftForTokenClassification,
)

BACKENDS = pytest.mark.parametrize("backend", ["eager", "sdpa"])
DECODERS: dict[str, tuple[Any, dict[str, type[PreTrainedModel]]]] = {
    "llama": (
        LlamaConfig,
        {
            "sequence": LlamaForSequenceClassification,
            "token": LlamaForTokenClassification,
            "question": LlamaForQuestionAnswering,
        },
    ),
    "qwen3": (
        Qwen3Config,
        {
            "sequence": Qwen3ForSequenceClassification,
            "token": Qwen3ForTokenClassification,
            "question": Qwen3ForQuestionAnswering,
        },
    ),
}
IDS = random_ids(4, 13)
LENGTHS = (13, 6, 1, 9)
LABELS: dict[str, tuple[int, torch.Tensor]] = {
    "one number": (1, torch.tensor([0.5, -2.0, 3.0, 0.25]).double()),
    "three numbers": (3, torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()),
    "one class": (3, torch.tensor([2, 0, 1, 1])),
    "many classes": (3, torch.tensor([[0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0]]).double()),
}
PROBLEMS = {"three numbers": "regression"}  # the others are found by the labels


def padded(side: str) -> dict[str, torch.Tensor]:
    """Rows of several lengths with padding 0; "unmasked" ones have it on the right and nothing that says so."""
    if side == "none":
        return {"input_ids": IDS}
    mask = (torch.arange(13) < torch.tensor(LENGTHS)[:, None]).long()
    mask = mask.flip(-1) if side == "left" else mask
    return {"input_ids": IDS * mask, **({} if side == "unmasked" else {"attention_mask": mask})}


def compare(stock: PreTrainedModel, weft: PreTrainedModel, renamed: dict[str, str], **inputs: Any) -> None:
    """Give weft the weights of stock, whose names begin otherwise; the two then agree in float64. A bias that only weft
    has starts at 0."""

    def rename(name: str) -> str:
        first, _, rest = name.partition(".")
        return f"{renamed.get(first, first)}.{rest}"

    stock, weft = stock.double().eval(), weft.double().eval()
    report = weft.load_state_dict({rename(name): weight for name, weight in stock.state_dict().items()}, strict=False)
    assert not report.unexpected_keys and set(report.missing_keys) <= {"score.bias"}
    if report.missing_keys:
        nn.init.zeros_(weft.score.bias)
    expected, actual = run(stock, torch.float64, **inputs), run(weft, torch.float64, **inputs)
    is_token = inputs.get("attention_mask", torch.ones_like(IDS)).bool()
    for name in ("logits", "start_logits", "end_logits"):
        if getattr(expected, name, None) is not None:
            ours, theirs = getattr(actual, name), getattr(expected, name)
            everywhere = ours.shape[:2] != IDS.shape
            assert_close(*((ours, theirs) if everywhere else (ours[is_token], theirs[is_token])), name)
    assert_close(actual.loss, expected.loss, "loss")
    weights = dict(weft.named_parameters())
    for name, parameter in stock.named_parameters():
        if name != "qa_outputs.bias":  # one number more for every token changes no probability
            assert parameter.grad.abs().max() > 0, f"the gradient of {name} says nothing"
        assert_close(weights[rename(name)].grad, parameter.grad, f"gradient of {name}")


def decoder_pair(family: str, task: str, backend: str, **changes: Any) -> tuple[PreTrainedModel, WeftConfig]:
    """A stock decoder with a head, and the config of the Weft that computes the same."""
    config = tiny_config(qk_norm=family == "qwen3", pad_token_id=0, **changes)
    config_class, classes = DECODERS[family]
    labels = {name: getattr(config, name) for name in ("num_labels", "problem_type")}
    stock_config = config_class(**shared_fields(config, **labels))
    stock_config.classifier_dropout = 0.0
    return shake(classes[task]._from_config(stock_config, attn_implementation=backend)), config


@BACKENDS
@pytest.mark.parametrize("side", ["none", "right", "left", "unmasked"])
@pytest.mark.parametrize("kind", list(LABELS))
@pytest.mark.parametrize("family", list(DECODERS))
def test_sequence_classification_of_decoders(family: str, kind: str, side: str, backend: str) -> None:
    num_labels, labels = LABELS[kind]
    changes = {"num_labels": num_labels, "problem_type": PROBLEMS.get(kind)}
    stock, config = decoder_pair(family, "sequence", backend, **changes)
    weft = WeftForSequenceClassification._from_config(config, attn_implementation=backend)
    compare(stock, weft, {}, labels=labels, **padded(side))
    assert weft.config.problem_type == stock.config.problem_type is not None


@BACKENDS
@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize("family", list(DECODERS))
def test_token_classification_of_decoders(family: str, side: str, backend: str) -> None:
    stock, config = decoder_pair(family, "token", backend, num_labels=3)
    inputs = padded(side)
    labels = (IDS % 3).masked_fill(inputs.get("attention_mask", torch.ones_like(IDS)) == 0, -100)
    labels[0, 3:6] = -100
    weft = WeftForTokenClassification._from_config(config, attn_implementation=backend)
    compare(stock, weft, {"score": "classifier"}, labels=labels, **inputs)


@BACKENDS
@pytest.mark.parametrize("family", list(DECODERS))
def test_question_answering_of_decoders(family: str, backend: str) -> None:
    """Also with an answer that lies behind the row, which is no target. Stock classes let padding take part."""
    stock, config = decoder_pair(family, "question", backend)
    weft = WeftForQuestionAnswering._from_config(config, attn_implementation=backend)
    positions = {"start_positions": torch.tensor([0, 5, 13, 7]), "end_positions": torch.tensor([[2], [5], [40], [12]])}
    compare(stock, weft, {"transformer": "model"}, input_ids=IDS, **positions)


def encoder_pair(model_class: type, backend: str, **changes: Any) -> tuple[PreTrainedModel, WeftConfig]:
    """A stock encoder with a head, and the config of the Weft that computes the same."""
    config = tiny_config(qk_norm=False, is_causal=False, pad_token_id=0, **changes)
    pooling = "bos" if config.classifier_pooling == "cls" else "mean"
    labels = {name: getattr(config, name) for name in ("num_labels", "problem_type")}
    stock_config = EuroBertConfig(**shared_fields(config, classifier_pooling=pooling, **labels))
    return shake(model_class._from_config(stock_config, attn_implementation=backend)), config


@BACKENDS
@pytest.mark.parametrize("side", ["none", "right"])
@pytest.mark.parametrize("kind", list(LABELS))
@pytest.mark.parametrize("pooling", ["cls", "mean", None])
def test_sequence_classification_of_encoders(pooling: str | None, kind: str, side: str, backend: str) -> None:
    """EuroBERT has a dense map more, which is taken out."""
    num_labels, labels = LABELS[kind]
    changes = {"num_labels": num_labels, "problem_type": PROBLEMS.get(kind), "classifier_pooling": pooling}
    stock, config = encoder_pair(EuroBertForSequenceClassification, backend, **changes)
    stock.dense = stock.activation = nn.Identity()
    weft = WeftForSequenceClassification._from_config(config, attn_implementation=backend)
    compare(stock, weft, {"classifier": "score"}, labels=labels, **padded(side))


@BACKENDS
@pytest.mark.parametrize("side", ["none", "right", "left"])
def test_token_classification_of_encoders(side: str, backend: str) -> None:
    stock, config = encoder_pair(EuroBertForTokenClassification, backend, num_labels=3)
    inputs = padded(side)
    labels = (IDS % 3).masked_fill(inputs.get("attention_mask", torch.ones_like(IDS)) == 0, -100)
    weft = WeftForTokenClassification._from_config(config, attn_implementation=backend)
    compare(stock, weft, {}, labels=labels, **inputs)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_multiple_choice_is_a_sequence_score_for_each_choice(pooling: str) -> None:
    """As BERT's: the scores of a stock encoder with one label, and the cross-entropy between an example's choices."""
    changes = {"num_labels": 1, "classifier_pooling": pooling}
    stock, config = encoder_pair(EuroBertForSequenceClassification, "sdpa", **changes)
    stock.dense = stock.activation = nn.Identity()
    stock = stock.double().eval()
    weft = WeftForMultipleChoice._from_config(config, attn_implementation="sdpa").double().eval()
    names = {"classifier.weight": "choice_score.weight", "classifier.bias": "choice_score.bias"}
    weft.load_state_dict({names.get(name, name): weight for name, weight in stock.state_dict().items()}, strict=True)
    ids, mask, labels = random_ids(3, 4, 13), torch.ones(3, 4, 13).long(), torch.tensor([1, 3, 0])
    mask[1, 2, 5:] = 0
    scores = run(stock, torch.float64, input_ids=ids.flatten(0, 1), attention_mask=mask.flatten(0, 1)).logits
    expected = nn.functional.cross_entropy(scores.view(3, 4), labels)
    expected.backward()
    actual = run(weft, torch.float64, input_ids=ids, attention_mask=mask, labels=labels)
    assert_close(actual.logits, scores.view(3, 4), "logits")
    assert_close(actual.loss, expected, "loss")
    weights = dict(weft.named_parameters())
    for name, parameter in stock.named_parameters():
        assert_close(weights[names.get(name, name)].grad, parameter.grad, f"gradient of {name}")
