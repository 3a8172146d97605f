"""Pieces share rows by best fit, whatever number of sides a row has; none is lost, and no side is overfilled."""

import numpy as np
import pytest

from weft.recipes.common.bin_packing import fill_evenly, fill_rows, fill_rows_to

PAIRS = ((5, 9), (40, 3), (1, 1), (17, 30), (33, 33), (8, 70), (70, 2), (2, 8))


def naive_best_fit(sizes, row_length):
    """What rows hold in the end: every row is looked at for every piece."""
    totals = []
    for size in sorted(sizes, reverse=True):
        fitting = [row for row, total in enumerate(totals) if total + size <= row_length]
        if not fitting:
            fitting = [len(totals)]
            totals.append(0)
        totals[max(fitting, key=lambda row: totals[row])] += size
    return sorted(totals)


@pytest.mark.parametrize("seed", [None, 1])
def test_rows_are_those_of_the_naive_algorithm(seed):
    draw = np.random.default_rng(0)
    for row_length, sizes in ((10, [6, 4, 5, 5, 3, 7, 10, 1, 1, 1, 7]), (100, draw.integers(1, 101, 500).tolist())):
        rows = fill_rows(np.array(sizes), row_length, seed)
        assert sorted(piece for row in rows for piece in row.tolist()) == list(range(len(sizes)))
        totals = [sum(sizes[piece] for piece in row.tolist()) for row in rows]
        assert sorted(totals) == naive_best_fit(sizes, row_length)
        fewest = max(sum(sizes) / row_length, sum(size > row_length / 2 for size in sizes))
        assert max(totals) <= row_length and len(rows) <= 1.02 * fewest + 1


def test_nothing_takes_no_row():
    assert fill_rows(np.array([], dtype=np.int64), 10, 0) == []


def test_every_side_of_a_row_has_room():
    rows = fill_rows(np.array(PAIRS), (70, 75))
    assert sorted(piece for row in rows for piece in row.tolist()) == list(range(len(PAIRS)))
    totals = np.array([np.array(PAIRS)[row].sum(0) for row in rows])
    assert (totals <= (70, 75)).all()
    assert len(rows) <= len(PAIRS) / 2


def test_a_second_side_that_takes_nothing_changes_nothing():
    sizes = np.random.default_rng(0).integers(1, 65, 200)
    alone = [row.tolist() for row in fill_rows(sizes, 64)]
    beside = [row.tolist() for row in fill_rows(np.stack([sizes, 0 * sizes], axis=1), (64, 64))]
    assert beside == alone


@pytest.mark.parametrize("mean, number, allowed", [(14, 8, 1.03), (14, 32, 1.03), (60, 32, 1.06), (200, 16, 1.08)])
def test_rows_of_a_batch_are_nearly_full(mean, number, allowed):
    """Where rows of a length given beforehand leave up to a quarter empty, the last of them most of all."""
    draw, taken, fixed, used = np.random.default_rng(0), 0, 0, 0
    for _ in range(100):
        sizes = np.clip(draw.gamma(2.2, mean / 2.2, (number, 1)).astype(int), 3, 512)
        rows = fill_evenly(sizes, 64)
        assert sorted(piece for row in rows for piece in row.tolist()) == list(range(number))
        longest = max(sizes[row].sum() for row in rows)
        assert longest < 2 * max(64, sizes.max())
        taken, used = taken + len(rows) * longest, used + sizes.sum()
        usual = fill_rows(sizes, (max(64, int(sizes.max())),))
        fixed += len(usual) * max(sizes[row].sum() for row in usual)
    assert taken <= allowed * used and taken < fixed


def test_even_rows_have_room_for_every_side():
    for sizes in (np.array(PAIRS), np.array(PAIRS) * (1, 0), np.array(PAIRS) * (0, 1), np.array([[3, 200]])):
        rows = fill_evenly(sizes, 20)
        assert sorted(piece for row in rows for piece in row.tolist()) == list(range(len(sizes)))
        slots = len(rows) * np.array([sizes[row].sum(0) for row in rows]).max(0)
        assert (slots <= 1.35 * sizes.sum(0)).all()


@pytest.mark.parametrize("share", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("number", [1, 2, 9, 40, 200])
def test_every_side_is_as_full_as_asked_and_rows_are_no_longer_than_that_takes(number, share):
    draw, lengths = np.random.default_rng(number), []
    for _ in range(20):
        total, part = draw.integers(2, 100, number), draw.random(number)
        sizes = np.maximum(1, np.stack([total * part, total * (1 - part)], axis=1).astype(int))
        rows = fill_rows_to(sizes, share)
        assert sorted(piece for row in rows for piece in row.tolist()) == list(range(number))
        assert all((np.diff(row) > 0).all() for row in rows)
        longest = np.array([sizes[row].sum(0) for row in rows]).max(0)
        assert (sizes.sum(0) >= share * len(rows) * longest).all()
        lengths.append((longest / sizes.max(0)).min())
    if number == 200 and share < 0.99:
        assert max(lengths) < 4  # times the largest piece


def test_pieces_that_are_large_on_either_side_share_a_row():
    sizes = np.array([(30, 2), (2, 30), (31, 1), (1, 31), (16, 16), (16, 16)])
    rows = fill_rows_to(sizes, 0.95)
    assert sorted(tuple(sizes[row].sum(0)) for row in rows) == [(47, 49), (49, 47)]
