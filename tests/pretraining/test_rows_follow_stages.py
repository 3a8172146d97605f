"""What is masked, and which rows are causal, may change in stages of a run; without stages both are what they were."""

import numpy as np
import pytest
import torch
from helpers.masks import VOCAB_SIZE, VOCABULARY, random_text, write_marked
from helpers.models import make_model, tiny_config

from weft import WeftForCausalLM, WeftForMaskedLM
from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.hybrid import CAUSAL, HybridArguments, HybridCollator, HybridRows
from weft.recipes.pretraining.datasets.masked import MaskedRows, masked_row
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.pretraining.objectives.causal import CausalObjective
from weft.recipes.pretraining.objectives.hybrid import HybridObjective
from weft.recipes.pretraining.objectives.masked import MaskedObjective
from weft.recipes.pretraining.plan import Plan
from weft.recipes.training.batch_schedule import Steps

ROW, PER_STEP = 16, 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lengths = np.random.default_rng(0).integers(1, 60, 30)
    return write_marked(tmp_path_factory.mktemp("stages") / "ids", *random_text(lengths))


def make_rows(corpus, hybrid=None, steps=40, overlap=0, **masking):
    packed = TrainingRows(corpus, ROW, steps * PER_STEP, seed=1, overlap=overlap)
    masker, of_steps = Masker(corpus, MaskingArguments(**masking), VOCABULARY, 3), Steps(PER_STEP, steps)
    return MaskedRows(packed, masker, of_steps) if hybrid is None else HybridRows(packed, masker, of_steps, hybrid)


def same(row, other, but=()):
    return row.keys() == other.keys() and all(np.array_equal(row[name], other[name]) for name in row if name not in but)


@pytest.mark.parametrize(
    "masking",
    [{}, {"mask_rate": 0.4}, {"mask_rate_end": 0.2}, {"mask_rate": 0.6, "mask_rate_end": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("steps", [1, 2, 13, 1000])
def test_without_stages_the_rate_is_what_it_was_to_the_last_bit(masking, steps):
    arguments = MaskingArguments(**masking)
    first = masking.get("mask_rate", 0.3)
    last = masking.get("mask_rate_end", masking.get("mask_rate", 0.15))
    for step in range(steps + 2):
        line = first if steps < 2 else first + (last - first) * min(step, steps - 1) / (steps - 1)
        assert arguments.rate_at(step, steps) == line
    assert arguments.final_rate == arguments.held_out_rate == last


@pytest.mark.parametrize("share", [0.0, 1 / 16, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("first", [0, 1, 5, 2.5, 0.26, 0.5])
def test_without_stages_the_same_rows_are_causal_as_before(corpus, share, first):
    rows = make_rows(corpus, HybridArguments(causal_share=share, causal_steps=first), steps=20, overlap=1)
    switch = round(first * 20) if first < 1 else int(first)
    for index in range(20 * PER_STEP):
        was_causal = index // PER_STEP < switch or int((index + 1) * share) > int(index * share)
        assert (rows.kind_of(index) == CAUSAL) == was_causal


def test_the_rate_of_a_row_is_that_of_its_stage(corpus):
    rows = make_rows(corpus, mask_rate="0.6@0.5,0.3@10,0.05")
    found = {}
    for index in range(40 * PER_STEP):
        step = index // PER_STEP
        rate = 0.6 if step < 20 else 0.3 if step < 30 else 0.05
        assert rows.rate_of(index) == rate
        spans = rows.rows.spans(index)
        assert same(rows[index], masked_row(spans, rows.masker, rate, 0))
        text = ~np.isin(np.concatenate([span.tokens for span in spans]), VOCABULARY.special)
        assert not (rows[index]["targets"][~text] != IGNORE_INDEX).any()
        masked, every = found.get(rate, (0, 0))
        found[rate] = (masked + (rows[index]["targets"] != IGNORE_INDEX).sum(), every + text.sum())
    for rate, (masked, every) in found.items():
        assert abs(masked / every - rate) < 5 * np.sqrt(rate * (1 - rate) / every), rate


def test_the_share_of_causal_rows_is_that_of_their_stage(corpus):
    rows = make_rows(corpus, HybridArguments(causal_share="1@0.25,0.3@20,0"), overlap=1)
    kinds = np.array([(rows.kind_of(index) == CAUSAL) for index in range(40 * PER_STEP)])
    stages = [kinds[:80], kinds[80:240], kinds[240:]]
    assert stages[0].all() and not stages[2].any()
    counts = np.concatenate(([0], np.cumsum(stages[1])))
    assert (np.abs(counts - 0.3 * np.arange(161)) <= 1).all()  # evenly over every stretch
    assert [rows[index]["is_causal"] for index in (0, 79, 319)] == [True, True, False]


def test_a_share_that_rises_is_kept_within_a_row_in_every_step(corpus):
    rows = make_rows(corpus, HybridArguments(causal_share="0..1"), steps=101, overlap=1)
    kinds = np.array([(rows.kind_of(index) == CAUSAL) for index in range(101 * PER_STEP)]).reshape(101, PER_STEP)
    wanted = np.arange(101) / 100
    assert (np.abs(kinds.sum(1) - PER_STEP * wanted) < 1 + 1e-9).all()
    assert abs(kinds.mean() - 0.5) < 0.02


def causal_row_by_hand(corpus, spans):
    row = {"input_ids": [], "targets": [], "position_ids": []}
    for span in spans:
        first, last = int(corpus.offsets[span.document]), int(corpus.offsets[span.document + 1])
        ids = corpus.tokens[first:last].tolist()
        for i in range(len(span.tokens)):
            at = span.first + i
            row["input_ids"].append(ids[at])
            row["targets"].append(ids[at + 1] if at + 1 < len(ids) else IGNORE_INDEX)
            row["position_ids"].append(i)
    return row


PLAIN = HybridArguments(causal_share="1@0.25,0", masked_next_token=False)


def test_causal_rows_of_a_masked_model_predict_the_next_token_and_behind_them_its_rows_are_those_of_a_masked_run(
    corpus,
):
    rows, masked = make_rows(corpus, PLAIN, masking="span"), make_rows(corpus, masking="span")
    for index in range(40 * PER_STEP):
        row, spans = rows[index], rows.rows.spans(index)
        if index < 10 * PER_STEP:
            assert row["is_causal"] and row["weight"] == 1
            for name, values in causal_row_by_hand(corpus, spans).items():
                assert row[name].tolist() == values and row[name].dtype == np.int64
        else:
            assert not row.pop("is_diffusion") and same(row, masked[index], but=("weight",))
            assert row["weight"] == 1 / masked.rate_of(index)


def test_an_epoch_of_causal_rows_of_tokens_predicts_every_token_but_the_first_of_a_document_once(corpus):
    rows = make_rows(corpus, HybridArguments(causal_share=1.0))
    found = []
    for index in range(rows.rows.rows_per_epoch):
        place, targets = 0, rows[index]["targets"]
        for span in rows.rows.spans(index):
            for i in range(len(span.tokens)):
                if targets[place] != IGNORE_INDEX:
                    found.append((span.document, span.first + i + 1))
                place += 1
    lengths = np.diff(corpus.offsets)
    every = {(document, i) for document in range(30) for i in range(1, lengths[document])}
    assert len(set(found)) == len(found) and set(found) <= every
    assert len(every) - len(found) < ROW  # the last row is not full


def test_causal_rows_of_a_masked_model_have_the_loss_of_a_causal_one(corpus):
    rows = [make_rows(corpus, HybridArguments(causal_share=1.0))[index] for index in range(4)]
    config = tiny_config(vocab_size=VOCAB_SIZE, is_causal=False, masked_next_token=False)
    model = make_model(config, model_class=WeftForMaskedLM).double()
    causal = WeftForCausalLM(model.config).double()
    causal.load_state_dict(model.state_dict())
    batch = HybridCollator()(rows)
    ids, positions, targets = (
        torch.from_numpy(np.stack([row[name] for row in rows])) for name in ("input_ids", "position_ids", "targets")
    )
    number = int((targets != IGNORE_INDEX).sum())
    assert number == len(batch["labels"]) < targets.numel()  # nothing is predicted behind the end of a document
    expected = causal(
        ids, position_ids=positions, labels=targets, shift_labels=targets, num_items_in_batch=number, use_cache=False
    )
    found = model(**batch, num_items_in_batch=number)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-12, atol=1e-12)


def plan_of(steps):
    return Plan(ROW, rows_per_step=8, rows_per_epoch=40, micro_batch=4, accumulation=2, processes=1, max_steps=steps)


def planned(corpus, hybrid, steps=20, **masking):
    arguments = MaskingArguments(**masking)
    objective = MaskedObjective(arguments) if hybrid is None else HybridObjective(arguments, hybrid)
    objective.masker = Masker(corpus, arguments, VOCABULARY, 3)
    objective.make_rows(TrainingRows(corpus, ROW, 0, 1, objective.overlap), plan_of(steps))
    return objective


@pytest.mark.parametrize(
    "hybrid, rate, needed",
    [
        (None, "0.1@0.5,0.6@0.3,0.2", 0.6),
        (None, "0.1@0.5,0.1..0.4@0.3,0.2", 0.4),
        (HybridArguments(causal_share="0@0.2,0.5@0.2,0.25"), 0.2, 0.6),
        (HybridArguments(causal_share="0@0.5,0.5"), "0.5@0.5,0.1", 0.55),  # never both at once
        (PLAIN, 0.2, 1.0),
    ],
    ids=str,
)
def test_a_fixed_number_of_targets_has_room_for_the_fullest_step(corpus, hybrid, rate, needed):
    planned(corpus, hybrid, mask_rate=rate, target_share=needed)
    with pytest.raises(RecipeError, match=f"up to {needed:.2%} of a batch's tokens .* give at least {needed}"):
        planned(corpus, hybrid, mask_rate=rate, target_share=needed - 0.001)


def test_the_head_is_counted_for_what_each_step_predicts(corpus):
    def shares(objective, steps):
        return objective.head_shares(np.arange(steps), steps).tolist()

    assert shares(planned(corpus, PLAIN, mask_rate=0.2), 8) == [1, 1, *[0.2] * 6]
    assert shares(planned(corpus, None, mask_rate="0.3@0.5,0.1"), 4) == [0.3, 0.3, 0.1, 0.1]
    mixed = planned(corpus, HybridArguments(causal_share=0.5), mask_rate=0.4, mask_rate_end=0.2)
    assert shares(mixed, 3) == pytest.approx([0.7, 0.65, 0.6])
    assert shares(planned(corpus, PLAIN, mask_rate=0.2, target_share=1.0), 3) == [1, 1, 1]
    assert shares(CausalObjective(), 2) == [1, 1]
    diffusion = HybridObjective(MaskingArguments(mask_rate=0.2), HybridArguments("1@0.5,0.5", diffusion_share=0.3))
    assert shares(diffusion, 2) == pytest.approx([1, 0.5 + 0.3 / 2 + 0.2 * 0.2])


def test_a_run_too_short_for_its_stages_is_refused_and_says_how_long_it_has_to_be(corpus):
    for hybrid, masking in ((None, {"mask_rate": "0.3@15,0.1"}), (HybridArguments(causal_share="1@15,0"), {})):
        assert planned(corpus, hybrid, steps=16, **masking).min_steps() == 16
        with pytest.raises(RecipeError, match="as long as the whole run of 15 steps: give shorter ones, or shares"):
            planned(corpus, hybrid, steps=15, **masking)
    assert planned(corpus, PLAIN, steps=1).min_steps() == 1


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"causal_share": "1@0.25,1.5"}, "causal_share has 1.5: give at least 0 and at most 1"),
        ({"causal_share": "1@0.25"}, "causal_share is '1@0.25', of which every stage but the last needs a length"),
        ({"causal_share": "1@0.8,0", "causal_steps": 0.2}, "causal_steps and causal_share: the stages before the last"),
        ({"causal_share": "1@0.5,0.7", "diffusion_share": 0.4}, "are 0.7 and 0.4: give shares that sum to 1 at most"),
        ({"causal_share": "1..0.5", "diffusion_share": 0.4}, "causal_share and diffusion_share are 1 and 0.4"),
        ({"masked_next_token": False, "causal_share": 0, "diffusion_share": 0.5}, "0% causal, 50% diffusion"),
        (
            {"masked_next_token": False},
            "not all masked .50% causal, 0% diffusion.: end causal_share with 0, as",
        ),
        ({"masked_next_token": False, "causal_share": "0@0.5,1"}, "the last rows are not all masked"),
    ],
    ids=str,
)
def test_stages_of_causal_rows_that_make_no_sense_are_refused(fields, message):
    PLAIN.check()
    HybridArguments(masked_next_token=True).check()
    HybridArguments(causal_share="1@0.5,0.6", causal_steps=0.1, diffusion_share=0.4).check()
    with pytest.raises(RecipeError, match=message):
        HybridArguments(**fields).check()


def test_the_end_of_the_rate_is_given_once_and_held_out_text_may_have_a_rate_of_its_own():
    arguments = MaskingArguments(mask_rate="0.3@0.5,0.05", validation_mask_rate=0.15)
    arguments.check()
    assert (arguments.final_rate, arguments.held_out_rate) == (0.05, 0.15)
    with pytest.raises(RecipeError, match=r"mask_rate 0.3@0.5,0.05 says how the rate ends: leave mask_rate_end out"):
        MaskingArguments(mask_rate="0.3@0.5,0.05", mask_rate_end=0.05).check()
    with pytest.raises(RecipeError, match=r"mask_rate has 1.0: give a number above 0 and below 1"):
        MaskingArguments(mask_rate="0.3@0.5,1").check()
