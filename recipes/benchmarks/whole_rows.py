"""Weft without its tiles, to see what cutting rows brings: the scores of a whole row under a mask, as elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from weft import tiles

MASK = "weft, mask"  # the name of the side


@contextlib.contextmanager
def whole_rows() -> Iterator[None]:
    """Have models of this process mask whole rows, however long, while the context lasts."""
    before = tiles.LEAST_TOKENS, tiles.LEAST_PACKED
    tiles.LEAST_TOKENS = tiles.LEAST_PACKED = sys.maxsize
    try:
        yield
    finally:
        tiles.LEAST_TOKENS, tiles.LEAST_PACKED = before


def in_whole_rows(name: str, call: Callable[[], float]) -> Callable[[], float]:
    """A side's function, which for the side MASK runs without tiles."""

    def masked() -> float:
        with whole_rows():
            return call()

    return masked if name == MASK else call
