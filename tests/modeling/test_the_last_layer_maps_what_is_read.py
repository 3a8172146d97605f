"""The last layer is computed for the tokens that a head reads, in training and in long rows; no number changes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.models import SLIDING, make_model, random_ids, tiny_config

from weft import (
    WeftForCausalLM,
    WeftForMaskedLM,
    WeftForMultipleChoice,
    WeftForPreTraining,
    WeftForSequenceClassification,
    stack,
)

EXACT = {"rtol": 0.0, "atol": 1e-11}
IDS = random_ids(3, 24)
PLACES = torch.tensor([2, 7, 12, 30, 69, 70])
SHAPES: dict[str, dict[str, Any]] = {
    "pre": {},
    "post": {"norm_position": "post"},
    "sandwich": {"norm_position": "sandwich"},
    "output": {"norm_position": "output"},
    "parallel": {"parallel_residual": True},
    "gates": {"attention_gate": True},
    "values of the first layer": {"value_residual": True},
    "window": {"sliding_window": 3, "layer_types": [SLIDING, SLIDING]},
    "one layer": {"num_hidden_layers": 1, "value_residual": True},
    "shifted": {"masked_next_token": True},
}


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows of any length are long."""
    monkeypatch.setattr(stack, "LEAST_TOKENS", 1)
    yield


def rows_mapped(model: torch.nn.Module) -> list[int]:
    """Tokens that the last layer's feed-forward is given, of each call from now on."""
    seen: list[int] = []
    model.model.layers[-1].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1].numel()))
    return seen


def loss_and_gradients(model: torch.nn.Module, **batch: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = model(IDS, **batch).loss
    loss.backward()
    return {"loss": loss} | {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_targets_alone_give_the_loss_of_all(shape: str, checkpointing: bool, long: None) -> None:
    config = tiny_config(is_causal=False, **{"num_hidden_layers": 2, **SHAPES[shape]})
    model = make_model(config, model_class=WeftForMaskedLM).double().train()
    labels = torch.full((IDS.numel(),), -100)
    shift = int(config.masked_next_token)
    labels[PLACES + shift] = IDS.flatten()[PLACES + shift]
    expected = loss_and_gradients(model, labels=labels.view(IDS.shape))
    if checkpointing:
        model.gradient_checkpointing_enable()
    mapped = rows_mapped(model)
    for options in ({}, {"return_logits": False}):
        batch = {"labels": labels[PLACES + shift], "predict_from": PLACES, **options}
        found = loss_and_gradients(model, **batch)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, **EXACT, msg=lambda text, name=name: f"{name}: {text}")
    assert set(mapped) == {len(PLACES)}


@pytest.mark.parametrize("given", [{}, {"pool_from": torch.tensor([0, 30, 48, 60])}])
@pytest.mark.parametrize("shape", SHAPES)
def test_targets_and_first_tokens_are_read_together(shape: str, given: dict[str, torch.Tensor]) -> None:
    config = tiny_config(is_causal=False, **{"num_hidden_layers": 2, **SHAPES[shape]})
    model = make_model(config, model_class=WeftForPreTraining).double().train()
    labels = IDS.flatten()[PLACES]
    pairs = torch.tensor([1, 0, -100, 1][: len(given.get("pool_from", IDS))])
    mapped = rows_mapped(model)
    for options in ({}, {"return_logits": False}):
        batch = {"labels": labels, "predict_from": PLACES, "next_sentence_label": pairs, **given, **options}
        expected = loss_and_gradients(model, **batch, output_hidden_states=True)
        found = loss_and_gradients(model, **batch)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, **EXACT)
        assert mapped == [IDS.numel(), len(PLACES) + len(pairs)]
        mapped.clear()


def test_a_classifier_with_fewer_layers_than_its_config_says_pools_all_the_same(long: None) -> None:
    """Layers are often cut off to make a smaller model."""
    model = make_model(
        tiny_config(is_causal=False, classifier_pooling="cls"), model_class=WeftForSequenceClassification
    )
    expected = model(IDS, output_hidden_states=True).hidden_states[1][:, 0]
    model.model.layers = model.model.layers[:1]
    expected = model.score(model.dropout(model.classifier_transform(model.model.norm(expected))))
    torch.testing.assert_close(model(IDS).logits, expected)


def test_short_rows_and_asked_for_states_are_mapped_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tiny_config(is_causal=False), model_class=WeftForMaskedLM)
    mapped = rows_mapped(model)
    expected = model(IDS).logits.flatten(0, 1)[PLACES]
    assert torch.equal(model(IDS, predict_from=PLACES).logits, expected)
    monkeypatch.setattr(stack, "LEAST_TOKENS", 1)
    outputs = model(IDS, predict_from=PLACES, output_hidden_states=True)
    torch.testing.assert_close(outputs.logits, expected)
    assert {each.shape[:2] for each in outputs.hidden_states} == {IDS.shape}
    assert mapped == [IDS.numel()] * 3


@pytest.mark.parametrize("kept", [1, 3])
def test_a_prompt_is_read_to_its_end_and_gone_on_from(kept: int, long: None) -> None:
    """The last logits alone, padding on the left, and the tokens behind them by what the cache holds."""
    model = make_model(tiny_config(sliding_window=5, layer_types=[SLIDING, SLIDING], num_hidden_layers=2)).double()
    assert isinstance(model, WeftForCausalLM)
    mask = torch.ones_like(IDS)
    mask[1, :6] = 0
    with torch.no_grad():
        expected = model(IDS, attention_mask=mask).logits
        mapped = rows_mapped(model)
        first = model(IDS[:, :-2], attention_mask=mask[:, :-2], logits_to_keep=kept, use_cache=True)
        rest = model(IDS[:, -2:], attention_mask=mask, past_key_values=first.past_key_values)
    torch.testing.assert_close(first.logits, expected[:, -2 - kept : -2], **EXACT)
    torch.testing.assert_close(rest.logits, expected[:, -2:], **EXACT)
    assert mapped == [3 * kept, 6]


def test_what_is_read_compiles_as_one_graph(long: None) -> None:
    model = make_model(tiny_config(is_causal=False), model_class=WeftForMaskedLM).double()
    with torch.no_grad():
        expected = model(IDS).logits.flatten(0, 1)[PLACES]
        torch._dynamo.reset()
        graph = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(graph(IDS, predict_from=PLACES).logits, expected, **EXACT)


PACKED = torch.cat([torch.arange(tokens) for tokens in (9, 15, 24, 4, 7, 13)]).view(3, 24)
MASK = torch.ones_like(IDS).index_fill(1, torch.tensor([22, 23]), 0)
LAYOUTS: dict[str, dict[str, torch.Tensor]] = {
    "packed": {"position_ids": PACKED},
    "packed and padded": {"position_ids": PACKED, "attention_mask": MASK},
    "padded on the right": {"attention_mask": MASK},
    "padded on the left": {"attention_mask": MASK.flip(1)},
    "whole": {},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
@pytest.mark.parametrize("shape", ["pre", "post", "parallel"])
def test_a_document_is_told_by_one_token(shape: str, pooling: str, layout: str) -> None:
    """Forward and backward in training as where all hidden states are asked for, for classes and for choices."""
    config = tiny_config(is_causal=False, classifier_pooling=pooling, pad_token_id=0, num_labels=2, **SHAPES[shape])
    documents = 6 if "packed" in layout else 3
    classes = {"labels": torch.arange(documents) % 2}
    choices = {"labels": torch.tensor([0, 1]), "choice_counts": torch.tensor([documents - 2, 2])}
    for model_class, more in ((WeftForSequenceClassification, classes), (WeftForMultipleChoice, choices)):
        model = make_model(config, model_class=model_class).double().train()
        batch = {**LAYOUTS[layout], **more}
        mapped = rows_mapped(model)
        expected = loss_and_gradients(model, **batch, output_hidden_states=True)
        found = loss_and_gradients(model, **batch)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, **EXACT)
        assert mapped == [IDS.numel(), IDS.numel() if pooling == "mean" else documents]
        mapped.clear()
        model.eval()(IDS, **LAYOUTS[layout], **{name: each for name, each in more.items() if name != "labels"})
        assert mapped == [IDS.numel()]


def test_choices_that_are_padded_are_told_by_one_token() -> None:
    model = make_model(tiny_config(is_causal=False, classifier_pooling="cls"), model_class=WeftForMultipleChoice)
    ids, mask = IDS.view(1, 3, 24), MASK.view(1, 3, 24)
    mask = mask.index_fill(1, torch.tensor(2), 0)
    expected = model(ids, attention_mask=mask).logits
    torch.testing.assert_close(model.train()(ids, attention_mask=mask).logits, expected)
    assert expected[0, 2] == torch.finfo(expected.dtype).min
