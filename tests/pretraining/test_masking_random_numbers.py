"""The random numbers of masking are even, unrelated to each other, and functions of key, position and stream only."""

import itertools
import warnings

import numpy as np
import pytest
from helpers.chi_square import assert_fits

from weft.recipes.pretraining.datasets.counter_rng import MAX_STREAMS, make_key, uniform


def assert_even(numbers, bins=16):
    assert_fits(np.bincount((numbers * bins).astype(np.int64).ravel(), minlength=bins), np.full(bins, 1 / bins))


def assert_independent(one, other):
    """Over a table of both."""
    cells = (one * 8).astype(np.int64) * 8 + (other * 8).astype(np.int64)
    assert_fits(np.bincount(cells.ravel(), minlength=64), np.full(64, 1 / 64))


def keys_of(seeds, epochs, documents):
    return np.array([make_key(*parts) for parts in itertools.product(seeds, epochs, documents)])


KEYS = keys_of((0, 1, 42), (0, 1, 2), range(20))
POSITIONS = np.arange(-40, 1000)


@pytest.fixture(scope="module")
def table():
    """[streams, keys, positions]"""
    return np.stack([uniform(KEYS[:, None], POSITIONS, stream) for stream in range(MAX_STREAMS)])


def test_they_lie_evenly_between_0_and_1(table):
    assert table.min() >= 0 and table.max() < 1 and table.dtype == np.float64
    for numbers in (table, *table, table[:, :, 0], table[:, :, 40], table[:, :, POSITIONS < 0], table[:, 0]):
        assert_even(np.asarray(numbers))
    assert_even(np.modf(table * 4096)[0], 64)  # the later digits too


def test_one_tells_nothing_of_another(table):
    for distance in (1, 2, 3, 8, 64):
        assert_independent(table[:, :, :-distance], table[:, :, distance:])  # positions
    for distance in (1, 20, 60):
        assert_independent(table[:, :-distance], table[:, distance:])  # documents, epochs, seeds
    for one, other in itertools.combinations(table, 2):
        assert_independent(one, other)  # streams
    assert len(np.unique(table)) == table.size


def test_keys_of_different_numbers_differ():
    parts = list(itertools.product(range(-2, 6), repeat=4)) + list(itertools.product(range(6), repeat=3))
    parts += [(2**40, 1), (1, 2**40), (-1,), (2**64 - 2,)]
    assert len({int(make_key(*each)) for each in parts}) == len(parts)


def test_numbers_one_by_one_are_those_of_arrays(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns where single numbers overflow, as they are meant to here
        for key, position, stream in [(0, 0, 0), (5, 39, 3), (17, 40, 7), (100, 700, 2)]:
            expected = table[stream, key, position]
            assert uniform(KEYS[key], int(POSITIONS[position]), stream) == expected
            assert uniform(KEYS[key], POSITIONS[position : position + 1], stream)[0] == expected
            assert uniform(KEYS[key : key + 1], int(POSITIONS[position]), stream)[0] == expected


def test_they_never_change():
    """Other numbers would mask the text of a resumed run otherwise than before."""
    assert int(make_key(42, 1, 7)) == make_key_by_hand(42, 1, 7)
    assert float(uniform(make_key(42, 1, 7), -3, 2)) == uniform_by_hand(make_key_by_hand(42, 1, 7), -3, 2)


def mix_by_hand(value):
    """SplitMix64 in whole numbers of any size."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return value ^ (value >> 31)


def make_key_by_hand(*parts):
    key = 0
    for part in parts:
        key = mix_by_hand(key ^ part % 2**64)
    return key


def uniform_by_hand(key, position, stream):
    counter = (position * 8 + stream) % 2**64 * 0x9E3779B97F4A7C15 % 2**64
    return (mix_by_hand(mix_by_hand(key ^ counter)) >> 11) / 2**53
