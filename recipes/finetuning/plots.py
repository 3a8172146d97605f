"""Plots of a model's predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weft.recipes.training.figures import panels, stacked_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15  # of confidence, as many as the calibration metric has
MOST_CLASSES = 30  # more do not fit a page
_LONGEST_NAME = 24
# Fonts with Chinese characters; the first that is installed and has all characters needed is taken.
_FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "SimHei", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS"),
)


def plot_confusion(path: Path, names: Sequence[str], counts: np.ndarray) -> None:
    """How often each class (a row) is taken for each class (a column); colours are shares of the row.

    Of more than 30 classes those are shown that are most often involved in mistakes.

    Args:
        counts: [classes, classes].
    """
    shown = np.arange(len(names))
    if len(names) > MOST_CLASSES:
        wrong = counts - np.diag(np.diag(counts))
        shown = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CLASSES])
    part = counts[np.ix_(shown, shown)]
    shares = part / np.maximum(counts.sum(1)[shown][:, None], 1)
    labels, font = _drawable([names[number] for number in shown], shown)
    cells = len(shown)
    size = max(4.5, 0.42 * cells + 2.4)
    with panels(path, (size + 0.8, size)) as (axes,):
        _draw_matrix(axes, part, shares, labels, font)
        if cells < len(names):
            axes.set_title(f"the {cells} of {len(names)} classes with the most mistakes", fontsize=10)


def _draw_matrix(axes: "Axes", part: np.ndarray, shares: np.ndarray, labels: Sequence[str], font: str) -> None:
    from matplotlib.font_manager import FontProperties  # with the rest of it, at the end of a run only

    cells = len(labels)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    small = 9 if cells <= 12 else 7
    for row in range(cells):
        for column in range(cells):
            if part[row, column]:
                colour = "white" if shares[row, column] > 0.55 else "black"
                text = f"{part[row, column]}" if cells > 8 else f"{part[row, column]:,}\n{shares[row, column]:.0%}"
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
    axes.set(xlabel="predicted", ylabel="right")
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
        top.bar(edges[:-1][filled], hits, color="tab:blue", alpha=0.5, label="share that is right", **bars)
        top.plot(means, hits, "o", color="tab:blue", markersize=4, label="at the mean confidence")
        title = f"expected calibration error {ece:.3f}"
        top.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02), title=title)
        top.legend(loc="upper left", fontsize=8)
        bottom.bar(edges[:-1], sizes, color="tab:grey", **bars)
        bottom.set(xlabel="confidence", ylabel="examples")


def plot_scores(path: Path, names: Sequence[str], f1: Sequence[float], title: str = "") -> None:
    """F1 of each label as bars, the last one on top."""
    from matplotlib.font_manager import FontProperties  # with the rest of it, at the end of a run only

    labels, font = _drawable(names, range(len(names)))
    with panels(path, (6.5, max(2.0, 0.24 * len(names) + 1))) as (axes,):
        axes.barh(range(len(names)), f1, color="tab:blue")
        for place, score in enumerate(f1):
            axes.text(score + 0.01, place, f"{score:.2f}", va="center", fontsize=8)
        axes.set_yticks(range(len(names)), labels, fontproperties=FontProperties(family=font, size=9))
        axes.set(xlabel="F1", xlim=(0, 1.08), ylim=(-0.6, len(names) - 0.4), title=title)


def plot_scatter(path: Path, right: np.ndarray, predicted: np.ndarray) -> None:
    """Predicted over right numbers, both [examples]."""
    with panels(path, (5.2, 5)) as (axes,):
        axes.scatter(right, predicted, s=8, alpha=min(1.0, max(0.1, 300 / len(right))), color="tab:blue", linewidths=0)
        both = np.concatenate([right, predicted[np.isfinite(predicted)]])
        axes.plot([both.min(), both.max()], [both.min(), both.max()], color="grey", linestyle="--", linewidth=1)
        axes.set(xlabel="right", ylabel="predicted")


def _drawable(names: Sequence[str], numbers: Sequence[int]) -> tuple[list[str], str]:
    """Names cut to a drawable length, and a font that has their characters; where no installed one has, the numbers of
    the labels stand in for their names."""
    from matplotlib import font_manager  # with the rest of it, at the end of a run only

    short = [
        n if len(n) <= _LONGEST_NAME else n[: _LONGEST_NAME - 1] + "…" for n in (" ".join(n.split()) for n in names)
    ]
    needed = {ord(character) for name in short for character in name}
    installed = set(font_manager.get_font_names())
    for family in _FONTS:
        if family in installed:
            font = font_manager.get_font(font_manager.findfont(family))
            if all(font.get_char_index(code) for code in needed):
                return [name.replace("$", "\\$") for name in short], family
    return [str(number) for number in numbers], _FONTS[0]
