"""Figures of a run: panels that are saved as PNG."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The first that is installed and has all characters needed is taken; all but the first have Chinese ones.
FONTS = (
    *("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "SimHei", "Microsoft YaHei", "PingFang SC", "Arial Unicode MS"),
)
TITLE_CHARACTERS = 12  # of a title on an inch
_title: ContextVar[str] = ContextVar("title", default="")


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


@contextmanager
def titled(title: str) -> Iterator[None]:
    """Give every figure that is saved meanwhile this title: the run and its score, whatever the figure shows."""
    token = _title.set(title)
    try:
        yield
    finally:
        _title.reset(token)


def font_with(text: Iterable[str], families: Sequence[str] = FONTS) -> str | None:
    """The first of some fonts that is installed and has all characters of a text; None where none has."""
    from matplotlib import font_manager  # with the rest of it, at the end of a run only

    needed = {ord(character) for part in text for character in part}
    installed = set(font_manager.get_font_names())
    for family in families:
        if family in installed:
            font = font_manager.get_font(font_manager.findfont(family))
            if all(font.get_char_index(code) for code in needed):
                return family
    return None


def literal(text: str) -> str:
    """A text that matplotlib draws as it is, and not as a formula."""
    return text.replace("$", "\\$")


def _saved(
    path: Path, size: tuple[float, float], rows: int, columns: int, **options: object
) -> Iterator[Sequence["Axes"]]:
    from matplotlib.figure import Figure  # it takes long to import, and is needed at the end of a run only

    figure = Figure(figsize=size, dpi=120)
    yield figure.subplots(rows, columns, squeeze=False, **options).ravel()
    if title := _title.get():
        text, family = drawable(title)
        lines = textwrap.wrap(text, max(20, int(size[0] * TITLE_CHARACTERS)))
        figure.suptitle(literal("\n".join(lines)), fontsize=10, family=family)
    figure.tight_layout()  # once, and not as an engine, for which everything would be drawn twice
    figure.savefig(path)


def drawable(text: str) -> tuple[str, str]:
    """A text and a font that has its characters; where none has all of them, dots stand for those that are missing."""
    family = font_with(text)
    if family is not None:
        return text, family
    return re.sub("…+", "…", "".join(one if font_with(one, FONTS[:1]) else "…" for one in text)), FONTS[0]
