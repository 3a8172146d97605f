"""Whether counts fit the probabilities that they should come from."""

from collections.abc import Sequence

import numpy as np

ONCE_IN_A_MILLION = 4.753  # standard deviations


def assert_fits(counts: Sequence[int] | np.ndarray, probabilities: Sequence[float] | np.ndarray) -> None:
    """Pearson's chi-square test, which right code fails once in a million (Wilson and Hilferty's approximation)."""
    counts, probabilities = np.asarray(counts, dtype=float), np.asarray(probabilities, dtype=float)
    expected = counts.sum() * probabilities
    assert expected.min() >= 5, "too few for the approximation"
    found, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    spread = 2 / (9 * freedom)
    limit = freedom * (1 - spread + ONCE_IN_A_MILLION * spread**0.5) ** 3
    assert found < limit, f"chi-square {found:.1f} of {freedom} degrees of freedom: {counts} where {expected} belong"


def assert_share(found: float, expected: float, number: int) -> None:
    """Whether a share among `number` independent cases is what it should be."""
    error = (expected * (1 - expected) / number) ** 0.5
    assert abs(found - expected) <= 5 * error + 1e-12, f"{found} of {number}, where {expected} belongs"
