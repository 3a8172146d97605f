"""Figures of a run: panels that are saved as PNG."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@contextmanager
def panels(path: Path, size: tuple[float, float], columns: int = 1) -> Iterator[Sequence["Axes"]]:
    """Draw panels side by side, of so many inches together, and save them in the end."""
    yield from _saved(path, size, 1, columns)


@contextmanager
def stacked_panels(path: Path, size: tuple[float, float], heights: Sequence[float]) -> Iterator[Sequence["Axes"]]:
    """Draw panels of these relative heights one below the other over the same horizontal axis, and save them."""
    for axes in _saved(path, size, len(heights), 1, sharex=True, height_ratios=heights):
        yield axes
        for axis in axes:
            axis.grid(alpha=0.3)


def _saved(
    path: Path, size: tuple[float, float], rows: int, columns: int, **options: object
) -> Iterator[Sequence["Axes"]]:
    from matplotlib.figure import Figure  # it takes long to import, and is needed at the end of a run only

    figure = Figure(figsize=size, layout="tight")
    yield figure.subplots(rows, columns, squeeze=False, **options).ravel()
    figure.savefig(path, dpi=120)
