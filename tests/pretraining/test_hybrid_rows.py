"""Masked and hybrid rows against plain loops, and batches that compute the head at targets only against full ones."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.masks import VOCAB_SIZE, VOCABULARY, mask_by_hand, random_text, write_marked
from helpers.models import make_model, tiny_config

from weft import WeftForCausalLM, WeftForMaskedLM
from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.collators import MaskedCollator
from weft.recipes.pretraining.datasets.hybrid import CAUSAL, HybridArguments, HybridCollator, HybridRows
from weft.recipes.pretraining.datasets.masked import MaskedRows, MaskedValidationRows
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.hybrid import HybridObjective
from weft.recipes.pretraining.objectives.masked import MaskedObjective
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.trainer import LossParts, PretrainingTrainer
from weft.recipes.training.batch_schedule import Steps

ROW = 16
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lengths = np.random.default_rng(0).integers(1, 60, 30)
    return write_marked(tmp_path_factory.mktemp("hybrid") / "ids", *random_text(lengths), held_out=lambda i: i % 5 == 4)


def masker_for(corpus, scheme="span", **fields):
    return Masker(corpus, MaskingArguments(masking=scheme, **fields), VOCABULARY, 3)


def make_rows(corpus, hybrid=None, number=10**6, per_step=4, scheme="span", **fields):
    rows = TrainingRows(corpus, ROW, number, seed=1, overlap=0 if hybrid is None else 1)
    masker, steps = masker_for(corpus, scheme, **fields), Steps(per_step, number // per_step)
    return MaskedRows(rows, masker, steps) if hybrid is None else HybridRows(rows, masker, steps, hybrid)


def row_by_hand(spans, masker, rate, kind):
    """A row of kind masked, shifted (masked, predicted from the place before) or causal, token by token."""
    row = {"input_ids": [], "position_ids": [], "targets": []}
    for span in spans:
        ids = span.tokens.tolist()
        selected, masked = mask_by_hand(masker, span.document, rate, span.pass_number)
        places = len(ids) if kind == "masked" else len(ids) - 1
        for i in range(places):
            at = span.first + i
            row["position_ids"].append(i)
            row["input_ids"].append(ids[i] if kind == "causal" else masked[at])
            if kind == "causal":
                row["targets"].append(ids[i + 1])
            elif kind == "shifted":
                row["targets"].append(ids[i + 1] if selected[at + 1] else IGNORE_INDEX)
            else:
                row["targets"].append(ids[i] if selected[at] else IGNORE_INDEX)
    return row


@pytest.mark.parametrize("hybrid", [None, HybridArguments(causal_share=0.4)], ids=["masked", "hybrid"])
@pytest.mark.parametrize("scheme", ["token", "span"])
def test_rows_are_those_of_a_plain_loop(corpus, scheme, hybrid):
    rows = make_rows(corpus, hybrid, number=120, scheme=scheme, mask_rate=0.6, mask_rate_end=0.1)
    assert rows.rows.rows_per_epoch < 60  # two passes
    for index in range(0, 120, 3):
        rate = 0.6 - 0.5 * (index // 4) / 29
        kind = "masked" if hybrid is None else "causal" if rows.kind_of(index) == CAUSAL else "shifted"
        row, expected = rows[index], row_by_hand(rows.rows.spans(index), rows.masker, rate, kind)
        for name, values in expected.items():
            assert row[name].tolist() == values, (index, name)
            assert row[name].dtype == np.int64
        assert row["is_causal"] == (kind == "causal")
        assert row["weight"] == pytest.approx(1 / rate if kind == "shifted" else 1.0)


@pytest.mark.parametrize("overlap", [0, 1])
def test_the_rows_of_an_epoch_mask_each_document_as_a_whole_and_predict_a_token_once(corpus, overlap):
    hybrid = HybridArguments(causal_share=0.0) if overlap else None
    rows = make_rows(corpus, hybrid, mask_rate=0.3, mask_rate_end=None)
    seen, predicted = {}, Counter()
    for index in range(rows.rows.rows_per_epoch):
        row, place = rows[index], 0
        for span in rows.rows.spans(index):
            for i in range(len(span.tokens) - overlap):
                at = (span.document, span.first + i)
                assert seen.setdefault(at, row["input_ids"][place]) == row["input_ids"][place]
                if row["targets"][place] != IGNORE_INDEX:
                    predicted[span.document, span.first + i + overlap] += 1
                place += 1
    assert set(predicted.values()) == {1}
    expected, text = set(), {}
    for document in corpus.documents("train").tolist():
        selected, masked = mask_by_hand(rows.masker, document, 0.3)
        expected |= {(document, i) for i, flag in enumerate(selected) if flag}
        text |= {(document, i): token for i, token in enumerate(masked)}
    assert set(predicted) <= expected and len(expected - set(predicted)) < ROW  # the last row is not full
    assert all(text[at] == token for at, token in seen.items())


@pytest.mark.parametrize("share", [0.0, 1 / 16, 0.3, 0.5, 0.77, 1.0])
def test_the_causal_share_is_exact_to_a_row_over_every_stretch(corpus, share):
    rows = make_rows(corpus, HybridArguments(causal_share=share))
    kinds = [rows.kind_of(index) == CAUSAL for index in range(3000)]
    counts = np.concatenate(([0], np.cumsum(kinds)))
    assert (np.abs(counts - share * np.arange(3001)) <= 1).all()
    for length in (1, 2, 7, 8, 16, 64):  # micro-batches and steps of any size
        inside = counts[length:] - counts[:-length]
        assert (np.abs(inside - share * length) < 1 + 1e-9).all()


def test_kinds_and_contents_depend_on_the_row_only(corpus):
    """Whatever was read before: any number of processes, workers and rows of a micro-batch."""
    hybrid = HybridArguments(causal_share=0.3)
    expected = [make_rows(corpus, hybrid, number=80)[index] for index in range(80)]
    for step in (3, 7, 11):
        rows = make_rows(corpus, hybrid, number=80)
        for index in (i * step % 80 for i in range(80)):
            for name, value in expected[index].items():
                assert np.array_equal(rows[index][name], value)


@pytest.mark.parametrize("steps, expected", [(0, 0), (1, 1), (5, 5), (0.5, 10), (0.26, 5)])
def test_the_first_rows_are_causal_up_to_the_switch(corpus, steps, expected):
    rows = make_rows(corpus, HybridArguments(causal_share=0.25, causal_steps=steps), number=160, per_step=8)
    after = make_rows(corpus, HybridArguments(causal_share=0.25), number=160, per_step=8)
    kinds = [rows.kind_of(index) == CAUSAL for index in range(160)]
    assert kinds == [index < 8 * expected or after.kind_of(index) == CAUSAL for index in range(160)]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"causal_share": -0.1}, "causal_share is -0.1: give at least 0 and at most 1"),
        ({"causal_share": 1.5}, "causal_share is 1.5"),
        ({"causal_share": math.nan}, "causal_share is nan"),
        ({"causal_steps": -1}, "causal_steps is -1"),
        ({"causal_steps": math.nan}, "causal_steps is nan"),
    ],
)
def test_shares_that_make_no_sense_are_refused(fields, message):
    HybridArguments().check()
    with pytest.raises(RecipeError, match=message):
        HybridArguments(**fields).check()


def test_validation_rows_mask_all_of_the_held_out_text_and_end_with_padding(corpus):
    rows = MaskedValidationRows(ValidationRows(corpus, ROW, overlap=0), masker_for(corpus), 0.4)
    expected_ids, expected_targets = [], []
    for document in corpus.documents("validation").tolist():
        selected, masked = mask_by_hand(rows.masker, document, 0.4)
        ids = corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]].tolist()
        expected_ids += masked
        expected_targets += [token if flag else IGNORE_INDEX for token, flag in zip(ids, selected)]
    found = [rows[index] for index in range(len(rows) + 2)]
    missing = len(found) * ROW - len(expected_ids)
    assert 2 * ROW <= missing < 3 * ROW
    assert np.concatenate([row["input_ids"] for row in found]).tolist() == expected_ids + [0] * missing
    targets = np.concatenate([row["targets"] for row in found]).tolist()
    assert targets == expected_targets + [IGNORE_INDEX] * missing
    padding = missing - 2 * ROW
    assert padding > 0 and found[-3]["position_ids"].tolist()[-padding:] == list(range(padding))
    assert found[-1]["position_ids"].tolist() == list(range(ROW))


# Batches: the head at targets only, against a head at every place.


def model_in_float64(masked_next_token):
    config = tiny_config(vocab_size=VOCAB_SIZE, is_causal=False, masked_next_token=masked_next_token)
    return make_model(config, model_class=WeftForMaskedLM).double()


def gradients_of(loss, *models):
    loss.backward()
    total = {}
    for model in models:
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                total[name] = total.get(name, 0) + weight.grad
    return loss.detach(), total


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], **EXACT)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, **EXACT)


MASKED, HYBRID = MaskedObjective(MaskingArguments()), HybridObjective(MaskingArguments(), HybridArguments())


def count_items(batches, objective=HYBRID):
    """What the trainer divides the losses of these micro-batches by."""
    trainer = SimpleNamespace(args=SimpleNamespace(world_size=1), objective=objective)
    return PretrainingTrainer._get_num_items_in_batch(trainer, batches, torch.device("cpu"))


def given(batch):
    """What of a batch the model is given."""
    return {name: value for name, value in batch.items() if name not in HYBRID.kept_back}


def loss_of(model, batch, items):
    return model(**given(batch), num_items_in_batch=items).loss


def stack(rows, name):
    return torch.from_numpy(np.stack([row[name] for row in rows]))


@pytest.mark.parametrize("target_share", [None, 0.9])
def test_a_masked_batch_has_loss_and_gradients_of_logits_everywhere(corpus, target_share):
    rows = [make_rows(corpus, mask_rate=0.4)[index] for index in range(6)]
    batch = MaskedCollator(target_share=target_share)(rows)
    assert len(batch["labels"]) == (86 if target_share else sum((row["targets"] >= 0).sum() for row in rows))
    model, other = model_in_float64(False), model_in_float64(False)
    found = gradients_of(model(**batch, num_items_in_batch=count_items([batch], MASKED)).loss, model)
    ids, positions, labels = (stack(rows, name) for name in ("input_ids", "position_ids", "targets"))
    assert_same(found, gradients_of(other(ids, position_ids=positions, labels=labels).loss, other))


@pytest.mark.parametrize("target_share", [None, 0.9])
def test_a_hybrid_batch_is_its_masked_rows_and_its_causal_rows(corpus, target_share):
    """Against the shifted full path of the masked class and the causal class, each on its own rows."""
    every = make_rows(corpus, HybridArguments(causal_share=0.4), mask_rate=0.3, mask_rate_end=None)
    rows = [every[index] for index in range(8)]
    causal, masked = [row for row in rows if row["is_causal"]], [row for row in rows if not row["is_causal"]]
    assert len(causal) == 3
    batch = HybridCollator(target_share)(rows)
    model = model_in_float64(True)
    found = gradients_of(loss_of(model, batch, count_items([batch])), model)

    shifted = model_in_float64(True)
    next_token = WeftForCausalLM(shifted.config).double()
    next_token.load_state_dict(model.state_dict())
    ids, positions = stack(masked, "input_ids"), stack(masked, "position_ids")
    targets = stack(masked, "targets")
    labels = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=IGNORE_INDEX)
    # What is predicted from the last place of a document stands in no input: the full path has no place for it.
    last = torch.nn.functional.pad(positions[:, 1:], (0, 1)) == 0
    labels[torch.nn.functional.pad(last[:, :-1], (1, 0))] = IGNORE_INDEX
    hidden = shifted.model(ids, position_ids=positions, is_causal=False, use_cache=False).last_hidden_state
    at_ends = torch.nn.functional.cross_entropy(
        shifted.get_logits(hidden[last]), targets[last], ignore_index=IGNORE_INDEX, reduction="sum"
    )
    in_rows = shifted(ids, position_ids=positions, labels=labels, num_items_in_batch=1).loss
    on_causal = next_token(
        stack(causal, "input_ids"),
        position_ids=stack(causal, "position_ids"),
        labels=stack(causal, "targets"),
        shift_labels=stack(causal, "targets"),
        num_items_in_batch=1,
        use_cache=False,
    ).loss
    weight = 1 / 0.3
    items = 3 * ROW + weight * (targets != IGNORE_INDEX).sum()
    assert float(count_items([batch])) == pytest.approx(float(items), rel=1e-6)
    expected = ((in_rows + at_ends) * float(np.float32(weight)) + on_causal) / float(count_items([batch]))
    assert_same(found, gradients_of(expected, shifted, next_token))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_how_a_hybrid_step_is_cut_changes_nothing(corpus, micro_batch, share):
    every = make_rows(corpus, HybridArguments(causal_share=share), per_step=8, number=80)
    rows, collate = [every[index] for index in range(32, 40)], HybridCollator()
    model, other = model_in_float64(True), model_in_float64(True)
    whole = collate(rows)
    expected = gradients_of(loss_of(model, whole, count_items([whole])), model)
    parts = [collate(rows[i : i + micro_batch]) for i in range(0, 8, micro_batch)]
    items = count_items(parts)
    loss = sum(loss_of(other, part, items) for part in parts)
    assert_same(gradients_of(loss, other), expected)


def test_the_parts_of_the_loss_are_those_of_the_rows(corpus):
    every = make_rows(corpus, HybridArguments(causal_share=0.4))
    rows, model, parts = [every[index] for index in range(8)], model_in_float64(True), LossParts()
    nats = {True: [], False: []}
    with torch.no_grad():
        for some in (rows[:3], rows[3:]):
            batch = HybridCollator(target_share=1.0)(some)
            parts.add(HYBRID.loss_parts(batch, model(**given(batch))))
        for row in rows:
            batch = HybridCollator()([row])
            nats[row["is_causal"]] += model(**given(batch)).target_nats.tolist()
    found = parts.take(SimpleNamespace(num_processes=1))
    expected = {"loss_causal": np.mean(nats[True]), "loss_masked": np.mean(nats[False])}
    assert found == pytest.approx(expected, rel=1e-5)
    assert parts.take(SimpleNamespace(num_processes=1)) == {}


def test_a_batch_with_more_targets_than_its_share_leaves_some_out_evenly(corpus):
    every = make_rows(corpus, mask_rate=0.5, mask_rate_end=None)
    rows = [every[index] for index in range(8)]
    full, short = MaskedCollator()(rows), MaskedCollator(target_share=0.25)(rows)
    assert len(short["labels"]) == 32 < len(full["labels"])
    kept = np.flatnonzero(np.isin(full["predict_from"], short["predict_from"]))
    assert len(kept) == 32 and np.ptp(np.diff(kept)) <= 1
    assert torch.equal(short["labels"], full["labels"][kept])


PLAN = Plan(ROW, rows_per_step=8, rows_per_epoch=40, micro_batch=4, accumulation=2, processes=1, max_steps=10)


@pytest.mark.parametrize(
    "hybrid, share, needed",
    [
        (None, 0.29, "30.00%.*give at least 0.3,"),
        (HybridArguments(causal_share=0.3), 0.64, "65.00%.*at least 0.65"),
        (HybridArguments(causal_share=0.3, causal_steps=1), 0.9, "100.00%.*at least 1.0"),
    ],
    ids=str,
)
def test_a_share_that_batches_will_not_fit_is_refused_before_training(corpus, hybrid, share, needed):
    def start(target_share):
        arguments = MaskingArguments(mask_rate=0.3, target_share=target_share)
        objective = MaskedObjective(arguments) if hybrid is None else HybridObjective(arguments, hybrid)
        objective.masker = masker_for(corpus)
        objective.make_rows(TrainingRows(corpus, ROW, 0, 1, objective.overlap), PLAN)

    with pytest.raises(RecipeError, match=f"target_share is {share}, but up to {needed}"):
        start(share)
    start(1.0)
    start(None)
