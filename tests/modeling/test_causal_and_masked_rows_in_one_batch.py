"""One forward may hold causal rows beside bidirectional ones: each is computed as the class of its kind would."""

import itertools
import shutil
from typing import Any

import pytest
import torch
from helpers.flash import use_stand_in
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from torch import nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from weft import WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining, WeftModel

ROUNDING = {"rtol": 0.0, "atol": 2e-5}
LAYERS: dict[str, dict[str, Any]] = {
    "full": {},
    "sliding": {"sliding_window": 4},
    "mixed": {"sliding_window": 4, "layer_types": [SLIDING, FULL]},
}
CAUSAL_ROWS = torch.tensor([True, False, True, False])
LENGTH = 16
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")),
    reason="flex_attention on a CPU is compiled with a C++ compiler",
)


def inputs_of(kind: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Four rows, and what stands beside them: padding on one side or the other, or documents, or both."""
    ids = random_ids(4, LENGTH)
    mask = torch.ones_like(ids)
    mask[0, :5], mask[1, :2], mask[3, 12:] = 0, 0, 0
    positions = torch.cat((torch.arange(7), torch.arange(LENGTH - 7)))[None].expand(4, -1)
    return ids, {
        "plain": {},
        "padded": {"attention_mask": mask},
        "packed": {"position_ids": positions},
        "packed and padded": {"position_ids": positions, "attention_mask": mask.sort(descending=True).values},
    }[kind]


def trio(backend: str, layers: str, **changes: Any) -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedModel]:
    """The same weights as masked head, causal head and masked head again (the one under test)."""
    config = tiny_config(**LAYERS[layers], **changes)
    classes = (WeftForMaskedLM, WeftForCausalLM, WeftForMaskedLM)
    masked, causal, mixed = (make_model(config, backend, model_class) for model_class in classes)
    return masked, causal, mixed


KINDS = ["plain", "padded", "packed", "packed and padded"]
# flex_attention compiles every kind of mask, which takes long: the richest is tried.
CASES = [
    *itertools.product(("eager", "sdpa"), LAYERS, KINDS),
    pytest.param("flex_attention", "sliding", "packed and padded", marks=needs_compiler),
]


@pytest.mark.parametrize(("backend", "layers", "kind"), CASES)
def test_each_row_is_as_its_own_class_computes_it(backend: str, layers: str, kind: str) -> None:
    reference = "eager" if backend == "flex_attention" else backend
    (masked, causal, _), (*_, mixed) = trio(reference, layers), trio(backend, layers)
    ids, beside = inputs_of(kind)
    real = beside.get("attention_mask", torch.ones_like(ids)).bool()
    with torch.no_grad():
        found = mixed(ids, **beside, causal_rows=CAUSAL_ROWS).logits
        expected = torch.where(CAUSAL_ROWS[:, None, None], causal(ids, **beside).logits, masked(ids, **beside).logits)
        torch.testing.assert_close(found[real], expected[real], **ROUNDING)
        if backend != "flex_attention":
            shown = expected.flatten(0, 1)[:: LENGTH // 2]
            chosen = mixed(ids, **beside, causal_rows=CAUSAL_ROWS, predict_from=torch.arange(0, ids.numel(), 8)).logits
            is_real = real.flatten()[:: LENGTH // 2]
            torch.testing.assert_close(chosen[is_real], shown[is_real], **ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", list(LAYERS))
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_loss_and_gradients_are_the_sum_of_both_kinds(backend: str, layers: str, kind: str) -> None:
    """One step over rows of both kinds, with a shifted head, against a causal and a masked step one after the other."""
    masked, causal, mixed = (model.double() for model in trio(backend, layers, masked_next_token=True))
    ids, beside = inputs_of(kind)
    is_target = beside.get("attention_mask", torch.ones_like(ids)).bool() & (torch.rand(ids.shape) < 0.5)
    starts = nn.functional.pad(beside["position_ids"].diff() != 1, (1, 0), value=True) if "packed" in kind else False
    first = beside.get("attention_mask", torch.ones_like(ids)).cumsum(-1) == 1
    labels = ids.masked_fill(~is_target | starts | first, -100)
    items = int((labels != -100).sum())
    losses = []
    for model, rows in ((causal, CAUSAL_ROWS), (masked, ~CAUSAL_ROWS)):
        part = {name: value[rows] for name, value in beside.items()}
        losses.append(model(ids[rows], **part, labels=labels[rows], num_items_in_batch=items).loss)
        losses[-1].backward()
    place = (labels != -100).flatten().nonzero().flatten()
    targets = {"labels": labels.flatten()[place], "predict_from": place - 1}
    loss = mixed(ids, **beside, **targets, causal_rows=CAUSAL_ROWS, num_items_in_batch=items).loss
    loss.backward()
    torch.testing.assert_close(loss, sum(losses), rtol=0, atol=1e-11)
    gradients = [dict(model.named_parameters()) for model in (causal, masked, mixed)]
    for name in gradients[0]:
        one, other, both = (table[name].grad for table in gradients)
        torch.testing.assert_close(both, one + other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_nothing_later_is_seen_in_a_causal_row(backend: str) -> None:
    """To the bit; and the other rows see everything."""
    *_, mixed = trio(backend, "full")
    ids, _ = inputs_of("plain")
    later = ids.clone()
    later[:, 9:] = 3 + (ids[:, 9:] + 11) % 58
    with torch.no_grad():
        before, after = (mixed(given, causal_rows=CAUSAL_ROWS).logits[:, :9] for given in (ids, later))
    assert torch.equal(before[CAUSAL_ROWS], after[CAUSAL_ROWS])
    assert (before[~CAUSAL_ROWS] != after[~CAUSAL_ROWS]).any(dim=-1).all()


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("direction", ["all", "none", "numbers"])
def test_all_rows_of_one_kind(direction: str, backend: str) -> None:
    """Also where a caller writes 1 and 0 for True and False."""
    masked, causal, mixed = trio(backend, "mixed")
    ids, beside = inputs_of("padded")
    rows = {"all": torch.ones(4).bool(), "none": torch.zeros(4).bool(), "numbers": CAUSAL_ROWS.long()}[direction]
    real = beside["attention_mask"].bool()
    with torch.no_grad():
        found = mixed(ids, **beside, causal_rows=rows).logits
        expected = torch.where(rows.bool()[:, None, None], causal(ids, **beside).logits, masked(ids, **beside).logits)
    torch.testing.assert_close(found[real], expected[real], **ROUNDING)


def test_the_base_and_the_pretraining_class_obey_too() -> None:
    ids, beside = inputs_of("packed")
    base = make_model(tiny_config(is_causal=False), model_class=WeftModel)
    head = make_model(model_class=WeftForPreTraining)
    with torch.no_grad():
        states = base(ids, **beside, causal_rows=CAUSAL_ROWS).last_hidden_state
        for causal in (True, False):
            expected = base(ids, **beside, is_causal=causal).last_hidden_state
            rows = CAUSAL_ROWS if causal else ~CAUSAL_ROWS
            torch.testing.assert_close(states[rows], expected[rows], **ROUNDING)
        mixed = head(ids, **beside, causal_rows=CAUSAL_ROWS)
        by_hand = head.model(ids, **beside, is_causal=False, causal_rows=CAUSAL_ROWS).last_hidden_state
        assert torch.equal(mixed.prediction_logits, head.get_logits(by_hand))
        pooled = head.pooler(by_hand[:, [0, 7]].flatten(0, 1))
        torch.testing.assert_close(mixed.seq_relationship_logits, head.seq_relationship(pooled), **ROUNDING)


def test_a_causal_head_is_causal_in_every_row() -> None:
    causal = make_model()
    ids, beside = inputs_of("padded")
    real = beside["attention_mask"].bool()
    with torch.no_grad():
        found = causal(ids, **beside, causal_rows=CAUSAL_ROWS).logits
        torch.testing.assert_close(found[real], causal(ids, **beside).logits[real], **ROUNDING)


def test_flash_attention_refuses_two_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = use_stand_in(make_model(model_class=WeftForMaskedLM), monkeypatch)
    ids, _ = inputs_of("plain")
    with torch.no_grad():
        assert model(ids).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"causal_rows cannot change .* flash attention's one direction in a batch"):
        model(ids, causal_rows=CAUSAL_ROWS)


def test_a_ready_made_mask_and_causal_rows_contradict_each_other() -> None:
    model = make_model(model_class=WeftForMaskedLM)
    ids, _ = inputs_of("plain")
    everything = torch.ones(4, 1, LENGTH, LENGTH, dtype=torch.bool)
    made = create_bidirectional_mask(model.config, torch.zeros(4, LENGTH, 32), torch.ones(4, LENGTH))
    for mask in (everything, {FULL: everything}, {FULL: made}):
        with torch.no_grad():
            torch.testing.assert_close(model(ids, attention_mask=mask).logits, model(ids).logits, **ROUNDING)
        with pytest.raises(ValueError, match="causal_rows cannot change a ready-made attention_mask"):
            model(ids, attention_mask=mask, causal_rows=CAUSAL_ROWS)
