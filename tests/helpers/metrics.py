"""The metrics of the recipes, and how their scores are compared with those of a reference."""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weft.recipes.metrics import load_metric

METRICS_FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "metrics"
EXACT = {"rel": 1e-12, "abs": 1e-12}  # sums in another order

Case = tuple[list, list, dict[str, Any]]  # predictions, references and options


@functools.cache
def metric_of(name: str) -> Any:
    """A metric, loaded once."""
    return load_metric(name)


def score(name: str, case: Case) -> dict[str, Any]:
    """What a metric says of a case; a warning is an error."""
    predictions, references, options = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return metric_of(name).compute(predictions=predictions, references=references, **options)


def assert_scores_are_those_of(reference: Callable[..., dict[str, Any]], name: str, cases: list[Case]) -> None:
    """Every score of a metric, where it is defined, is the reference's."""
    for predictions, references, options in cases:
        with warnings.catch_warnings(action="ignore"):  # the references' own
            expected = reference(predictions, references, **options)
        found = score(name, (predictions, references, options))
        _assert_close({key: value for key, value in found.items() if key != "undefined"}, expected)


def assert_some_scores_are(name: str, case: Case, expected: dict[str, float]) -> None:
    """Scores of an example that somebody worked out by hand."""
    found = score(name, case)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9)


def _assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, dict):
            _assert_close(found[key], value)
        elif isinstance(value, str):
            assert found[key] == value, key
        else:
            assert found[key] == pytest.approx(value, **EXACT), key
