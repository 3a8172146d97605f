"""A bounded share of any amount of text, taken evenly over all of it."""

import heapq
import random
from collections.abc import Iterable, Iterator

import regex

from weft.tokenizer.pre_tokenizers import UNSPACED

LONGEST_PIECE = 10_000
# Trainers hold the distinct pieces of the text. Words between blanks repeat; clauses in scripts without blanks seldom
# do, and take about 200 bytes a character, so such a character counts as much as these of others.
UNSPACED_WEIGHT = 10
_UNSPACED = regex.compile(f"[{UNSPACED}]+")


def weight(text: str) -> int:
    """Count characters; one of a script without blanks between words counts UNSPACED_WEIGHT times."""
    if text.isascii():
        return len(text)
    return len(text) + (UNSPACED_WEIGHT - 1) * sum(map(len, _UNSPACED.findall(text)))


def sample(texts: Iterable[str], characters: int) -> list[str]:
    """Return a sample of at most so many characters, or all texts if they have no more.

    Texts longer than LONGEST_PIECE are cut, so that one huge document is sampled as evenly as many small ones. Each
    piece draws a number, and those with the smallest numbers that fit are kept, in order. So every piece has the same
    chance, the same texts always give the same sample, and no more than the sample is held in memory.

    Args:
        texts: documents, read once and to the end.
        characters: the most to keep, counted by `weight`; at least 1.
    """
    draw = random.Random(0)
    kept: list[tuple[float, int, int, str]] = []  # a heap whose first item has drawn the largest number
    total, bound = 0, 1.0
    for number, piece in enumerate(_cut(texts, max(1, min(LONGEST_PIECE, characters // UNSPACED_WEIGHT)))):
        drawn = draw.random()
        if drawn >= bound:
            continue
        size = weight(piece)
        heapq.heappush(kept, (-drawn, number, size, piece))
        total += size
        while total > characters and len(kept) > 1:
            largest, _, size, _ = heapq.heappop(kept)
            total, bound = total - size, -largest
    return [piece for _, _, _, piece in sorted(kept, key=lambda item: item[1])]


def _cut(texts: Iterable[str], length: int) -> Iterator[str]:
    for text in texts:
        for first in range(0, len(text), length):
            yield text[first : first + length]
