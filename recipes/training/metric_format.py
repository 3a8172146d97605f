"""How metrics are shown to people: their names in words, and how many digits they have."""

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# The metrics that every run has, in the order in which they are shown.
FORMATS = {"loss": ".4f", "train_loss": ".4f", "tokens_per_second": ",.0f", "mfu": ".1%", "matmul_gflops": ",.1f"}
_WORDS = {
    "train_loss": "last training loss",
    "mfu": "share of the measured matrix-product rate (MFU)",
    "matmul_gflops": "measured matrix-product rate (GFLOP/s)",
}
_SHARE = re.compile(r"(.+_)?(accuracy|precision|recall|f1|mfu|ece)(_.+)?|rouge\w+|auc")
_CORRELATION = re.compile(r"matthews_correlation|pearsonr?|spearmanr|corrcoef")
_PERCENT = ("bleu", "chrf", "exact_match")


def range_of(name: str) -> tuple[float, float] | None:
    """The lowest and the highest value that a metric can have; None for one without limits, or an unknown one."""
    if name in _PERCENT:
        return 0.0, 100.0
    if _CORRELATION.fullmatch(name):
        return -1.0, 1.0
    return (0.0, 1.0) if _SHARE.fullmatch(name) else None


def words_of(name: str) -> str:
    """A metric's name in words."""
    return _WORDS.get(name, name.replace("_", " "))


def text_of(name: str, value: Any, formats: Mapping[str, str] = FORMATS) -> str:
    """A metric's value; "-" for one that was not measured."""
    if value is None:
        return "-"
    if name.endswith("_per_second"):
        return speed_of(value)
    return format(value, formats.get(name, ",.4f" if isinstance(value, float) else ",d"))


def speed_of(value: float) -> str:
    """So many in a second, never "0" for what is only slow."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def in_order(metrics: Mapping[str, Any], prefix: str, formats: Mapping[str, str]) -> dict[str, Any]:
    """The metrics whose names begin with `prefix`, without it, in the order of `formats`, the others behind them.

    A part of the loss that is all of it is left out.
    """
    found = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    names = [name for name in (*formats, *found) if name in found]
    whole = {name for name in names if name.endswith("_loss") and found[name] == found.get("loss", "")}
    return {name: found[name] for name in names if name not in whole}


def median_of(history: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The median of a metric over the logs that have it, the higher one of two; None where none has."""
    values = [entry[name] for entry in history if name in entry]
    return statistics.median_high(values) if values else None
