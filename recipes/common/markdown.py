"""Tables in Markdown, whatever their cells hold."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

# What would be taken for markup: a backslash, the border of a cell, code, emphasis, links, lines through words. An
# underscore within a word, as in the name of a field, is none.
_MARKUP = re.compile(r"[\\|`*\[\]~]|(?<![^\W_])_|_(?![^\W_])")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+%?|-|")
_HTML = re.compile(r"<|&(?=#?\w+;)")


def in_cell(value: Any, longest: int | None = None) -> str:
    """Write a value so that a cell shows it as it is, on one line.

    Args:
        longest: characters of the value that are shown; what is longer is cut.
    """
    text = " ".join(str(value).replace("\0", "\ufffd").split())
    text = text if longest is None or len(text) <= longest else f"{text[:longest].rstrip()} ..."
    text = _MARKUP.sub(r"\\\g<0>", text)
    return _HTML.sub(lambda found: {"<": "&lt;", "&": "&amp;"}[found.group()], text)


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], longest: int | None = None) -> str:
    """Write a table; columns of numbers that have a name are set to the right.

    Args:
        rows: as many cells in each as in the header.
        longest: see `in_cell`.
    """
    cells = [[in_cell(value, longest) for value in row] for row in rows]
    names = [in_cell(name) for name in header]
    numeric = [name and all(_NUMBER.fullmatch(row[place]) for row in cells) for place, name in enumerate(names)]
    borders = ["---:" if is_numeric and cells else "---" for is_numeric in numeric]
    return "\n".join(
        "|".join(["", *(f" {cell} " if cell else " " for cell in line), ""]) for line in [names, borders, *cells]
    )
