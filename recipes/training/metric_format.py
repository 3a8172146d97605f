"""How metrics are shown to people: their names in words, and how many digits they have."""

from typing import Any

# In the order in which they are shown.
FORMATS = {
    "loss": ".4f",
    "causal_loss": ".4f",
    "perplexity": ",.2f",
    "bits_per_byte": ".4f",
    "masked_loss": ".4f",
    "masked_accuracy": ".2%",
    "next_sentence_loss": ".4f",
    "next_sentence_accuracy": ".2%",
    "train_loss": ".4f",
    "tokens_per_second": ",.0f",
    "mfu": ".1%",
    "matmul_gflops": ",.1f",
}
_WORDS = {
    "train_loss": "last training loss",
    "mfu": "share of the measured matrix-product rate (MFU)",
    "matmul_gflops": "measured matrix-product rate (GFLOP/s)",
}


def words_of(name: str) -> str:
    """A metric's name in words."""
    return _WORDS.get(name, name.replace("_", " "))


def text_of(name: str, value: Any) -> str:
    """A metric's value; "-" for one that was not measured."""
    if value is None:
        return "-"
    return format(value, FORMATS.get(name, ",.4f" if isinstance(value, float) else ",d"))


def in_order(metrics: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The metrics whose names begin with `prefix`, without it, in the order in which they are shown.

    A part of the loss that is all of it is left out.
    """
    found = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    names = [name for name in FORMATS if name in found]
    names += [name for name in found if name not in FORMATS]
    return {name: found[name] for name in names if name != "masked_loss" or found[name] != found.get("loss")}
