"""Correlations are those of SciPy, and a perplexity is that of its definition."""

import math

import numpy as np
import pytest
import scipy.stats
from helpers.metric_cases import CASES_OF_NUMBERS
from helpers.metrics import assert_scores_are_those_of, assert_some_scores_are


def expected_pearsonr(predictions, references):
    references = np.array(references)
    if np.ptp(references) < 1e-100:
        references = references * 1e160  # scipy's squares leave the range of floats
    return {"pearsonr": scipy.stats.pearsonr(predictions, references).statistic}


def expected_spearmanr(predictions, references):
    return {"spearmanr": scipy.stats.spearmanr(predictions, references).statistic}


def expected_pearson_spearman(predictions, references):
    pearson, spearman = expected_pearsonr(predictions, references), expected_spearmanr(predictions, references)
    return {
        "pearson": pearson["pearsonr"],
        "spearmanr": spearman["spearmanr"],
        "corrcoef": (pearson["pearsonr"] + spearman["spearmanr"]) / 2,
    }


def expected_perplexity(predictions, references, byte_count=None):
    if isinstance(predictions[0], list):
        kept = [n for nats, labels in zip(predictions, references) for n, label in zip(nats, labels) if label >= 0]
        nats, tokens = sum(kept), len(kept)
    else:
        nats, tokens = sum(predictions), sum(references)
    found = {"loss": nats / tokens, "perplexity": 2 ** (nats / tokens / math.log(2)), "tokens": tokens}
    return found if byte_count is None else found | {"bits_per_byte": nats * math.log2(math.e) / byte_count}


EXPECTED = {
    "pearson_spearman": expected_pearson_spearman,
    "pearsonr": expected_pearsonr,
    "perplexity": expected_perplexity,
    "spearmanr": expected_spearmanr,
}


@pytest.mark.parametrize("name", CASES_OF_NUMBERS)
def test_every_score_is_that_of_the_reference(name):
    assert_scores_are_those_of(EXPECTED[name], name, CASES_OF_NUMBERS[name])


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [("perplexity", ([[math.log(4)], [math.log(16), 9.0]], [[3], [3, -100]], {"byte_count": 3}), {"perplexity": 8})],
)
def test_worked_examples(name, case, expected):
    assert_some_scores_are(name, case, expected)
