"""Causal, masked and diffusion rows in one batch: as many as the shares say, each as it is alone, counting the same."""

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.diffusion import (
    TEXT,
    bound_over_orders,
    make_letters_model,
    mask_by_hand,
    masked_sets,
    nats_of_masks,
    share_of,
)
from helpers.diffusion import VOCABULARY as OF_LETTERS
from helpers.evaluation import StandInTrainer, evaluate_on
from helpers.masks import VOCAB_SIZE, VOCABULARY, random_text, write_marked
from helpers.models import make_model, tiny_config

from weft import WeftForCausalLM, WeftForMaskedLM
from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.diffusion import (
    RATE,
    DiffusionRows,
    DiffusionValidationRows,
    DocumentMasker,
    first_tokens,
)
from weft.recipes.pretraining.datasets.hybrid import (
    CAUSAL,
    DIFFUSION,
    MASKED,
    HybridArguments,
    HybridCollator,
    HybridRows,
)
from weft.recipes.pretraining.datasets.masked import MaskedValidationRows
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.datasets.packed import DocumentSpan, TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.causal import CausalEvaluator
from weft.recipes.pretraining.objectives.hybrid import HybridEvaluator, HybridObjective
from weft.recipes.pretraining.objectives.masked import MaskedEvaluator
from weft.recipes.pretraining.objectives.masked_diffusion import DiffusionEvaluator
from weft.recipes.pretraining.trainer import LossParts
from weft.recipes.training.batch_schedule import Steps

ROW, SEED, RATE_OF_MASKS = 24, 3, 0.3
SHARES = [(0.4, 0.3), (0.0, 1.0), (0.5, 0.5), (0.7, 0.3), (0.0, 0.618034), (0.125, 0.381966), (0.9, 0.05)]
OBJECTIVE = HybridObjective(MaskingArguments(), HybridArguments())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lengths = np.random.default_rng(0).integers(1, 40, 40)
    folder = tmp_path_factory.mktemp("kinds") / "ids"
    return write_marked(folder, *random_text(lengths), held_out=lambda i: i % 4 == 3)


def make_rows(corpus, causal=0.4, diffusion=0.3, number=10**6, seed=SEED, **fields):
    rows = TrainingRows(corpus, ROW, number, seed=1)
    masking = MaskingArguments(mask_rate=RATE_OF_MASKS)
    hybrid = HybridArguments(causal_share=causal, diffusion_share=diffusion, **fields)
    masker = DocumentMasker(VOCABULARY, seed, from_before=True)
    return HybridRows(
        rows, Masker(corpus, masking, VOCABULARY, seed), Steps(8, number // 8), hybrid, DiffusionRows(rows, masker)
    )


def numbers_of(rows, kind, wanted):
    """The numbers of the first so many rows of a kind."""
    found = (index for index in range(10**6) if rows.kind_of(index) == kind)
    return [next(found) for _ in range(wanted)]


@pytest.mark.parametrize(("causal", "diffusion"), SHARES)
def test_every_stretch_of_rows_has_the_shares_to_two_rows(corpus, causal, diffusion):
    rows = make_rows(corpus, causal, diffusion)
    kinds = np.array([rows.kind_of(index) for index in range(3000)])
    for kind, share in ((CAUSAL, causal), (DIFFUSION, diffusion), (MASKED, 1 - causal - diffusion)):
        counts = np.concatenate(([0], np.cumsum(kinds == kind)))
        for length in (1, 2, 7, 8, 16, 64, 1000):  # micro-batches and steps of any size
            inside = counts[length:] - counts[:-length]
            assert (np.abs(inside - share * length) < 2 + 1e-6).all(), (kind, length)
        assert abs(counts[-1] - share * 3000) <= 2
    if causal + diffusion > 0.999:
        assert MASKED not in kinds


def test_the_causal_rows_are_the_same_whatever_the_share_of_diffusion_and_all_come_first_where_that_is_asked(corpus):
    plain = [make_rows(corpus, 0.4, 0.0).kind_of(index) for index in range(400)]
    assert plain == [CAUSAL if int((i + 1) * 0.4) > int(i * 0.4) else MASKED for i in range(400)]
    for share in (0.3, 0.6):
        found = [make_rows(corpus, 0.4, share).kind_of(index) for index in range(400)]
        assert [kind == CAUSAL for kind in found] == [kind == CAUSAL for kind in plain]
        after = [make_rows(corpus, 0.4, share, causal_steps=5).kind_of(index) for index in range(400)]
        assert after == [CAUSAL] * 40 + found[40:]


@pytest.mark.parametrize(("causal", "diffusion"), SHARES)
def test_the_rates_of_diffusion_rows_are_spread_evenly_whatever_their_share(corpus, causal, diffusion):
    """A share by the golden ratio, too, by which the rates of one row after another are turned."""
    rows = make_rows(corpus, causal, diffusion)
    turns = [rows.before(index, causal)[DIFFUSION] for index in numbers_of(rows, DIFFUSION, 600)]
    assert turns == list(range(600))
    points = np.array([rows.diffusion.points(turn, 1)[0] for turn in turns])
    for length in (2, 8, 13, 100):
        for first in range(0, 500, 37):
            for limit in (0.1, 0.25, 0.5, 0.9):
                inside = (points[first : first + length] < limit).sum()
                assert abs(inside - limit * length) <= 1.5 + 0.5 * math.log(length)


def test_a_diffusion_row_is_that_of_a_plain_loop_with_each_target_at_the_place_before(corpus):
    rows = make_rows(corpus)
    assert rows.rows.rows_per_epoch < 60
    for turn, index in enumerate(numbers_of(rows, DIFFUSION, 40)):
        spans, row, room = rows.rows.spans(index), rows[index], ROW
        points = rows.diffusion.points(turn, len(first_tokens(spans, ROW)))
        ids, targets, weights, positions = [], [], [], []
        for span, point in zip(spans, points):
            (span,) = first_tokens([span], room)
            room -= len(span.tokens)
            own_ids, own_targets, own_weights = mask_by_hand(rows.diffusion.masker, span, point)
            assert own_targets[0] == IGNORE_INDEX and own_ids[0] == span.tokens[0]
            ids += own_ids
            targets += [*own_targets[1:], IGNORE_INDEX]
            weights += [*own_weights[1:], 0.0]
            positions += range(len(span.tokens))
        assert room == 0
        assert (row["input_ids"].tolist(), row["targets"].tolist()) == (ids, targets)
        assert row["weight"].tolist() == pytest.approx(weights) and row["position_ids"].tolist() == positions
        assert (row["is_causal"], row["is_diffusion"]) == (False, True)


def test_kinds_and_contents_depend_on_the_row_only(corpus):
    """Whatever was read before: any number of processes, workers and rows of a micro-batch."""
    expected = [make_rows(corpus)[index] for index in range(80)]
    for step in (3, 7):
        rows = make_rows(corpus)
        for index in (i * step % 80 for i in range(80)):
            for name, value in expected[index].items():
                assert np.array_equal(rows[index][name], value)


def test_a_row_of_every_kind_counts_as_many_tokens_as_it_has_whatever_its_rates(corpus):
    rows, counted, texts = make_rows(corpus), {}, {}
    for index in range(3000):
        kind, row, spans = rows.kind_of(index), rows[index], rows.rows.spans(index)
        if kind == DIFFUSION:
            spans = first_tokens(spans, ROW)
        tokens = np.concatenate([span.tokens[1:] for span in spans])
        text = len(tokens) if kind == CAUSAL else int((~np.isin(tokens, VOCABULARY.special)).sum())
        total = float((np.full(ROW, row["weight"]) * (row["targets"] != IGNORE_INDEX)).sum())
        if kind != MASKED:
            assert total == pytest.approx(text, rel=1e-6)
        counted.setdefault(kind, []).append(total)
        texts.setdefault(kind, []).append(text)
    assert np.mean(counted[MASKED]) == pytest.approx(np.mean(texts[MASKED]), rel=0.04)
    assert np.mean(texts[CAUSAL]) == ROW


def test_the_expected_loss_of_a_hybrid_model_is_the_bound_by_enumeration_over_masks_and_orders():
    """Four tokens, five places, in float64, each predicted from the place before it: through collator and model,
    exactly, by how often each mask comes, and in the mean of what is drawn."""
    model = make_letters_model(masked_next_token=True)
    exact = bound_over_orders(nats_of_masks(model, TEXT))
    assert abs(exact - bound_over_orders(nats_of_masks(make_letters_model(), TEXT))) > 1e-3
    values, drawn, points = {}, [], np.random.default_rng(1)
    span = DocumentSpan(0, 0, np.array(TEXT), 0, True)
    for seed in range(3000):
        row = DocumentMasker(OF_LETTERS, seed, from_before=True)([span], points.random(1))
        chosen = frozenset((np.flatnonzero(row["targets"] != IGNORE_INDEX) + 1).tolist())
        if chosen not in values:
            made = {**row, "weight": row["weights"], "is_causal": False, "is_diffusion": True}
            batch = HybridCollator()([made])
            given = {name: value for name, value in batch.items() if name not in OBJECTIVE.kept_back}
            items = OBJECTIVE.loss_divisors(batch)["num_items_in_batch"]
            assert float(items) == pytest.approx(5)
            with torch.no_grad():
                values[chosen] = float(model(**given, num_items_in_batch=items).loss * items)
        drawn.append(values[chosen])
    assert values.keys() == set(masked_sets(range(1, 6)))
    expected = sum(share_of(chosen, 5) * value for chosen, value in values.items())
    assert expected == pytest.approx(exact, rel=1e-6)  # weights are float32
    assert abs(np.mean(drawn) - exact) < 5 * np.std(drawn) / math.sqrt(len(drawn))


# Batches.


def make_shifted(dtype=torch.float64):
    config = tiny_config(vocab_size=VOCAB_SIZE, is_causal=False, masked_next_token=True)
    return make_model(config, model_class=WeftForMaskedLM).to(dtype)


def loss_of(model, batch, items):
    given = {name: value for name, value in batch.items() if name not in OBJECTIVE.kept_back}
    return model(**given, num_items_in_batch=items, return_logits=False).loss


def items_of(batches):
    return sum(OBJECTIVE.loss_divisors(batch)["num_items_in_batch"] for batch in batches)


def gradients_of(loss, model):
    model.zero_grad()
    loss.backward()
    return loss.detach(), [weight.grad for weight in model.parameters()]


def weighted_nats_by_hand(model, row):
    """What a row adds to the loss, with logits at every place, and of each document alone."""
    total, ends = 0.0, [*np.flatnonzero(row["position_ids"] == 0).tolist(), ROW]
    weights = np.full(ROW, row["weight"], dtype=np.float32)
    for first, last in itertools.pairwise(ends):
        ids, targets = (torch.from_numpy(row[name][first:last]) for name in ("input_ids", "targets"))
        states = model.model(ids[None], is_causal=row["is_causal"], use_cache=False).last_hidden_state[0]
        nats = torch.nn.functional.cross_entropy(
            model.get_logits(states), targets, ignore_index=IGNORE_INDEX, reduction="none"
        )
        total = total + (nats * torch.from_numpy(weights[first:last]).double()).sum()
    return total


def test_a_batch_of_three_kinds_is_its_rows_one_by_one_however_it_is_cut(corpus):
    every, model = make_rows(corpus), make_shifted()
    rows = [every[index] for index in range(10)]
    assert Counter(every.kind_of(index) for index in range(10)) == {CAUSAL: 4, DIFFUSION: 3, MASKED: 3}
    parts = [HybridCollator()(some) for some in (rows[:1], rows[1:6], rows[6:])]
    expected = gradients_of(sum(weighted_nats_by_hand(model, row) for row in rows) / items_of(parts).double(), model)
    for batches in ([HybridCollator()(rows)], parts):
        found = gradients_of(sum(loss_of(model, batch, items_of(batches)) for batch in batches), model)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)  # items are counted in float32
        for gradient, by_hand in zip(found[1], expected[1]):
            torch.testing.assert_close(gradient, by_hand, rtol=1e-5, atol=1e-8)


def test_the_parts_of_the_loss_are_those_of_the_rows_and_that_of_diffusion_is_per_token_of_text(corpus):
    every, model, parts = make_rows(corpus), make_shifted(), LossParts()
    rows, sums = [every[index] for index in range(20)], {}
    with torch.no_grad():
        for some in (rows[:3], rows[3:]):
            batch = HybridCollator()(some)
            given = {name: value for name, value in batch.items() if name not in OBJECTIVE.kept_back}
            parts.add(OBJECTIVE.loss_parts(batch, model(**given)))
        for index, row in enumerate(rows):
            kind, is_target = every.kind_of(index), row["targets"] != IGNORE_INDEX
            of_kind = {**row, "weight": row["weight"] if kind == DIFFUSION else 1.0}
            count = row["is_text"].sum() if kind == DIFFUSION else is_target.sum()
            sums.setdefault(kind, []).append((float(weighted_nats_by_hand(model, of_kind)), float(count)))
    expected = {f"loss_{kind}": np.divide(*np.sum(each, axis=0)) for kind, each in sums.items()}
    assert parts.take(SimpleNamespace(num_processes=1)) == pytest.approx(expected, rel=1e-5)


# The held-out text.


def make_bound(corpus, length=ROW, rates=4):
    masker = DocumentMasker(VOCABULARY, 0, from_before=True)
    return DiffusionEvaluator(DiffusionValidationRows(ValidationRows(corpus, length - 1), masker, rates))


@torch.no_grad()
def bound_by_hand(evaluator, model, corpus):
    """Each stretch of a document alone, given the token before it, by the logits that belong to the masks' places."""
    rows, masker, nats, variance, tokens, seen = evaluator.rows, evaluator.rows.masker, 0.0, 0.0, 0, []
    for index in range(len(rows)):
        for span in rows.rows.spans(index):
            assert len(span.tokens) <= ROW
            key, totals = make_key(masker.seed, span.document, span.first), []
            for noise in range(rows.rates):
                point = (noise + float(uniform(key, noise, RATE))) / rows.rates
                ids, targets, weights = mask_by_hand(masker, span, point, noise)
                log_probs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
                chosen = [place for place, target in enumerate(targets) if target != IGNORE_INDEX]
                totals.append(sum(-log_probs[place, targets[place]].item() * weights[place] for place in chosen))
            nats += np.mean(totals)
            variance += sum((a - b) ** 2 for a, b in zip(totals[::2], totals[1::2])) / rows.rates**2
            text = [i for i, token in enumerate(span.tokens) if i and token not in VOCABULARY.special]
            seen += [(span.document, span.first + place) for place in text]
            tokens += len(text)
    assert len(seen) == len(set(seen))
    for document in corpus.documents("validation").tolist():  # every token of the text once
        ids = corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]]
        wanted = {(document, i) for i, token in enumerate(ids) if token not in VOCABULARY.special}
        assert wanted == {place for place in seen if place[0] == document}
    bits = math.log(2) * sum(int(corpus.byte_counts[document]) for document in corpus.documents("validation"))
    return {"loss": nats / tokens, "bits_per_byte": nats / bits, "bits_per_byte_error": math.sqrt(variance) / bits}


def test_the_evaluation_has_every_role_and_the_loss_is_their_mean_on_any_processes(corpus):
    model = make_shifted(torch.float32)
    masker = Masker(corpus, MaskingArguments(), VOCABULARY, 0)
    causal = CausalEvaluator(ValidationRows(corpus, ROW), masked_model=True)
    masked = MaskedEvaluator(MaskedValidationRows(ValidationRows(corpus, ROW), masker, RATE_OF_MASKS))
    bound = make_bound(corpus)
    trainer = StandInTrainer(model, 3)
    expected = {**masked(trainer), **causal(trainer)}
    losses = (causal(trainer)["loss"], masked(trainer)["loss"])
    by_hand = bound_by_hand(bound, model, corpus)
    expected |= {"causal_loss": losses[0], **{f"diffusion_{name}": value for name, value in by_hand.items()}}
    expected["loss"] = 0.4 * losses[0] + 0.3 * losses[1] + 0.3 * by_hand["loss"]
    evaluator = HybridEvaluator(causal, masked, 0.4, bound, 0.3)
    assert set(expected) - {"loss"} == set(HybridObjective.metrics)
    for batch_size in (1, 3, 100):
        assert evaluator(StandInTrainer(model, batch_size)) == pytest.approx(expected, rel=1e-5)
    for number in (2, 3, 16):
        assert evaluate_on(number, evaluator, model, 2) == pytest.approx(expected, rel=1e-5)


def test_one_set_of_weights_gives_the_causal_class_its_numbers(corpus):
    """The causal evaluation of a model of all roles is that of the class that continues text."""
    model = make_shifted(torch.float32)
    causal = WeftForCausalLM(model.config).eval()
    causal.load_state_dict(model.state_dict())
    rows = ValidationRows(corpus, ROW)
    found = CausalEvaluator(rows, masked_model=True)(StandInTrainer(model, 3))
    assert found == pytest.approx(CausalEvaluator(rows)(StandInTrainer(causal, 3)), rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"causal_share": 0.6, "diffusion_share": 0.5}, "causal_share and diffusion_share are 0.6 and 0.5: give share"),
        ({"diffusion_share": 0.6}, "causal_share and diffusion_share are 0.5 and 0.6"),
        ({"diffusion_share": -0.1}, "diffusion_share is -0.1: give at least 0 and at most 1"),
        ({"diffusion_share": math.nan}, "diffusion_share is nan"),
    ],
    ids=str,
)
def test_shares_that_make_no_sense_are_refused(fields, said):
    HybridArguments(causal_share=0.7, diffusion_share=0.3).check()
    with pytest.raises(RecipeError, match=said):
        HybridArguments(**fields).check()
