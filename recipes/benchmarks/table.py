"""The table of what was measured, in Markdown."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from weft.recipes.common.markdown import in_cell, table

HEADER = ("entry", "what", "ours", "beside", "ours, s", "beside, s", "ratio (lowest to highest)", "memory, MB: ratio")
HEADER += ("commit", "machine", "versions")
COMMIT = 9  # characters of it that are shown


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """A row for each side of each entry, and below what the machines and versions are that it names.

    Args:
        results: what benchmark.json holds: of each entry its name, what it shows, and what was measured, or why it was
            not run.
    """
    rows, machines, versions = [], [], []
    for result in results:
        name, what = result["entry"], result["what"]
        if "not_run" in result:
            rows.append((name, what, f"not run: {result['not_run']}", *("",) * (len(HEADER) - 3)))
            continue
        named = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
        place = _place(machines, result["machine"]), _place(versions, named)
        for cells in _cells(result):
            rows.append((name, what, *cells, _short(result["commit"]), *place))
            name = what = ""
    legend = [f"Machine {place}: {in_cell(text)}." for place, text in enumerate(machines, 1)]
    legend += [f"Versions {place}: {in_cell(text)}." for place, text in enumerate(versions, 1)]
    return "\n\n".join([table(HEADER, rows), "\n".join(legend)]).strip()


def _cells(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Names, times, ratio and memory of each two sides that are compared; where none are, name and time of each."""
    for ratio in result["ratios"].values():
        names = ratio["ours"], ratio["theirs"]
        rest = f", {ratio['rest']}" if "rest" in ratio else ""
        spread = f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
        times = _figure(result, ratio["our_median"]), _figure(result, ratio["their_median"])
        yield names[0], f"{names[1]}{rest}", *times, spread, _memory(result, *names)
    if not result["ratios"]:
        for name, median in result["medians"].items():
            yield name, "", _figure(result, median), "", "", ""


def _memory(result: dict[str, Any], *sides: str) -> str:
    """The median peaks of two sides and their ratio, where they were measured."""
    found = dict(result.get("peak_megabytes", {}))
    for side, runs in result.get("under_trainer", {}).items():
        found[side] = [run["peak_megabytes"] for run in runs if "peak_megabytes" in run]
    if not all(found.get(side) for side in sides):
        return ""
    ours, theirs = (statistics.median(found[side]) for side in sides)
    return f"{ours:,.0f}, {theirs:,.0f}: {theirs / ours:.2f}"


def _figure(result: dict[str, Any], value: float) -> str:
    """Seconds, or what else an entry measures, with its unit."""
    unit = f" {result['unit']}" if "unit" in result else ""
    return (f"{value:.3f}" if value < 10 else f"{value:.1f}") + unit


def _short(commit: str | None) -> str:
    """A commit's first characters, with a mark where the source was changed since."""
    return "" if commit is None else commit[:COMMIT] + ("+" if "+" in commit else "")


def _place(things: list[str], thing: str) -> int:
    """The number of a thing among those that were seen, to which it is added where it is new."""
    if thing not in things:
        things.append(thing)
    return things.index(thing) + 1
