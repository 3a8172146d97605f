"""Search by words: BM25 over passages, in any script, from arrays that are memory-mapped.

S. Robertson and H. Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond (2009), with the weights of Lucene,
which are never negative. A term is known by 64 bits of its hash, so that no vocabulary has to be loaded.
"""

import functools
import hashlib
import math
import threading
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weft.recipes.common.errors import RecipeError, optional_package
from weft.recipes.data.segmentation import search_terms

Form = Callable[[str], str]

K1, B = 1.5, 0.75  # how soon repetition stops to count; how much the length of a passage does
ARRAYS = ("terms", "starts", "rows", "counts", "lengths")


def plain_form(term: str) -> str:
    """A term without differences of case and of width."""
    return term.lower() if term.isascii() else unicodedata.normalize("NFKC", term).casefold()


@functools.cache
def normal_form(language: str | None) -> Form:
    """Return what gives a term the form in which terms are compared.

    Args:
        language: whose endings to take off, as Snowball names it; None: those of none.

    Raises:
        RecipeError: there are no rules for that language.
    """
    if language is None:
        return plain_form
    snowball = optional_package("snowballstemmer", "--stem")
    if language not in snowball.algorithms():
        raise RecipeError(f"stem is {language!r}: choose one of {', '.join(snowball.algorithms())}.")
    stem, one_at_a_time = snowball.stemmer(language).stemWord, threading.Lock()

    @functools.lru_cache(1 << 20)
    def stem_of(term: str) -> str:
        with one_at_a_time:  # a stemmer keeps the word it works on, and the page has a thread for each request
            return stem(plain_form(term))

    return stem_of


def terms_of(text: str, form: Form = plain_form) -> Iterator[str]:
    """Yield the terms of a text in order, in the form in which they are compared."""
    return (form(text[first:last]) for first, last in search_terms(text))


@dataclass(frozen=True)
class WordIndex:
    """Which passages hold which terms.

    Attributes:
        terms: hashes of all terms, ascending [terms] uint64.
        starts: where the passages of each term begin in `rows` and `counts` [terms + 1] int64.
        rows: for each term the passages that hold it, ascending int32.
        counts: how often they do int32.
        lengths: terms of each passage [passages] int32.
    """

    terms: np.ndarray
    starts: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str], form: Form = plain_form) -> "WordIndex":
        """Count the terms of passages."""
        known: dict[str, int] = {}
        terms, rows, counts, lengths = array("Q"), array("i"), array("i"), array("i")
        for row, text in enumerate(texts):
            found = Counter(terms_of(text, form))
            for term, count in found.items():
                if term not in known:
                    known[term] = _hash(term)
                terms.append(known[term])
                rows.append(row)
                counts.append(count)
            lengths.append(sum(found.values()))
        arrays = (
            np.frombuffer(each, dtype) if each else np.zeros(0, dtype)
            for each, dtype in ((terms, np.uint64), (rows, np.int32), (counts, np.int32), (lengths, np.int32))
        )
        return cls._sorted(*arrays)

    @classmethod
    def joined(cls, parts: Sequence[tuple["WordIndex", np.ndarray]], passages: int) -> "WordIndex":
        """Join indexes, each with the new row of every passage of it; -1: it is dropped."""
        lengths = np.zeros(passages, np.int32)
        for part, places in parts:
            lengths[places[places >= 0]] = part.lengths[places >= 0]
        terms = np.concatenate([np.repeat(part.terms, np.diff(part.starts)) for part, _ in parts])
        rows = np.concatenate([places[part.rows].astype(np.int32) for part, places in parts])
        counts = np.concatenate([part.counts for part, _ in parts])
        kept = rows >= 0
        return cls._sorted(terms[kept], rows[kept], counts[kept], lengths)

    @classmethod
    def _sorted(cls, terms: np.ndarray, rows: np.ndarray, counts: np.ndarray, lengths: np.ndarray) -> "WordIndex":
        order = np.lexsort((rows, terms))
        distinct, first = np.unique(terms[order], return_index=True)
        return cls(distinct, np.append(first, len(terms)).astype(np.int64), rows[order], counts[order], lengths)

    @classmethod
    def load(cls, folder: Path) -> "WordIndex":
        """Open the files of a folder; what a question asks for is read then."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS))

    def save(self, folder: Path) -> None:
        """Write one file for each array."""
        folder.mkdir()
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    def scores(self, question: str, form: Form = plain_form) -> np.ndarray:
        """BM25 of a question and each passage [passages] float64; 0: they share no term."""
        scores = np.zeros(len(self.lengths))
        for rows, counts, weight in self._postings(question, form):
            scores[rows] += self._gain(rows, counts, weight)
        return scores

    def best(self, question: str, number: int, form: Form = plain_form) -> tuple[np.ndarray, np.ndarray]:
        """The passages with the highest BM25, best first, of equal ones the first first, and their BM25 float64; such
        as share no term with the question are not among them."""
        scores = self.scores(question, form)
        rows = np.flatnonzero(scores)
        rows = rows[largest(scores[rows], number)]
        return rows, scores[rows]

    def score(self, question: str, row: int, form: Form = plain_form) -> float:
        """BM25 of a question and one passage, without a look at the others."""
        score = 0.0
        for rows, counts, weight in self._postings(question, form):
            here = slice(*np.searchsorted(rows, (row, row + 1)))
            score += float(self._gain(rows[here], counts[here], weight).sum())
        return score

    def _postings(self, question: str, form: Form) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """For each term of a question that is known the passages that hold it, how often they do, and its weight."""
        for term, times in Counter(terms_of(question, form)).items():
            hashed = np.uint64(_hash(term))
            place = int(np.searchsorted(self.terms, hashed))
            if place < len(self.terms) and self.terms[place] == hashed:
                first, last = int(self.starts[place]), int(self.starts[place + 1])
                rarity = math.log(1 + (len(self.lengths) - (last - first) + 0.5) / (last - first + 0.5))
                yield self.rows[first:last], self.counts[first:last], times * rarity

    def _gain(self, rows: np.ndarray, counts: np.ndarray, weight: float) -> np.ndarray:
        """What a term adds to the scores of passages that hold it."""
        return weight * counts / (counts + K1 * (1 - B + B * self.lengths[rows] / self._usual_length))

    @functools.cached_property
    def _usual_length(self) -> float:
        return max(float(self.lengths.mean()), 1.0)


def largest(scores: np.ndarray, top: int) -> np.ndarray:
    """The places of the largest scores, largest first; of equal ones the first first."""
    places = np.arange(len(scores))
    if top < len(scores):
        least = np.partition(scores, len(scores) - top)[len(scores) - top]
        places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:top]


def _hash(term: str) -> int:
    return int.from_bytes(hashlib.blake2b(term.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
