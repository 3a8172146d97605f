"""N-grams have the probabilities that interpolated modified Kneser-Ney smoothing gives them, and these sum to one."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from helpers.documents import blocks, joined, make_documents
from nltk.lm import KneserNeyInterpolated
from nltk.lm.preprocessing import padded_everygram_pipeline

from weft.recipes.classical.ngrams import USUAL_DISCOUNTS, count_ngrams, discounts_of

VOCABULARY = 10
HELD_OUT = [*make_documents(12, VOCABULARY, seed=1), [0, 9, 9, 9, 9, 1], [0, 1]]


class ByDictionary:
    """The definition, written out: Chen and Goodman (1999), and beginnings as Heafield and others (2013) count them."""

    def __init__(self, documents, order):
        windows, before = Counter(), defaultdict(set)
        for number, document in enumerate(documents):
            for first, last in itertools.combinations(range(len(document) + 1), 2):
                if last - first <= order and last > 1:
                    ngram = tuple(document[first:last])
                    windows[ngram] += 1
                    before[ngram].add(document[first - 1] if first else ("document", number))
        self.counts = {ngram: n if len(ngram) == order else len(before[ngram]) for ngram, n in windows.items()}
        self.discounts = [self.estimate(length) for length in range(1, order + 1)]
        self.order = order

    def estimate(self, length):
        n = Counter(count for ngram, count in self.counts.items() if len(ngram) == length)
        if not all(n[times] for times in (1, 2, 3, 4)):
            return USUAL_DISCOUNTS
        y = n[1] / (n[1] + 2 * n[2])
        found = (1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
        return found if all(0 <= d <= k for k, d in enumerate(found, 1)) else USUAL_DISCOUNTS

    def probability(self, word, history):
        history = tuple(history)[-(self.order - 1) :] if self.order > 1 else ()
        return self._of(word, history)

    def _of(self, word, history):
        shorter = self._of(word, history[1:]) if history else 1 / VOCABULARY
        following = {ngram: c for ngram, c in self.counts.items() if ngram[:-1] == history and ngram}
        total = sum(following.values())
        if not total:
            return shorter
        discounts = self.discounts[len(history)]
        number = [sum(min(c, 3) == k for c in following.values()) for k in (1, 2, 3)]
        left = sum(d * n for d, n in zip(discounts, number)) / total
        count = self.counts.get((*history, word), 0)
        own = max(count - discounts[min(count, 3) - 1], 0) / total if count else 0
        return own + left * shorter


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("marked, number", [(True, 120), (False, 60), (True, 3)], ids=["marked", "bare", "few"])
def test_probabilities_are_those_of_the_definition(order, marked, number):
    documents = make_documents(number, VOCABULARY, marked=marked)
    model, reference = count_ngrams(blocks(documents), order, VOCABULARY, quiet=True), ByDictionary(documents, order)
    np.testing.assert_allclose([table.discounts for table in model.tables], reference.discounts, rtol=1e-12)
    assert number != 120 or order == 1 or USUAL_DISCOUNTS not in [table.discounts for table in model.tables[1:4]]
    found, begins = model.log_probs(*joined(HELD_OUT)), joined(HELD_OUT)[1]
    for first, document in zip(begins, HELD_OUT):
        expected = [0.0, *(math.log(reference.probability(document[t], document[:t])) for t in range(1, len(document)))]
        np.testing.assert_allclose(found[first : first + len(document)], expected, rtol=1e-10, atol=1e-12)
    assert model.size == (len(reference.counts), "counts")


@pytest.mark.parametrize("order", [1, 3, 5])
def test_what_may_come_next_sums_to_one_and_is_what_documents_are_scored_by(order):
    model = count_ngrams(blocks(make_documents(number=60, vocabulary=VOCABULARY)), order, VOCABULARY, quiet=True)
    log_probs, begins = model.log_probs(*joined(HELD_OUT)), joined(HELD_OUT)[1]
    for first, document in zip(begins, HELD_OUT):
        state = model.advance(model.begin(), document[0])
        for place, token in enumerate(document[1:], 1):
            probabilities = model.next_probabilities(state)
            assert abs(probabilities.sum() - 1) < 1e-12 and probabilities.min() > 0
            assert math.log(probabilities[token]) == pytest.approx(log_probs[first + place], rel=1e-10)
            state = model.advance(state, token)


def test_counts_do_not_depend_on_the_blocks_in_which_documents_are_read():
    documents = make_documents(50, VOCABULARY)
    whole, cut = (count_ngrams(blocks(documents, size), 4, VOCABULARY, quiet=True) for size in (50, 7))
    for name, values in whole.arrays().items():
        np.testing.assert_array_equal(values, cut.arrays()[name], err_msg=name)


def test_pairs_with_one_discount_are_those_of_nltk():
    documents = [[str(token) for token in document] for document in make_documents(40, VOCABULARY, marked=False)]
    nltk_model = KneserNeyInterpolated(order=2, discount=0.75)
    nltk_model.fit(*padded_everygram_pipeline(2, documents))
    marked = [[0, *map(int, document), 1] for document in documents]
    given = [(0.0, 0.0, 0.0), (0.75, 0.75, 0.75)]
    model = count_ngrams(blocks(marked), 2, VOCABULARY, quiet=True, discounts=given)
    names = {0: "<s>", 1: "</s>"} | {token: str(token) for token in range(2, VOCABULARY)}
    for before in (0, *range(2, VOCABULARY)):
        found = model.next_probabilities(model.advance(model.begin(), before))
        expected = [nltk_model.score(names[token], [names[before]]) for token in range(1, VOCABULARY)]
        np.testing.assert_allclose(found[1:], expected, rtol=1e-12, atol=1e-15)


def test_discounts_that_cannot_be_estimated_are_the_usual_ones():
    assert discounts_of(np.array([1, 2, 3])) == USUAL_DISCOUNTS
    assert discounts_of(np.repeat([1, 2, 3, 4], [1, 2, 50, 90])) == USUAL_DISCOUNTS  # below zero
    assert discounts_of(np.repeat([0, 1, 2, 3, 4], [7, 80, 40, 20, 10])) == pytest.approx((0.5, 1.25, 2.0))


def test_text_that_is_shorter_than_the_ngrams_is_no_obstacle():
    model = count_ngrams(blocks([[0, 2, 1], [0, 3, 1]]), 5, VOCABULARY, quiet=True)
    state = model.advance(model.begin(), 0)
    assert model.next_probabilities(state)[[2, 3]].min() > 0.2
    assert model.log_probs(*joined([[0, 2, 4, 5, 6, 7, 1]])).min() > -10
