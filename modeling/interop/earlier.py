"""Fields of a stock config.json under the names that transformers 4 reads, beside those that transformers 5 writes.

Rotary positions have been one field, `rope_parameters`, since version 5; earlier ones take `rope_theta` and
`rope_scaling`, and a frequency of 10,000 where these are absent, without a word. Which layers see a window only has
been a list since 4.53; earlier ones count.
"""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedConfig

Fields = dict[str, Any]
FULL, SLIDING = "full_attention", "sliding_attention"


def earlier_fields(config: PreTrainedConfig) -> Fields:
    """The frequency, scaling and share of rotary positions that all layers have alike, and the dtype."""
    fields: Fields = {} if config.dtype is None else {"torch_dtype": str(config.dtype).removeprefix("torch.")}
    rope = getattr(config, "rope_parameters", None)
    if rope and "rope_theta" in rope:
        fields |= {"rope_theta": rope["rope_theta"], "rope_scaling": scaling_of(rope)}
        fields |= {name: rope[name] for name in ("partial_rotary_factor",) if name in rope}
    return fields


def scaling_of(rope: Fields) -> Fields | None:
    """`rope_scaling` of rotary positions, None where they are not scaled."""
    apart = ("rope_theta", "partial_rotary_factor")
    return None if rope["rope_type"] == "default" else {name: rope[name] for name in rope if name not in apart}


def every(number: int, first: int) -> Callable[[int], str]:
    """The kind of layer i where each `number`-th sees everything, beginning with `first`."""
    return lambda i: FULL if i % number == first else SLIDING


def interval_of(layer_types: list[str], first: Callable[[int], int]) -> int:
    """The number for `every` that gives these layers, the number of layers and one more if none does."""
    numbers = range(1, len(layer_types) + 2)
    fits = (n for n in numbers if all(every(n, first(n))(i) == kind for i, kind in enumerate(layer_types)))
    return next(fits, len(layer_types) + 1)


def other_windows(
    layer: Callable[[PreTrainedConfig, int], str], since: str = "4.53"
) -> Callable[[PreTrainedConfig], str | None]:
    """What is wrong where earlier versions give other layers a window.

    Args:
        layer: the kind of layer i, as they count.
        since: the first version that reads `layer_types`.
    """

    def fault(config: PreTrainedConfig) -> str | None:
        kinds = list(config.layer_types)
        if kinds == [layer(config, i) for i in range(len(kinds))]:
            return None
        return f"transformers before {since} gives a window to other layers than layer_types says"

    return fault
