"""Filters for documents that teach a model little: off unless asked for, and counted.

They are shares of characters rather than of words, so that they mean the same in scripts without blanks. The measures
follow the quality and repetition rules of Gopher (https://huggingface.co/papers/2112.11446, appendix A.1.1). Its
thresholds for English web text are named with each field.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import regex

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option

PASSAGE_CHARACTERS = 30  # five to six words of English, a sentence of Chinese
_LETTERS = regex.compile(r"[\p{L}\p{M}]+")


@dataclass
class FilterArguments(Options):
    """Limits beyond which documents of the training text are left out."""

    min_characters: int | None = option(None, "drop documents with fewer characters", least=1, rare=True)
    max_characters: int | None = option(None, "drop documents with more characters", least=1, rare=True)
    min_letter_share: float | None = option(
        None,
        "drop documents with a smaller share of letters among what is not blank: tables, code, debris "
        "(articles have 0.7 or more in Chinese, 0.85 in English; Gopher wants letters in 0.8 of the words)",
        least=0,
        most=1,
        rare=True,
    )
    max_repeated_line_share: float | None = option(
        None,
        "drop documents with more of their characters in lines that were there before (Gopher: 0.2)",
        least=0,
        most=1,
        rare=True,
    )
    max_repeated_passage_share: float | None = option(
        None,
        f"drop documents with more of their characters in passages of {PASSAGE_CHARACTERS} characters that "
        "were there before (Gopher: 0.15 for five words)",
        least=0,
        most=1,
        rare=True,
    )

    def check(self) -> None:
        super().check()
        least, most = self.min_characters, self.max_characters
        if least is not None and most is not None and least > most:
            raise RecipeError(f"min_characters is {least} and max_characters {most}: no document has so many.")

    def active_filters(self) -> list[str]:
        """List the names of the filters that are on, in their order."""
        return [name for name, _ in _MEASURES if getattr(self, name) is not None]

    def refused_by(self, text: str) -> str | None:
        """Return the name of the first filter that drops a document, or None if it is kept."""
        for name, measure in _MEASURES:
            limit = getattr(self, name)
            if limit is None:
                continue
            value = measure(text)
            if value < limit if name.startswith("min_") else value > limit:
                return name
        return None


def letter_share(text: str) -> float:
    """Compute the share of letters and their marks among the characters that are not blank; 0 without any."""
    visible = sum(map(len, text.split()))
    return sum(len(letters) for letters in _LETTERS.findall(text)) / visible if visible else 0.0


def repeated_line_share(text: str) -> float:
    """Compute the share of characters in lines that repeat an earlier one, blanks around them aside."""
    seen: set[str] = set()
    repeated = total = 0
    for line in map(str.strip, text.splitlines()):
        total += len(line)
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return repeated / total if total else 0.0


def repeated_passage_share(text: str, length: int = PASSAGE_CHARACTERS) -> float:
    """Compute the share of characters in passages of `length` characters that repeat an earlier one.

    Passages are compared by a polynomial hash modulo 2^64 of their characters, all of them at once.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    number = len(codes) - length + 1
    if number < 2:
        return 0.0
    base = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse
    inverse = np.uint64(pow(int(base), -1, 1 << 64))
    codes = (codes + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    codes ^= codes >> np.uint64(29)  # neighbouring letters should not have neighbouring values
    summed = np.concatenate(([np.uint64(0)], np.cumsum(codes * _powers(base, len(codes)), dtype=np.uint64)))
    hashes = (summed[length:] - summed[:-length]) * _powers(inverse, number)
    _, first = np.unique(hashes, return_index=True)
    covered = np.zeros(len(codes) + 1, dtype=np.int64)
    again = np.ones(number, dtype=bool)
    again[first] = False
    places = np.flatnonzero(again)
    covered[places] += 1
    covered[places + length] -= 1
    return float((np.cumsum(covered[:-1]) > 0).mean())


def _powers(base: np.uint64, number: int) -> np.ndarray:
    powers = np.full(number, base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)


# Cheap ones first.
_MEASURES: tuple[tuple[str, Callable[[str], float]], ...] = (
    ("min_characters", len),
    ("max_characters", len),
    ("min_letter_share", letter_share),
    ("max_repeated_line_share", repeated_line_share),
    ("max_repeated_passage_share", repeated_passage_share),
)
