"""Masked diffusion against its definition: rates, masks, weights, and a loss whose expectation is the bound."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.chi_square import assert_fits
from helpers.diffusion import (
    END,
    LETTERS,
    PLACES,
    START,
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
from helpers.text import write_ids

from weft import WeftForMaskedLM
from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.masked_diffusion import bound_variance, masked_counts, stratified
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.diffusion import (
    RATE,
    DiffusionArguments,
    DiffusionCollator,
    DiffusionRows,
    DiffusionValidationRows,
    DocumentMasker,
)
from weft.recipes.pretraining.datasets.packed import DocumentSpan, TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.masked_diffusion import DiffusionEvaluator, DiffusionObjective

ROW, SEED = 24, 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lengths = np.random.default_rng(0).integers(1, 40, 40)
    folder = tmp_path_factory.mktemp("diffusion") / "ids"
    return write_marked(folder, *random_text(lengths), held_out=lambda i: i % 4 == 3)


def make_rows(corpus, number=10**6, seed=SEED):
    return DiffusionRows(TrainingRows(corpus, ROW, number, seed=1, overlap=0), DocumentMasker(VOCABULARY, seed))


def letters(first=0, document=0, pass_number=0, ids=TEXT):
    return DocumentSpan(document, first, np.array(ids), pass_number, True)


def test_rows_are_those_of_a_plain_loop(corpus):
    rows = make_rows(corpus)
    start = float(uniform(make_key(SEED), 0, RATE))
    assert rows.rows.rows_per_epoch < 60  # two passes
    for index in range(0, 120, 3):
        spans = rows.rows.spans(index)
        points = [(start + index * (math.sqrt(5) - 1) / 2 + i / len(spans)) % 1 for i in range(len(spans))]
        assert rows.points(index, len(spans)).tolist() == pytest.approx(points, abs=1e-12)
        columns = [mask_by_hand(rows.masker, span, point) for span, point in zip(spans, points)]
        row = rows[index]
        for name, parts in zip(("input_ids", "targets", "weights"), zip(*columns)):
            expected = [value for part in parts for value in part]
            assert row[name].tolist() == (pytest.approx(expected) if name == "weights" else expected), (index, name)
        assert row["position_ids"].tolist() == [place for span in spans for place in range(len(span.tokens))]


def test_only_masks_stand_in_the_place_of_text_and_nothing_else_is_touched(corpus):
    rows = make_rows(corpus)
    for index in range(60):
        row, tokens = rows[index], np.concatenate([span.tokens for span in rows.rows.spans(index)])
        is_masked = row["targets"] != IGNORE_INDEX
        assert (row["input_ids"] == np.where(is_masked, VOCABULARY.mask, tokens)).all()
        assert (row["targets"][is_masked] == tokens[is_masked]).all()
        assert not np.isin(tokens[is_masked], VOCABULARY.special).any()
        assert ((row["weights"] > 0) == is_masked).all()


def test_every_document_counts_its_tokens_whatever_its_rate(corpus):
    """So that long and short ones, at high and low rates, have the same say for each token."""
    rows = make_rows(corpus)
    for index in range(60):
        row = rows[index]
        for document, span in enumerate(rows.rows.spans(index)):
            own, size = row["owners"] == document, (~np.isin(span.tokens, VOCABULARY.special)).sum()
            assert row["weights"][own].sum() == pytest.approx(size)
            assert len(set(row["weights"][own].tolist()) - {0.0}) == min(1, size)


def test_rates_are_spread_evenly_over_every_stretch_of_rows(corpus):
    """Nearly as if they were set at equal distances, and far from what independent draws would be."""
    rows = make_rows(corpus)
    points = np.array([rows.points(index, 1)[0] for index in range(4000)])
    for length in (1, 2, 3, 8, 13, 32, 100, 1000):
        for first in range(0, 3000, 37):
            inside = points[first : first + length]
            for limit in (0.1, 0.25, 0.5, 0.9):
                assert abs((inside < limit).sum() - limit * length) <= 1.5 + 0.5 * math.log(length)
    for number in (1, 2, 5):  # the documents of a row are at equal distances
        assert np.diff(np.sort(rows.points(7, number))) == pytest.approx(np.full(number - 1, 1 / number))


def test_a_row_has_each_rate_as_often_over_seeds(corpus):
    found = np.array([make_rows(corpus, seed=seed).points(11, 1)[0] for seed in range(2000)])
    assert_fits(np.histogram(found, bins=10, range=(0, 1))[0], np.full(10, 0.1))


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_every_number_of_tokens_is_masked_as_often(size):
    points = (np.arange(size * 12) + 0.5) / (size * 12)
    counts = masked_counts(points, np.full(len(points), size))
    assert Counter(counts.tolist()) == dict.fromkeys(range(1, size + 1), 12)
    assert masked_counts(np.array([0.0, 1 - 2**-53]), np.array([size, size])).tolist() == [1, size]
    assert masked_counts(np.array([0.5]), np.array([0])).tolist() == [0]


def test_every_set_of_places_is_masked_as_often_as_its_size_says():
    draw, found = np.random.default_rng(0), Counter()
    for seed in range(6000):
        row = DocumentMasker(OF_LETTERS, seed)([letters()], draw.random(1))
        found[frozenset(np.flatnonzero(row["targets"] != IGNORE_INDEX).tolist())] += 1
    sets = masked_sets(PLACES)
    assert_fits([found[each] for each in sets], [share_of(each, 5) for each in sets])


def test_rows_depend_on_their_number_only(corpus):
    """Whatever was read before: any number of processes, workers and rows of a micro-batch."""
    expected = [make_rows(corpus)[index] for index in range(80)]
    for step in (3, 7, 11):
        rows = make_rows(corpus)
        for index in (i * step % 80 for i in range(80)):
            for name, value in expected[index].items():
                assert np.array_equal(rows[index][name], value)


def test_a_document_has_other_rates_and_masks_in_another_pass_or_with_another_seed():
    masker, other = DocumentMasker(OF_LETTERS, 0), DocumentMasker(OF_LETTERS, 1)
    long = [START, *np.random.default_rng(0).choice(LETTERS, 60).tolist(), END]
    rows = [
        masker([letters(ids=long)], np.array([0.5])),
        masker([letters(ids=long, pass_number=1)], np.array([0.5])),
        masker([letters(ids=long, document=1)], np.array([0.5])),
        other([letters(ids=long)], np.array([0.5])),
    ]
    assert len({tuple(row["input_ids"].tolist()) for row in rows}) == 4
    lower = masker([letters(ids=long)], np.array([0.2]))["targets"] != IGNORE_INDEX
    assert (rows[0]["targets"][lower] != IGNORE_INDEX).all()  # what is masked at a low rate is at a higher one


def test_the_expected_loss_is_the_bound_by_enumeration_over_masks_and_orders():
    """Four tokens, five places, in float64: exactly, by how often each mask comes, and in the mean of what is drawn."""
    table = nats_of_masks(make_letters_model(), TEXT)
    exact = bound_over_orders(table)
    values, drawn, points = {}, [], np.random.default_rng(1)
    for seed in range(4000):
        row = DocumentMasker(OF_LETTERS, seed)([letters()], points.random(1))
        chosen = frozenset(np.flatnonzero(row["targets"] != IGNORE_INDEX).tolist())
        value = sum(float(row["weights"][place]) * nats for place, nats in table[chosen].items())
        drawn.append(value)
        values.setdefault(chosen, value)
    assert values.keys() == set(masked_sets(PLACES))
    expected = sum(share_of(chosen, 5) * value for chosen, value in values.items())
    assert expected == pytest.approx(exact, rel=1e-7)  # weights are float32
    assert abs(np.mean(drawn) - exact) < 5 * np.std(drawn) / math.sqrt(len(drawn))


def test_the_loss_of_a_batch_is_the_weighted_nats_over_the_tokens_of_its_texts(corpus):
    """Against logits at every place of each document alone; gradients too."""
    rows = make_rows(corpus)
    batch = DiffusionCollator()([rows[index] for index in range(6)])
    model, other = (make_masked_model().double() for _ in range(2))
    objective = DiffusionObjective(DiffusionArguments())
    items = objective.loss_divisors(batch)["num_items_in_batch"]
    loss = model(**batch, num_items_in_batch=items, return_logits=False).loss
    loss.backward()

    total, tokens = 0, 0
    for index in range(6):
        row = rows[index]
        for document in range(row["owners"].max() + 1):
            own = row["owners"] == document
            ids, targets = (torch.from_numpy(row[name][own])[None] for name in ("input_ids", "targets"))
            logits = other(ids).logits[0]
            nats = torch.nn.functional.cross_entropy(logits, targets[0], ignore_index=IGNORE_INDEX, reduction="none")
            total = total + (nats * torch.from_numpy(row["weights"][own]).double()).sum()
            tokens += int(row["is_text"][own].sum())
    assert float(items) == pytest.approx(tokens, rel=1e-6)
    expected = total / items.double()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, dict(other.named_parameters())[name].grad, rtol=1e-7, atol=1e-9)


# The held-out text.


def make_masked_model():
    return make_model(tiny_config(vocab_size=VOCAB_SIZE, is_causal=False), model_class=WeftForMaskedLM)


def make_evaluator(corpus, rates=4, seed=0):
    rows = ValidationRows(corpus, ROW, overlap=0)
    return DiffusionEvaluator(DiffusionValidationRows(rows, DocumentMasker(VOCABULARY, seed), rates))


@torch.no_grad()
def metrics_by_hand(evaluator, model, corpus):
    """Each stretch of a document alone, at each of its rates."""
    rows, masker, nats, variance, tokens = evaluator.rows, evaluator.rows.masker, 0.0, 0.0, 0
    for index in range(len(rows)):
        for span in rows.rows.spans(index):
            key, totals = make_key(masker.seed, span.document, span.first), []
            for noise in range(rows.rates):
                point = (noise + float(uniform(key, noise, RATE))) / rows.rates
                ids, targets, weights = mask_by_hand(masker, span, point, noise)
                log_probs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
                chosen = [place for place, target in enumerate(targets) if target != IGNORE_INDEX]
                totals.append(sum(-log_probs[place, targets[place]].item() * weights[place] for place in chosen))
            nats += np.mean(totals)
            variance += sum((a - b) ** 2 for a, b in zip(totals[::2], totals[1::2])) / rows.rates**2
            tokens += int((~np.isin(span.tokens, VOCABULARY.special)).sum())
    byte_count = sum(int(corpus.byte_counts[document]) for document in corpus.documents("validation"))
    return {
        "loss": nats / tokens,
        "perplexity": math.exp(nats / tokens),
        "bits_per_byte": nats / math.log(2) / byte_count,
        "bits_per_byte_error": math.sqrt(variance) / math.log(2) / byte_count,
    }


def test_metrics_are_those_of_each_document_alone_on_any_processes(corpus):
    evaluator, model = make_evaluator(corpus), make_masked_model()
    expected = pytest.approx(metrics_by_hand(evaluator, model, corpus), rel=1e-5)
    for batch_size in (1, 3, 100):
        assert evaluator(StandInTrainer(model, batch_size)) == expected
    for number in (2, 3, 16):
        assert evaluate_on(number, evaluator, model, 2) == expected
    assert len(evaluator.of_batches) and evaluator(StandInTrainer(model, 2)) == expected
    assert evaluator.loss_error(1) > 0


def test_held_out_text_is_masked_in_the_same_way_in_every_run_and_at_a_rate_of_every_part(corpus):
    rows, again = (make_evaluator(corpus, rates=6).rows for _ in range(2))
    for index in range(len(rows)):
        for name, value in rows[index].items():
            assert np.array_equal(again[index][name], value)
        for points in rows.points(rows.rows.spans(index)).T:
            assert np.floor(points * 6).tolist() == [0, 1, 2, 3, 4, 5]
    beyond = rows[len(rows) + 3]
    assert (beyond["targets"] == IGNORE_INDEX).all() and not beyond["is_text"].any()


class Noisy:
    """A model whose nats follow from which places are masked, without any rule in it."""

    def __init__(self):
        draw = np.random.default_rng(0)
        self.table = {chosen: {place: draw.random() * 5 for place in chosen} for chosen in masked_sets(PLACES)}

    def __call__(self, input_ids, position_ids, predict_from, labels):
        chosen = frozenset(predict_from.tolist())
        self.target_nats = torch.tensor([self.table[chosen][place] for place in predict_from.tolist()])
        return self


@pytest.mark.parametrize("rates", [2, 4])
def test_the_bound_is_unbiased_and_its_error_is_that_of_other_masks(tmp_path, rates):
    corpus = write_ids(tmp_path, [TEXT, TEXT], held_out=lambda i: i == 1)
    model, estimates, variances = Noisy(), [], []
    for seed in range(1500):
        rows = ValidationRows(corpus, len(TEXT), overlap=0)
        evaluator = DiffusionEvaluator(DiffusionValidationRows(rows, DocumentMasker(OF_LETTERS, seed), rates))
        batch = evaluator.collate([evaluator.rows[0]])
        nats, variance, tokens = evaluator.score(model, batch).tolist()
        assert tokens == 5
        estimates.append(nats)
        variances.append(variance)
    spread = np.var(estimates)
    assert abs(np.mean(estimates) - bound_over_orders(model.table)) < 5 * math.sqrt(spread / len(estimates))
    assert 0.85 * spread < np.mean(variances) < 2 * spread


def test_parts_of_the_rates_are_taken_in_pairs():
    draws = np.array([[0.5, 0.0], [0.25, 0.5], [0.75, 0.5], [0.0, 0.25]])
    assert stratified(draws).tolist() == [[0.125, 0.0], [0.3125, 0.375], [0.6875, 0.625], [0.75, 0.8125]]
    totals = np.array([[1.0], [3.0], [10.0], [14.0]])
    assert bound_variance(totals).tolist() == [(4 + 16) / 16]


def test_an_odd_number_of_rates_and_text_without_tokens_are_refused(tmp_path):
    DiffusionArguments().check()
    with pytest.raises(RecipeError, match="validation_rates is 3: give an even number"):
        DiffusionArguments(validation_rates=3).check()
    with pytest.raises(RecipeError, match="validation_rates is 1: give at least 2"):
        DiffusionArguments(validation_rates=1).check()
    corpus = write_ids(tmp_path, [[START, 5, END], [START, END]], held_out=lambda i: i == 1)
    with pytest.raises(RecipeError, match="the held-out text has no token to predict: hold more text out"):
        make_evaluator(corpus)
