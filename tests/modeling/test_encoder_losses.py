"""The masked and the next-sentence loss: only where it is asked for, exact under every cut of the batch, never NaN."""

from typing import Any

import pytest
import torch
from helpers.models import make_model, make_role, random_ids, tiny_config
from torch import nn
from transformers import PreTrainedModel

from weft import WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining
from weft.losses import masked_lm_loss

EXACT = {"rtol": 0.0, "atol": 1e-11}
IDS = random_ids(4, 13)
PACKED = torch.cat((torch.arange(5), torch.arange(8)))[None].expand(4, -1)
# Three targets in the first row, one in the second, none in the third, two in the last.
PLACES = torch.tensor([[0, 2], [0, 7], [0, 12], [1, 4], [3, 1], [3, 9]])


def labels_at(places: torch.Tensor) -> torch.Tensor:
    """[batch, tokens] with the tokens themselves as targets at [n, 2] places."""
    labels = torch.full_like(IDS, -100)
    labels[places[:, 0], places[:, 1]] = IDS[places[:, 0], places[:, 1]]
    return labels


def loss_and_gradients(model: PreTrainedModel, **inputs: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and the gradient of every weight that has one."""
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(found: tuple[torch.Tensor, dict], expected: tuple[torch.Tensor, dict]) -> None:
    torch.testing.assert_close(found[0], expected[0], **EXACT)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("padding", [0, 5], ids=["as many as there are", "filled up"])
@pytest.mark.parametrize("items", [None, 17, torch.tensor(17)], ids=["mean", "int", "tensor"])
@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("role", ["masked head", "masked head, shifted", "pretraining head"])
def test_the_chosen_places_give_the_loss_of_all(
    role: str, packed: bool, weighted: bool, items: Any, padding: int
) -> None:
    """Loss and gradients, against logits for every token; also with a fixed number of places, some of no meaning."""
    model = make_role(role).double()
    inputs: dict[str, Any] = {"input_ids": IDS, "position_ids": PACKED} if packed else {"input_ids": IDS}
    if items is not None:
        inputs["num_items_in_batch"] = items
    weights = torch.rand(len(PLACES)) + 0.5 if weighted else None
    full, chosen = {"labels": labels_at(PLACES)}, {}
    if weighted:
        full["loss_weights"] = torch.zeros(IDS.shape)
        full["loss_weights"][PLACES[:, 0], PLACES[:, 1]] = weights
        chosen["loss_weights"] = nn.functional.pad(weights, (0, padding), value=3.0)
    predict_from = PLACES[:, 0] * IDS.shape[1] + PLACES[:, 1] - int(role == "masked head, shifted")
    chosen["predict_from"] = nn.functional.pad(predict_from, (0, padding))
    chosen["labels"] = nn.functional.pad(IDS[PLACES[:, 0], PLACES[:, 1]], (0, padding), value=-100)

    found = loss_and_gradients(model, **inputs, **chosen)
    assert_same(found, loss_and_gradients(model, **inputs, **full))

    with torch.no_grad():
        logits = model(**inputs)[0]
        output = model(**inputs, **chosen)
    assert output[1].shape == (len(PLACES) + padding, 61)
    nats = -logits.log_softmax(-1)[PLACES[:, 0], PLACES[:, 1], IDS[PLACES[:, 0], PLACES[:, 1]]]
    torch.testing.assert_close(output.target_nats, nn.functional.pad(nats, (0, padding)), **EXACT)
    weights = torch.ones(len(PLACES)) if weights is None else weights
    by_hand = (nats * weights).sum() / (float(items) if items is not None else weights.double().sum())
    torch.testing.assert_close(output.loss, by_hand, **EXACT)


def test_logits_without_labels_and_with_labels_everywhere() -> None:
    """`predict_from` alone only chooses; `labels` alone takes every place that is not -100."""
    model = make_role("masked head").double()
    with torch.no_grad():
        everywhere = model(IDS).logits
        chosen = model(IDS, predict_from=torch.tensor([3, 14, 14, 0]))
        assert chosen.loss is None and chosen.target_nats is None
        torch.testing.assert_close(chosen.logits, everywhere.flatten(0, 1)[[3, 14, 14, 0]], **EXACT)
        output = model(IDS, labels=IDS)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(everywhere.flatten(0, 1), IDS.flatten()))


@pytest.mark.parametrize("items", [None, 0, torch.tensor(0)], ids=["mean", "int", "tensor"])
@pytest.mark.parametrize("model_class", [WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining])
def test_no_target_is_a_loss_of_nothing(model_class: type, items: Any) -> None:
    """0 and gradients of 0, so that a micro-batch without targets harms no step."""
    model = make_model(model_class=model_class)
    arguments: dict[str, Any] = {"labels": torch.full_like(IDS, -100), "num_items_in_batch": items}
    if model_class is WeftForPreTraining:
        arguments |= {"next_sentence_label": torch.full((4,), -100), "num_pairs_in_batch": items}
    loss, gradients = loss_and_gradients(model, input_ids=IDS, **arguments)
    assert loss.item() == 0
    assert len(gradients) == len(list(model.parameters()))
    assert all((gradient == 0).all() for gradient in gradients.values())


def test_weights_of_zero_are_no_targets() -> None:
    logits, labels = torch.randn(5, 7, dtype=torch.float64), torch.tensor([1, 2, -100, 3, 4])
    weights = torch.tensor([1.0, 0.0, 9.0, 0.0, 2.0])
    expected = masked_lm_loss(logits[[0, 4, 4]], labels[[0, 4, 4]], 7)
    torch.testing.assert_close(masked_lm_loss(logits, labels, 7, loss_weights=weights), expected, **EXACT)
    assert masked_lm_loss(logits, labels, 7, loss_weights=torch.zeros(5)).item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("role", ["masked head", "pretraining head"])
def test_the_loss_of_half_precision_is_computed_in_float32(role: str, dtype: torch.dtype) -> None:
    model = make_role(role).to(dtype)
    labels = labels_at(PLACES)
    with torch.no_grad():
        output = model(IDS, labels=labels)
        logits = output[1].float()
    assert output.loss.dtype == torch.float32 and output[1].dtype == dtype
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(output.loss, expected, rtol=1e-6, atol=0)
    if role == "pretraining head":
        with torch.no_grad():
            output = model(IDS, next_sentence_label=torch.tensor([0, 1, 1, 0]))
        assert output.loss.dtype == output.next_sentence_nats.dtype == torch.float32


ORDER = torch.tensor([1, -100, 0, 1])


def test_both_losses_are_added() -> None:
    """Each a mean over its own targets; either alone, or none, where the other's labels are not given."""
    model = make_role("pretraining head").double()
    labels = labels_at(PLACES)
    with torch.no_grad():
        nothing = model(IDS)
        both = model(IDS, labels=labels, next_sentence_label=ORDER)
        masked_only = model(IDS, labels=labels)
        order_only = model(IDS, next_sentence_label=ORDER)
    assert nothing.loss is None and nothing.next_sentence_nats is None
    assert nothing.prediction_logits.shape == (4, 13, 61) and nothing.seq_relationship_logits.shape == (4, 2)
    masked = nn.functional.cross_entropy(nothing.prediction_logits.flatten(0, 1), labels.flatten())
    order = nn.functional.cross_entropy(nothing.seq_relationship_logits[[0, 2, 3]], ORDER[[0, 2, 3]])
    torch.testing.assert_close(masked_only.loss, masked, **EXACT)
    torch.testing.assert_close(order_only.loss, order, **EXACT)
    torch.testing.assert_close(both.loss, masked + order, **EXACT)
    assert both.next_sentence_nats[1] == 0
    torch.testing.assert_close(both.next_sentence_nats.sum() / 3, order, **EXACT)
    with torch.no_grad():
        column = model(IDS, next_sentence_label=ORDER[:, None])
    assert torch.equal(column.loss, order_only.loss)


@pytest.mark.parametrize("cut", [[4], [1, 3], [2, 2], [1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("chosen", [False, True], ids=["labels everywhere", "predict_from"])
def test_how_the_batch_is_cut_changes_nothing(chosen: bool, cut: list[int]) -> None:
    """Parts without a masked token or without a next-sentence label included."""
    model = make_role("pretraining head").double()
    whole = loss_and_gradients(model, input_ids=IDS, labels=labels_at(PLACES), next_sentence_label=ORDER)
    model.zero_grad()
    total, start = torch.zeros((), dtype=torch.float64), 0
    for rows in cut:
        here = slice(start, start + rows)
        labels = {"labels": labels_at(PLACES)[here]}
        if chosen:
            place = PLACES[(PLACES[:, 0] >= start) & (PLACES[:, 0] < start + rows)]
            labels = {
                "labels": IDS[place[:, 0], place[:, 1]],
                "predict_from": (place[:, 0] - start) * IDS.shape[1] + place[:, 1],
            }
        counts = {"num_items_in_batch": len(PLACES), "num_pairs_in_batch": torch.tensor(3)}
        loss = model(IDS[here], **labels, next_sentence_label=ORDER[here], **counts).loss
        loss.backward()
        total, start = total + loss.detach(), start + rows
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert_same((total, gradients), whole)


def test_as_many_next_sentence_labels_as_documents_are_needed() -> None:
    model = make_role("pretraining head")
    with pytest.raises(ValueError, match="next_sentence_label has 4 values for 8 documents: give one for each"):
        model(IDS, position_ids=PACKED, next_sentence_label=ORDER)


def pooled_by_hand(model: WeftForPreTraining, document: torch.Tensor) -> torch.Tensor:
    """Next-sentence logits of one document alone [1, tokens]."""
    first = model.model(document, is_causal=False).last_hidden_state[:, 0]
    return model.seq_relationship(torch.tanh(model.pooler.dense(first)))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_first_token_of_a_padded_row_is_pooled(side: str) -> None:
    model = make_role("pretraining head").double()
    lengths = (13, 6, 1, 9)
    mask = (torch.arange(13) < torch.tensor(lengths)[:, None]).long()
    mask = mask.flip(-1) if side == "left" else mask
    with torch.no_grad():
        found = model(IDS, attention_mask=mask).seq_relationship_logits
        other_padding = model(IDS * mask, attention_mask=mask).seq_relationship_logits
        for row in range(4):
            alone = pooled_by_hand(model, IDS[row][mask[row].bool()][None])
            torch.testing.assert_close(found[row : row + 1], alone, **EXACT)
    assert torch.equal(found, other_padding)


@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_every_document_of_a_packed_row_is_pooled_in_order(side: str) -> None:
    model = make_role("pretraining head").double()
    lengths = [(5, 8), (4, 6), (9,), (1, 1, 1)]
    if side == "none":
        lengths = [(5, 8), (5, 8), (5, 8), (5, 8)]
    mask, positions = torch.zeros_like(IDS), torch.zeros_like(IDS)
    documents = []
    for row, parts in enumerate(lengths):
        start = 13 - sum(parts) if side == "left" else 0
        for length in parts:
            here = slice(start, start + length)
            mask[row, here], positions[row, here] = 1, torch.arange(length)
            documents.append((row, start, IDS[row : row + 1, here]))
            start += length
    arguments = {"position_ids": positions, **({} if side == "none" else {"attention_mask": mask})}
    with torch.no_grad():
        found = model(IDS, **arguments).seq_relationship_logits
        expected = torch.cat([pooled_by_hand(model, ids) for _, _, ids in documents])
        places = torch.tensor([row * 13 + start for row, start, _ in documents])
        given = model(IDS, **arguments, pool_from=places.flip(0)).seq_relationship_logits
        if side == "none":
            assert torch.equal(model(IDS, position_ids=positions[:1]).seq_relationship_logits, found)
    torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(given, found.flip(0), **EXACT)


def test_a_row_of_only_padding_still_counts_as_a_document() -> None:
    """So that labels and rows stay together."""
    model = make_model(tiny_config(), model_class=WeftForPreTraining)
    mask = torch.ones_like(IDS)
    mask[2] = 0
    with torch.no_grad():
        assert model(IDS, attention_mask=mask).seq_relationship_logits.shape == (4, 2)
