"""The nearest vectors are those that sorting all of them gives, in blocks and with ties."""

import numpy as np
import pytest

from weft.recipes.data.word_index import largest
from weft.recipes.searching import vectors
from weft.recipes.searching.vectors import nearest


def sorted_whole(rows: np.ndarray, questions: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    products = questions @ rows.T
    best = np.argsort(-products, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(products, best, 1), best


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("top", [1, 5, 200])
def test_blocks_give_what_sorting_gives(block: int, top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "ROWS_AT_ONCE", block)
    draw = np.random.default_rng(block)
    # whole numbers, of which there are many equal products, without rounding
    rows = draw.integers(-2, 3, (130, 6)).astype(np.float32)
    questions = draw.integers(-2, 3, (3, 6)).astype(np.float32)
    found, expected = nearest(rows, questions, top), sorted_whole(rows, questions, top)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_of_equal_scores_the_first_comes_first() -> None:
    assert largest(np.array([1.0, 3.0, 3.0, 2.0, 3.0]), 2).tolist() == [1, 2]
    assert largest(np.array([1.0, 1.0]), 5).tolist() == [0, 1]
    assert largest(np.zeros(0), 5).tolist() == []


def test_vectors_are_read_from_their_file(tmp_path) -> None:
    rows = np.random.default_rng(0).standard_normal((50, 8), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.save(tmp_path / "vectors.npy", rows)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    np.testing.assert_array_equal(nearest(mapped, rows[:2], 1)[1], [[0], [1]])
