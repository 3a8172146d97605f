"""How many times as long one side of a benchmark takes as another: which two are compared, and the spread."""

import statistics
from typing import Any

from weft.recipes.benchmarks.decoding import PROMPT
from weft.recipes.benchmarks.preparation import IMPORTS
from weft.recipes.benchmarks.whole_rows import MASK

# What ends the names of sides that do a part of what another does, and how the rest is called.
PARTS = {IMPORTS: "without loading libraries", PROMPT: "without the prompt"}

Times = dict[str, list[float]]  # the seconds of each round of each side


def compared(name: str, sides: Times, stock: str | None) -> tuple[str, str] | None:
    """The side whose time is divided and the one it is divided by, for the line of this side; None: it has none.

    A side is divided by Weft's of the same kind ("weft, eager" for "llama, eager"), where there is one, else by Weft.

    Args:
        stock: the side that is divided by each other way of doing what it does; None: there are no such ways.
    """
    part = next((part for part in PARTS if name.endswith(part)), "")
    whole = name.removesuffix(part)
    kind = whole.split(", ")[1:]
    if stock is not None and kind and whole != MASK:
        theirs, ours = f"{stock}{part}", name
    else:
        same = ", ".join(["weft", *kind])
        theirs, ours = name, f"{same if f'{same}{part}' in sides and same != whole else 'weft'}{part}"
    return (theirs, ours) if theirs in sides and ours in sides and theirs != ours else None


def ratios_of(times: Times, stock: str | None = None) -> dict[str, dict[str, Any]]:
    """Of each side that does more than to load libraries, each round's time of one side over that of another (see
    `compared`): median, lowest and highest, with the names of both (theirs, ours) and the median seconds of each."""
    found = {}
    for name in times:
        pair = None if name.endswith(IMPORTS) else compared(name, times, stock)
        if pair is not None:
            theirs, ours = (times[side] for side in pair)
            ratios = sorted(their / our for their, our in zip(theirs, ours))
            found[name] = {"median": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
            found[name] |= {"theirs": pair[0], "ours": pair[1]}
            found[name] |= {"their_median": statistics.median(theirs), "our_median": statistics.median(ours)}
    return found


def ratios_of_the_rest(seconds: Times, stock: str | None = None) -> dict[str, dict[str, Any]]:
    """The same of what sides do beside a part that is measured by itself, which `rest` tells of."""
    found = {}
    for part, words in PARTS.items():
        ratios = ratios_of(without(seconds, part), stock)
        found |= {f"{name}, {words}": {**ratio, "rest": words} for name, ratio in ratios.items()}
    return found


def without(seconds: Times, part: str) -> Times:
    """The times of sides less those of their part; none where one is within the noise of the other."""
    rest = {
        name: [whole - less for whole, less in zip(found, seconds[name + part])]
        for name, found in seconds.items()
        if name + part in seconds
    }
    return rest if all(min(found) > 0 for found in rest.values()) else {}


def told(ratio: dict[str, Any]) -> str:
    """A ratio with its spread."""
    return f"{ratio['median']:.2f} (from {ratio['lowest']:.2f} to {ratio['highest']:.2f})"
