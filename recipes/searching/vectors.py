"""Search by meaning: the nearest of many vectors, exactly, from a file that is memory-mapped."""

import importlib
import importlib.util

import numpy as np

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.word_index import largest

ROWS_AT_ONCE = 1 << 16  # of the vectors that are compared; their scores stay in the cache


def nearest(vectors: np.ndarray, questions: np.ndarray, top: int, faiss: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Find the vectors with the largest products with each question, exactly.

    Args:
        vectors: [vectors, size] float32, of length 1.
        questions: [questions, size] float32, of length 1.
        faiss: let faiss compare them, which gives the same but for rounding.

    Returns:
        Their products [questions, found] float32, largest first, and their rows int64; of equal ones the first first.

    Raises:
        RecipeError: faiss is asked for and not installed.
    """
    top = min(top, len(vectors))
    if faiss:
        if not has_faiss():
            raise RecipeError("--faiss needs the package faiss: pip install faiss-cpu.")
        library = importlib.import_module("faiss")
        return library.knn(questions, vectors, top, metric=library.METRIC_INNER_PRODUCT)
    products = np.zeros((len(questions), 0), np.float32)
    rows = np.zeros((len(questions), 0), np.int64)
    for first in range(0, len(vectors), ROWS_AT_ONCE):
        block = questions @ vectors[first : first + ROWS_AT_ONCE].T
        here = [largest(scores, top) for scores in block]
        products = np.hstack([products, [scores[best] for scores, best in zip(block, here)]])
        rows = np.hstack([rows, [best + first for best in here]])
        best = np.argsort(-products, axis=1, kind="stable")[:, :top]
        products, rows = np.take_along_axis(products, best, 1), np.take_along_axis(rows, best, 1)
    return products, rows


def has_faiss() -> bool:
    """Whether faiss is installed."""
    return importlib.util.find_spec("faiss") is not None
