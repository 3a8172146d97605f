"""Labels of a text on the tokens that a tokenizer makes of it; long texts in overlapping windows.

A tokenizer is given the text whole, as a pipeline gives it, so tokens are found by their characters, which works for
every fast tokenizer: pieces of words, bytes of a character, several words at once, words without any token.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from weft.recipes.finetuning.tasks.token_classification.passages import EntitySpan
from weft.recipes.finetuning.tasks.token_classification.schemes import OUTSIDE

NOTHING = -1


class TokenWindow(NamedTuple):
    """Tokens `first` to `end` of a text, of which those from `low` to `high` are this window's to learn and to score:
    it sees more around them than its neighbours do. Each token belongs to one window."""

    first: int
    end: int
    low: int
    high: int


def trim(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Where tokens stand [tokens, 2] without the blanks before them; a token of blanks alone has no width and stands
    where they end."""
    result = np.empty((len(offsets), 2), dtype=np.int32)
    for token, (start, end) in enumerate(offsets):
        inside = text[start:end]
        result[token] = end - len(inside.lstrip()), end
    return result


def mark(length: int, spans: Sequence[tuple[int, ...]]) -> np.ndarray:
    """For each character of a text the number of the span that it is in, NOTHING for none: [length]."""
    marks = np.full(length, NOTHING, dtype=np.int32)
    for number, (start, end, *_) in enumerate(spans):
        marks[start:end] = number
    return marks


def owners(marks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The span that most characters of each token are in, the first of equals, NOTHING where there is none: [tokens].
    Blanks belong to the span on both their sides."""
    owner = np.full(len(offsets), NOTHING, dtype=np.int32)
    for token, (start, end) in enumerate(offsets.tolist()):
        if start >= end:
            if 0 < end < len(marks) and marks[end - 1] == marks[end]:
                owner[token] = marks[end]
            continue
        inside = marks[start:end]
        if inside[0] == inside[-1] and (end - start < 3 or (inside == inside[0]).all()):
            owner[token] = inside[0]
            continue
        numbers, firsts, counts = np.unique(inside[inside != NOTHING], return_index=True, return_counts=True)
        owner[token] = numbers[np.lexsort((firsts, -counts))[0]]
    return owner


def reach(words: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """First and last word of each token, NOTHING for a token in none: [tokens, 2]; `words` are `mark`ed."""
    result = np.full((len(offsets), 2), NOTHING, dtype=np.int32)
    for token, (start, end) in enumerate(offsets.tolist()):
        inside = words[start:end]
        inside = inside[inside != NOTHING]
        if len(inside):
            result[token] = inside[0], inside[-1]
    return result


def begins_word(reached: np.ndarray) -> np.ndarray:
    """Whether a token is the first piece of a word, one that no earlier token had a part of: [tokens]."""
    before = np.concatenate([[NOTHING], np.maximum.accumulate(reached[:, 1])[:-1]]) if len(reached) else reached[:, 1]
    return reached[:, 1] > before


def label_entities(spans: Sequence[EntitySpan], length: int, offsets: np.ndarray) -> list[str]:
    """IOB2 labels of tokens: B- on the first of an entity, I- on all others."""
    labels = [OUTSIDE] * len(offsets)
    last = NOTHING
    owner = owners(mark(length, spans), offsets)
    for token in np.flatnonzero(owner != NOTHING).tolist():
        number = owner[token]
        labels[token] = f"{'B' if number != last else 'I'}-{spans[number].label}"
        last = number
    return labels


def cut(is_cut: Sequence[bool], capacity: int, stride: int) -> list[TokenWindow]:
    """Windows of at most `capacity` tokens that overlap by at most `stride`, over all tokens.

    Args:
        is_cut: whether a window may begin at each token, because a word does. A word of more than `capacity` tokens is
            cut all the same.
    """
    number = len(is_cut)

    def end_of(first: int) -> int:
        end = min(first + capacity, number)
        return end if end == number else next((p for p in range(end, first, -1) if is_cut[p]), end)

    ranges = [(0, end_of(0))]
    while ranges[-1][1] < number:
        first, end = ranges[-1]
        start = next((p for p in range(max(end - stride, first + 1), end) if is_cut[p]), end)
        # an overlap must not cost the new window what comes next
        ranges.append((start, end_of(start)) if end_of(start) > end else (end, end_of(end)))
    switches = [0]
    for (_, end), (start, _) in pairwise(ranges):
        places = [p for p in range(start, end + 1) if p in (start, end) or is_cut[p]]
        switches.append(min(places, key=lambda p: abs(2 * p - start - end)))
    switches.append(number)
    return [TokenWindow(*ranges[i], switches[i], switches[i + 1]) for i in range(len(ranges))]


def first_tokens(reached: np.ndarray, words: int) -> np.ndarray:
    """The first token of each word, NOTHING for a word without any: [words]."""
    firsts = np.full(words, NOTHING, dtype=np.int64)
    for token in range(len(reached) - 1, -1, -1):
        first, last = reached[token]
        if first != NOTHING:
            firsts[first : last + 1] = token
    return firsts
