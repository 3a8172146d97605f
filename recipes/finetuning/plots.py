"""Plots of a model's predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weft.recipes.training.figures import FONTS, font_with, literal, panels, stacked_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15  # of confidence, as many as the calibration metric has
MOST_CLASSES = 30  # more do not fit a page
_LONGEST_NAME = 24
_FONTS = FONTS
BY_NUMBER = "by the numbers in the card's table"  # where no font has the names


def plot_confusion(path: Path, names: Sequence[str], counts: np.ndarray, numbers: Sequence[int] | None = None) -> None:
    """How often each class (a row) is taken for each class (a column); colours are shares of the row.

    Of more than 30 classes those are shown that are most often involved in mistakes.

    Args:
        counts: [classes, classes].
        numbers: of the classes, for names that no font has; None: 0, 1 ...
    """
    shown = np.arange(len(names))
    if len(names) > MOST_CLASSES:
        wrong = counts - np.diag(np.diag(counts))
        shown = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CLASSES])
    part = counts[np.ix_(shown, shown)]
    shares = part / np.maximum(counts.sum(1)[shown][:, None], 1)
    own = range(len(names)) if numbers is None else numbers
    labels, font, numbered = _drawable([names[number] for number in shown], [own[number] for number in shown])
    cells = len(shown)
    size = max(4.5, 0.42 * cells + 2.4)
    with panels(path, (size + 0.8, size)) as (axes,):
        _draw_matrix(axes, part, shares, labels, font)
        axes.set(xlabel=f"predicted, {BY_NUMBER}" if numbered else "predicted", ylabel="right")
        if cells < len(names):
            axes.set_title(f"the {cells} of {len(names)} classes with the most mistakes", fontsize=10)


def _draw_matrix(axes: "Axes", part: np.ndarray, shares: np.ndarray, labels: Sequence[str], font: str) -> None:
    from matplotlib.font_manager import FontProperties  # with the rest of it, at the end of a run only

    cells = len(labels)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    small = 9 if cells <= 12 else 7
    for row in range(cells):
        for column in range(cells):
            count, share = part[row, column], shares[row, column]
            colour = "white" if share > 0.55 else "black" if count else "silver"
            text = f"{count}" if cells > 8 or not count else f"{count:,}\n{share:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=small)
    turned = cells > 3 or max(map(len, labels)) > 12
    properties = FontProperties(family=font, size=max(small, 8))
    axes.set_xticks(
        range(cells),
        labels,
        rotation=60 if turned else 0,
        ha="right" if turned else "center",
        fontproperties=properties,
        rotation_mode="anchor" if turned else "default",
    )
    axes.set_yticks(range(cells), labels, fontproperties=properties)
    axes.figure.colorbar(image, ax=axes, label="share of the right class", fraction=0.046, pad=0.03)


def plot_calibration(path: Path, confidence: np.ndarray, right: np.ndarray, ece: float) -> None:
    """A reliability diagram (https://huggingface.co/papers/1706.04599): how often examples of a confidence are right.

    Args:
        confidence: [examples], probability of the predicted class.
        right: [examples], whether it is the right one.
        ece: the expected calibration error.
    """
    edges = np.linspace(0, 1, BINS + 1)
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    sizes = np.bincount(bin_of, minlength=BINS)
    filled = sizes > 0
    hits = np.bincount(bin_of, weights=right, minlength=BINS)[filled] / sizes[filled]
    means = np.bincount(bin_of, weights=confidence, minlength=BINS)[filled] / sizes[filled]
    with stacked_panels(path, (5, 5.6), (3, 1)) as (top, bottom):
        top.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="perfectly calibrated")
        bars = {"width": 1 / BINS, "align": "edge", "edgecolor": "white"}
        colours = [("tab:blue", alpha) for alpha in faded(sizes[filled])]
        top.bar(edges[:-1][filled], hits, color=colours, label="share that is right (the paler, the fewer)", **bars)
        top.plot(means, hits, "o", color="tab:blue", markersize=4, label="at the mean confidence")
        title = f"expected calibration error {ece:.3f}"
        top.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02), title=title)
        top.legend(loc="upper left", fontsize=8)
        bottom.bar(edges[:-1], sizes, color="tab:grey", **bars)
        for left, size in zip(edges[:-1][filled], sizes[filled]):
            bottom.text(left + 0.5 / BINS, size, f"{size:,}", ha="center", va="bottom", fontsize=6)
        bottom.set(xlabel="confidence", ylabel="examples", ylim=(0, 1.15 * sizes.max()))


def faded(sizes: np.ndarray) -> np.ndarray:
    """How opaque what stands for so many examples each is drawn, between 0 and 1: few examples prove little."""
    return 0.15 + 0.65 * np.sqrt(sizes / sizes.max())


def plot_scores(
    path: Path, names: Sequence[str], f1: Sequence[float], title: str = "", numbers: Sequence[Any] | None = None
) -> None:
    """F1 of each label as bars, the last one on top.

    Args:
        numbers: stand for names that no font has; None: 0, 1 ...
    """
    from matplotlib.font_manager import FontProperties  # with the rest of it, at the end of a run only

    labels, font, numbered = _drawable(names, range(len(names)) if numbers is None else numbers)
    with panels(path, (6.5, max(2.2, 0.24 * len(names) + 1.3))) as (axes,):
        axes.barh(range(len(names)), f1, color="tab:blue")
        for place, score in enumerate(f1):
            axes.text(score + 0.01, place, f"{score:.2f}", va="center", fontsize=8)
        axes.set_yticks(range(len(names)), labels, fontproperties=FontProperties(family=font, size=9))
        axes.set(xlabel=f"F1, {BY_NUMBER}" if numbered else "F1", xlim=(0, 1.08), ylim=(-0.6, len(names) - 0.4))
        axes.set_title(title, fontsize=10)


def plot_sides(path: Path, tables: Mapping[str, Mapping[str, float]]) -> None:
    """Scores of models and of what they are compared with: a panel for each table, a bar for each entry, the first in
    colour and on top."""
    with panels(path, (4.6 * len(tables), 1.3 + 0.32 * max(map(len, tables.values()))), len(tables)) as found:
        for axes, (title, scores) in zip(found, tables.items()):
            places = range(len(scores))
            axes.barh(places, list(scores.values()), color=["tab:blue", *["silver"] * (len(scores) - 1)])
            for place, score in enumerate(scores.values()):
                axes.text(max(score, 0) + 0.01, place, f"{score:.3f}", va="center", fontsize=8)
            axes.set_yticks(places, list(scores), fontsize=8)
            axes.set(xlim=(min(0, *scores.values()), 1.12), ylim=(len(scores) - 0.4, -0.6))
            axes.set_title(title, fontsize=9)


def plot_scatter(path: Path, right: np.ndarray, predicted: np.ndarray) -> None:
    """Predicted over right numbers, both [examples]."""
    with panels(path, (5.2, 5)) as (axes,):
        axes.scatter(right, predicted, s=8, alpha=min(1.0, max(0.1, 300 / len(right))), color="tab:blue", linewidths=0)
        both = np.concatenate([right, predicted[np.isfinite(predicted)]])
        axes.plot([both.min(), both.max()], [both.min(), both.max()], color="grey", linestyle="--", linewidth=1)
        axes.set(xlabel="right", ylabel="predicted")


def _drawable(names: Sequence[str], numbers: Sequence[Any]) -> tuple[list[str], str, bool]:
    """Names cut to a drawable length, a font that has their characters, and whether numbers stand in for the names,
    because no installed font has these."""
    short = [
        n if len(n) <= _LONGEST_NAME else n[: _LONGEST_NAME - 1] + "…" for n in (" ".join(n.split()) for n in names)
    ]
    family = font_with(short, _FONTS)
    if family is None:
        return [str(number) for number in numbers], _FONTS[0], True
    return [literal(name) for name in short], family, False
