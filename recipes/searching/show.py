"""Passages as they are shown: the words of the question marked, in a terminal, as JSON or by a page."""

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from typing import TextIO

from weft.recipes.common.files import json_text
from weft.recipes.common.wording import MOST_NAMED, printable
from weft.recipes.data.segmentation import search_terms
from weft.recipes.data.word_index import Form, plain_form, terms_of
from weft.recipes.searching.index import Hit

LINES_SHOWN = 8
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
INDENT = "   "


def marked(text: str, question: str, form: Form = plain_form) -> Iterator[tuple[str, bool]]:
    """Yield a text in pieces, each with whether it is what the question has too."""
    asked, place = set(terms_of(question, form)), 0
    for first, last in search_terms(text):
        if form(text[first:last]) in asked:
            if first > place:
                yield text[place:first], False
            yield text[max(first, place) : last], True
            place = last
    if place < len(text):
        yield text[place:], False


def score_in_words(hit: Hit) -> str:
    """The score, and what it is fused of."""
    ranks = ", ".join(f"{name} {rank}" for name, rank in hit.ranks.items())
    return f"score {hit.score:.4f}" + (f" (rank by {ranks})" if ranks else "")


def also_in(hit: Hit) -> str:
    """The further places of a passage, in words: the first ones and the number of the others; "" where it has none."""
    more = len(hit.others) - MOST_NAMED
    shown = [*hit.others[:MOST_NAMED], *([f"{more:,} more"] if more > 0 else [])]
    return f"also in {'; '.join(shown)}" if shown else ""


def print_hits(hits: Sequence[Hit], question: str, out: TextIO, form: Form = plain_form, whole: bool = False) -> None:
    """Print passages for people: a line with place and score, then those lines that have most of the question's words.

    What the question has too is bold where that is a terminal.

    Args:
        form: of words, as the index compares them.
        whole: print all lines.
    """
    if not hits:
        print("nothing was found: ask with other words", file=out, flush=True)
    begin, end = (BOLD, PLAIN) if out.isatty() else ("", "")
    for number, hit in enumerate(hits, start=1):
        where, also = (printable(each).replace("\n", "\\n") for each in (hit.where, also_in(hit)))
        print(f"{number}. {begin}{where}{end}{f'; {also}' if also else ''}; {score_in_words(hit)}", file=out)
        text = textwrap.dedent(hit.text.removeprefix(f"{hit.place}\n"))
        lines = [list(marked(printable(line), question, form)) for line in text.split("\n")]
        for line in lines if whole else _best_part(lines):
            text = "".join(f"{begin}{piece}{end}" if found else piece for piece, found in line)
            print(f"{INDENT}{text}".rstrip(), file=out)
        print(file=out, flush=True)


def _best_part(lines: list[list[tuple[str, bool]]]) -> list[list[tuple[str, bool]]]:
    """The lines that follow each other and have most marks, as many as are shown; "..." for what is left out."""
    marks = [sum(found for _, found in line) for line in lines]
    starts = range(max(1, len(lines) - LINES_SHOWN + 1))
    first = max(starts, key=lambda start: (sum(marks[start : start + LINES_SHOWN]), -start))
    last = first + LINES_SHOWN
    gap = [[("...", False)]]
    return [*(gap if first else []), *lines[first:last], *(gap if last < len(lines) else [])]


def as_json(hits: Sequence[Hit], question: str) -> str:
    """A question and what was found, as one line of JSON."""
    return json_text({"question": question, "hits": [dataclasses.asdict(hit) for hit in hits]})
