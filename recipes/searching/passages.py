"""Texts into passages: cut at the ends of paragraphs and sentences, no longer than a model reads."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import regex

from weft.recipes.data.segmentation import Offsets, sentence_starts
from weft.recipes.searching.reading import Stretch

LEAST_TOKENS = 8  # of a passage, at most, so that there is room for a title too
_PARAGRAPH_END = regex.compile(r"\n[^\S\n]*\n\s*")


class Passage(NamedTuple):
    """What is found.

    Attributes:
        text: as it stands in its source, behind the title of its stretch where that has one.
        place: where in its source it stands, in words; "": the source has one text.
        line, page: of its first character; 0: its source has none.
    """

    text: str
    place: str
    line: int
    page: int


class Cutter:
    """Cuts texts into passages.

    A passage is as many whole sentences as it may have tokens. It ends with a paragraph where one ends in its second
    half. Else the next passage begins with its last sentences again, as far as they are short enough.
    """

    def __init__(self, offsets: Callable[[str], Offsets], longest: int, overlap: int) -> None:
        """
        Args:
            offsets: of a text's tokens: the first character and the one after the last of each, in order.
            longest: tokens of a passage, at most.
            overlap: tokens that two passages share, at most.
        """
        self.offsets, self.longest, self.overlap = offsets, longest, overlap

    def passages(self, stretches: Iterable[Stretch]) -> list[Passage]:
        """Cut the stretches of one source."""
        found = [each for stretch in stretches for each in self._passages(stretch)]
        pages = {passage.page for passage in found}
        return [each._replace(page=0) if pages == {1} else _with_page(each) for each in found]

    def _passages(self, stretch: Stretch) -> Iterator[Passage]:
        title, room = self._title_of(stretch)
        spans = self.spans(stretch.text, room)
        begin, before = stretch.line, 0
        for number, (first, last) in enumerate(spans, start=1):
            text, line, place = stretch.text[first:last], 0, stretch.record
            if stretch.line:
                begin += stretch.text.count("\n", before, first)
                line, before = begin, first
                end = line + text.count("\n")
                place = f"line {line}" if end == line else f"lines {line}-{end}"
            elif len(spans) > 1:
                place = f"{place}, part {number} of {len(spans)}".lstrip(", ")
            yield Passage(title + text, place, line, stretch.page)

    def _title_of(self, stretch: Stretch) -> tuple[str, int]:
        """What stands before each passage of a stretch, half as long as one at most, and the tokens that are left."""
        if not stretch.title:
            return "", self.longest
        title, half = f"{stretch.title}\n", self.longest // 2
        offsets = np.asarray(self.offsets(title), dtype=np.int64).reshape(-1, 2)
        if len(offsets) > half:
            title = f"{title[: offsets[half - 1, 0]].rstrip()}\n"  # a token for the line end
        return title, max(1, self.longest - len(self.offsets(title)))

    def spans(self, text: str, longest: int) -> list[tuple[int, int]]:
        """Return the first character of each passage of a text, and the one after its last."""
        offsets = np.asarray(self.offsets(text), dtype=np.int64).reshape(-1, 2)
        units, closed = self._units(text, offsets, longest)
        ends = np.append(offsets[:, 0], len(text))  # where the text before each token ends
        ends[0] = 0
        found, begin, last, closing = [], 0, len(units) - 1, set(closed.tolist())
        while begin < last:
            end = max(int(np.searchsorted(units, units[begin] + longest, side="right")) - 1, begin + 1)
            if end < last:
                whole = closed[slice(*np.searchsorted(closed, (begin + 1, end + 1)))]
                whole = whole[units[whole] - units[begin] >= longest / 2]
                end = int(whole[-1]) if len(whole) else end
            found.append(_trimmed(text, int(ends[units[begin]]), int(ends[units[end]])))
            begin = end if end == last or end in closing else self._begin_again(units, begin, end)
        return [(first, after) for first, after in found if first < after]

    def _units(self, text: str, offsets: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first token of each unit that is never cut, with the number of tokens behind them, and the
        indices of those units that begin a paragraph."""
        count = len(offsets)
        sentences = np.flatnonzero(sentence_starts(text, offsets)) if count else np.zeros(0, dtype=np.int64)
        bounds = np.unique(np.concatenate(([0], sentences, [count])))
        paragraphs = np.array([match.end() for match in _PARAGRAPH_END.finditer(text)], dtype=np.int64)
        tokens = np.searchsorted(offsets[:, 1], paragraphs, side="right")
        begun = np.unique(bounds[np.searchsorted(bounds, tokens, side="right") - 1])
        units = [0]
        for bound in bounds[1:]:
            while bound - units[-1] > longest:  # a sentence that no passage has room for
                units.append(_end_within(text, offsets, units[-1], longest))
            units.append(int(bound))
        units = np.unique(units)
        return units, np.searchsorted(units, begun)

    def _begin_again(self, units: np.ndarray, begin: int, end: int) -> int:
        """The unit that the passage behind `end` begins with."""
        return max(begin + 1, int(np.searchsorted(units, units[end] - self.overlap)))


def _end_within(text: str, offsets: np.ndarray, begin: int, longest: int) -> int:
    """The token behind a part of a sentence that has no room: not far from the last that there is room for one that
    begins a word between blanks, else one that begins a character."""
    last = begin + longest
    begins = begin + 1 + np.flatnonzero(np.diff(offsets[begin : last + 1, 0]) > 0)
    for place in begins[::-1].tolist():
        first = int(offsets[place, 0])
        if place <= last - longest // 4:
            break
        if text[first : first + 1].isspace() or text[first - 1 : first].isspace():
            return place
    return int(begins[-1]) if len(begins) else last


def _trimmed(text: str, first: int, last: int) -> tuple[int, int]:
    """A span without the blank lines around its text and the blanks behind it; the first line keeps its indentation."""
    part = text[first:last]
    last -= len(part) - len(part.rstrip())
    lead = len(part) - len(part.lstrip())
    kept = part.rfind("\n", 0, lead) + 1
    return first + (kept if kept or first == 0 else lead), last


def _with_page(passage: Passage) -> Passage:
    return passage._replace(place=f"page {passage.page}, {passage.place}")
