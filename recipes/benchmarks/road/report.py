"""The road as a table and as a curve: bits per byte over minutes, each side with its seeds."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.recipes.common.markdown import table
from weft.recipes.training.figures import stacked_panels

Entry = dict[str, Any]  # one run, as results.json has it


def grouped(entries: Sequence[Entry]) -> dict[str, dict[float, list[Entry]]]:
    """The runs of each side, by minutes."""
    found: dict[str, dict[float, list[Entry]]] = {}
    for entry in sorted(entries, key=lambda entry: (entry["minutes"], entry["seed"])):
        found.setdefault(entry["side"], {}).setdefault(entry["minutes"], []).append(entry)
    return found


def as_table(entries: Sequence[Entry]) -> str:
    """One row for each side and number of minutes: mean and spread over seeds, and what the minutes went into."""
    rows = []
    for side, by_minutes in grouped(entries).items():
        for minutes, runs in by_minutes.items():
            scores = [run["bits_per_byte"] for run in runs]
            rows.append(
                [
                    side,
                    f"{minutes:g}",
                    f"{statistics.fmean(scores):.4f}",
                    f"{min(scores):.4f} to {max(scores):.4f}",
                    len(runs),
                    f"{statistics.fmean(run['seconds'] for run in runs) / 60:.2f}",
                    f"{statistics.fmean(run['preparation'] for run in runs):.0f}",
                    f"{statistics.fmean(run['steps'] for run in runs):.0f}",
                ]
            )
    header = ["side", "minutes", "bits/byte", "lowest to highest", "seeds", "minutes taken", "preparing (s)", "steps"]
    return table(header, rows)


def as_result(entries: Sequence[Entry], side: str = "weft") -> dict[str, Any]:
    """The same as an entry of benchmark.py: mean bits per byte of each side and number of minutes, and those of the
    others over those of `side` after the same minutes, seed by seed."""
    groups = grouped(entries)
    scores = {
        (name, minutes): {run["seed"]: run["bits_per_byte"] for run in runs}
        for name, by_minutes in groups.items()
        for minutes, runs in by_minutes.items()
    }
    names = {place: f"{place[0]}, {place[1]:g} minutes" for place in scores}
    medians = {names[place]: statistics.fmean(found.values()) for place, found in scores.items()}
    ratios = {}
    for place, theirs in scores.items():
        ours = scores.get((side, place[1]), {})
        shared = sorted(theirs[seed] / ours[seed] for seed in theirs.keys() & ours.keys())
        if place[0] != side and shared:
            own = names[side, place[1]]
            ratios[names[place]] = {"median": statistics.median(shared), "lowest": shared[0], "highest": shared[-1]}
            ratios[names[place]] |= {"theirs": names[place], "ours": own}
            ratios[names[place]] |= {"their_median": medians[names[place]], "our_median": medians[own]}
    return {"unit": "bits/byte", "medians": medians, "ratios": ratios}


def minutes_to_reach(entries: Sequence[Entry], side: str = "weft") -> str | None:
    """The sentence that compares the best figure of the others with the earliest at which a side has it."""
    groups = grouped(entries)
    means = {
        (name, minutes): statistics.fmean(run["bits_per_byte"] for run in runs)
        for name, by_minutes in groups.items()
        for minutes, runs in by_minutes.items()
    }
    others = {place: value for place, value in means.items() if place[0] != side}
    if not others or side not in groups:
        return None
    (name, minutes), best = min(others.items(), key=lambda item: item[1])
    reached = [place[1] for place, value in means.items() if place[0] == side and value <= best]
    told = f"{side} is there in {min(reached):g}" if reached else f"{side} does not reach it"
    return f"the best of the others is {name} with {best:.4f} bits/byte in {minutes:g} minutes; {told}"


def draw(entries: Sequence[Entry], path: Path) -> None:
    """Draw mean bits per byte over the minutes that were taken, with lines from the lowest to the highest seed."""
    with stacked_panels(path, (7, 4.5), (1,)) as axes:
        for side, by_minutes in grouped(entries).items():
            scores = [[run["bits_per_byte"] for run in runs] for runs in by_minutes.values()]
            means = [statistics.fmean(found) for found in scores]
            taken = [statistics.fmean(run["seconds"] for run in runs) / 60 for runs in by_minutes.values()]
            below = [mean - min(found) for mean, found in zip(means, scores)]
            above = [max(found) - mean for mean, found in zip(means, scores)]
            axes[0].errorbar(taken, means, yerr=(below, above), marker="o", capsize=3, label=side)
        axes[0].set_xlabel("minutes from the text to the weights")
        axes[0].set_ylabel("bits/byte of held-out text")
        axes[0].legend()
