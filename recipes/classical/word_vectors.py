"""Vectors of words, learnt by gensim from the words around them: Word2Vec (https://huggingface.co/papers/1301.3781) and
FastText (https://huggingface.co/papers/1607.04606); and how well vectors agree with what is known of pairs of words."""

import builtins
import calendar
import csv
import itertools
import keyword
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html.entities import name2codepoint
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weft.recipes.common.errors import RecipeError, optional_package, refusing
from weft.recipes.data.segmentation import search_terms
from weft.recipes.metrics.correlations import spearman, why_undefined

WORD2VEC, FASTTEXT = VECTORS = ("word2vec", "fasttext")
VECTOR_SIZE, BUCKETS, PASSES = 100, 200_000, 5
# Of words that Python's own lists put into groups: how often they have to be seen, and how many of a group are taken.
SEEN, OF_GROUP = 5, 20
FEWEST_PAIRS = 10


class WordPair(NamedTuple):
    """Two words and how alike they are."""

    first: str
    second: str
    score: float


def words_of(text: str) -> list[str]:
    """The words of a text in small letters; in scripts without blanks pairs of neighbours."""
    return [text[first:last].lower() for first, last in search_terms(text)]


def learn_vectors(kind: str, sentences: Sequence[list[str]], seed: int) -> Any:
    """Learn a vector for each word that is there, the same ones every time.

    Args:
        kind: one of VECTORS; FASTTEXT has vectors for words that were never seen too.

    Returns:
        gensim's KeyedVectors.

    Raises:
        RecipeError: gensim is not installed.
    """
    models = optional_package("gensim", kind).models
    options = {"vector_size": VECTOR_SIZE, "epochs": PASSES, "min_count": 1}
    options |= {"workers": 1, "seed": seed, "hashfxn": _hash}  # which make them the same ones
    if kind == FASTTEXT:
        return models.FastText(sentences, bucket=BUCKETS, **options).wv
    return models.Word2Vec(sentences, **options).wv


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


def read_pairs(path: Path) -> list[WordPair]:
    """Read pairs of words with their scores: a line each, between commas or tabs, as WordSim-353 and SimLex-999 have
    them. A first line without a number is a heading.

    Raises:
        RecipeError: names the line that is none.
    """
    with refusing(f"similarity_file {path} cannot be read", OSError, UnicodeDecodeError):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter="\t" if "\t" in line else ","))]
        try:
            pairs.append(WordPair(cells[0].lower(), cells[1].lower(), float(cells[2])))
        except (IndexError, ValueError) as error:
            if pairs or number > 1:
                raise RecipeError(
                    f"{path}, line {number}: {line!r} is no pair of words: write word,word,score (or with tabs)."
                ) from error
    if not pairs:
        raise RecipeError(f"{path} holds no pairs of words: write word,word,score in each line.")
    return pairs


def grouped_pairs(counts: Counter[str], seed: int) -> list[WordPair]:
    """Pairs of words that the same list of Python's names holds (1), and as many of words from different lists (0).

    Args:
        counts: how often each word is there; of rare ones nothing could be learnt.
        seed: of the pairs from different lists.
    """
    groups = [
        sorted((word for word in group if counts[word] >= SEEN), key=lambda word: (-counts[word], word))[:OF_GROUP]
        for group in python_groups().values()
    ]
    same = [WordPair(*pair, 1.0) for group in groups for pair in itertools.combinations(group, 2)]
    other = [pair for one, two in itertools.combinations(groups, 2) for pair in itertools.product(one, two)]
    drawn = np.random.default_rng(seed).permutation(len(other))[: len(same)]
    return same + [WordPair(*other[place], 0.0) for place in drawn.tolist()]


def python_groups() -> dict[str, set[str]]:
    """Words in small letters by what they name; one that is in several lists is in none."""
    classes = {name: each for name, each in vars(builtins).items() if isinstance(each, type)}
    is_error = {name: issubclass(each, BaseException) for name, each in classes.items()}
    lists: dict[str, Iterable[str]] = {
        "keywords": keyword.kwlist,
        "exceptions": [name for name in classes if is_error[name]],
        "built-in types": [name for name in classes if not is_error[name]],
        "modules": sys.stdlib_module_names,
        "days and months": [*calendar.day_name, *calendar.month_name],
        "signals": [each.name for each in signal.Signals],
        "characters": name2codepoint,
    }
    groups = {name: {word.lower() for word in words if word.isalnum()} for name, words in lists.items()}
    number = Counter(word for words in groups.values() for word in words)
    return {name: {word for word in words if number[word] == 1} for name, words in groups.items()}


def agreement(vector_of: Callable[[str], np.ndarray], pairs: Sequence[WordPair]) -> float | None:
    """Spearman's rank correlation of the cosines of pairs of words with their scores; None where there is none.

    Args:
        vector_of: gives the vector of each word of the pairs [size].
    """
    vectors = {word: vector_of(word) for word in {word for pair in pairs for word in pair[:2]}}
    cosines = [_cosine(vectors[first], vectors[second]) for first, second, _ in pairs]
    scores = [pair.score for pair in pairs]
    return None if why_undefined(cosines, scores) else spearman(cosines, scores)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / norms) if norms else 0.0
