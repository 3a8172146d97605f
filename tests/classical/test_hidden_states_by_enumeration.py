"""A hidden Markov model scores and learns as the sum over all sequences of states says."""

import itertools
import math

import numpy as np
import pytest
from helpers.documents import blocks, joined, make_documents

from weft.recipes.classical.hidden_markov import EMITTED, LEFT, HiddenMarkovModel, learn, unigrams_of

VOCABULARY, STATES = 5, 3
DOCUMENTS = [[0, 2, 3, 3, 1], [0, 1], [0, 4, 2, 4, 3, 2, 1], [0, 3, 1]]


def make_model(has_start=True, seed=0, states=STATES):
    draw = np.random.default_rng(seed)
    arrays = draw.dirichlet(np.ones(states)), draw.dirichlet(np.ones(states), states)
    return HiddenMarkovModel(*arrays, draw.dirichlet(np.ones(VOCABULARY), states).T.copy(), has_start)


def paths(model, text):
    """Each sequence of states and its probability together with a text."""
    for path in itertools.product(range(len(model.initial)), repeat=len(text)):
        probability = model.initial[path[0]]
        for one, other in itertools.pairwise(path):
            probability *= model.transitions[one, other]
        yield path, probability * math.prod(model.emissions[token, state] for token, state in zip(text, path))


def by_enumeration(model, text):
    return sum(probability for _, probability in paths(model, text)) if text else 1.0


@pytest.mark.parametrize("has_start", [True, False])
def test_documents_have_the_probability_of_all_sequences_of_states(has_start):
    model = make_model(has_start)
    found, begins = model.log_probs(*joined(DOCUMENTS)), joined(DOCUMENTS)[1]
    for first, document in zip(begins, DOCUMENTS):
        assert found[first] == 0
        text = document[has_start:]
        for place in range(1, len(document)):
            ratio = by_enumeration(model, text[: place + 1 - has_start]) / by_enumeration(
                model, text[: place - has_start]
            )
            assert found[first + place] == pytest.approx(math.log(ratio), rel=1e-10)


@pytest.mark.parametrize("has_start", [True, False])
def test_expectations_are_those_of_all_sequences_of_states(has_start):
    model = make_model(has_start)
    first, moves = np.zeros(STATES), np.zeros((STATES, STATES))
    emissions, total = np.zeros((VOCABULARY, STATES)), 0.0
    for document in DOCUMENTS:
        text = document[has_start:]
        total += math.log(whole := by_enumeration(model, text))
        for path, probability in paths(model, text):
            first[path[0]] += probability / whole
            for one, other in itertools.pairwise(path):
                moves[one, other] += probability / whole
            for token, state in zip(text, path):
                emissions[token, state] += probability / whole
    found = model.expect(*joined(DOCUMENTS))
    assert found.log_likelihood == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(found.first, first, rtol=1e-10)
    np.testing.assert_allclose(found.moves, moves, rtol=1e-10)
    np.testing.assert_allclose(found.emissions, emissions, rtol=1e-10, atol=1e-14)
    assert found.tokens == sum(len(document) - has_start for document in DOCUMENTS)
    in_parts = model.expect(*joined(DOCUMENTS[:1])) + model.expect(*joined(DOCUMENTS[1:]))
    np.testing.assert_allclose(in_parts.emissions, emissions, rtol=1e-10, atol=1e-14)


def test_what_may_come_next_sums_to_one_and_is_what_documents_are_scored_by():
    for has_start in (True, False):
        model = make_model(has_start)
        log_probs, begins = model.log_probs(*joined(DOCUMENTS)), joined(DOCUMENTS)[1]
        for first, document in zip(begins, DOCUMENTS):
            state = model.advance(model.begin(), document[0])
            for place, token in enumerate(document[1:], 1):
                probabilities = model.next_probabilities(state)
                assert probabilities.sum() == pytest.approx(1, abs=1e-12)
                assert math.log(probabilities[token]) == pytest.approx(log_probs[first + place], rel=1e-10)
                state = model.advance(state, token)


def test_no_iteration_makes_likelihood_and_prior_smaller():
    documents = make_documents(60, 12)
    read, model = blocks(documents), None
    unigrams = unigrams_of(read, 12)
    model, before = HiddenMarkovModel.random(4, unigrams, True, seed=0, dtype=np.float64), -math.inf
    for _ in range(12):
        found = model.expect(*joined(documents))
        prior = EMITTED * (unigrams @ np.log(model.emissions)).sum()
        prior += LEFT / 4 * (np.log(model.transitions).sum() + np.log(model.initial).sum())
        assert found.log_likelihood + prior >= before - 1e-9 * abs(prior)
        before = found.log_likelihood + prior
        model = found.maximize(unigrams, True)
        for array, axis in ((model.emissions, 0), (model.transitions, 1), (model.initial, 0)):
            np.testing.assert_allclose(array.sum(axis), 1, rtol=1e-12)


def test_learning_finds_what_alternates_and_single_precision_is_as_good():
    """Of two kinds of tokens in turn, a model without states knows one bit less for each token."""
    draw = np.random.default_rng(0)
    rows = [[0, *(draw.integers(2, 5, 40) + 3 * (np.arange(40) % 2)).tolist(), 1] for _ in range(100)]
    losses = []
    model = learn(blocks(rows, 70), 3, 25, 8, True, watch=lambda number, loss: losses.append(loss))
    assert model.emissions.dtype == np.float32 and len(losses) == 25
    held_out = [[0, 2, 5, 3, 6, 4, 7, 2, 5]]
    assert -model.log_probs(*joined(held_out))[1:].mean() < math.log(3) + 0.15 < math.log(6)
    double = HiddenMarkovModel(*(array.astype(np.float64) for array in model.arrays().values()), True)
    np.testing.assert_allclose(model.log_probs(*joined(rows)), double.log_probs(*joined(rows)), atol=1e-4)
    again = learn(blocks(rows, 70), 3, 25, 8, True)
    np.testing.assert_array_equal(model.emissions, again.emissions)
