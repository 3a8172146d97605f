"""Random numbers that are functions of what they belong to, not of how many were drawn before."""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MAX_STREAMS = 8


def make_key(*parts: int) -> np.uint64:
    """One key out of several numbers (a seed, a pass, a document ...), which may be negative."""
    key = np.uint64(0)
    for part in parts:
        key = _mix(key ^ np.uint64(part % 2**64))
    return key


def uniform(keys: np.ndarray | np.uint64, positions: np.ndarray | int, stream: int) -> np.ndarray:
    """Random numbers in [0, 1), float64, that depend on key, position and stream only.

    Args:
        keys: of `make_key`.
        positions: integers, as many as keys.
        stream: below MAX_STREAMS; numbers of different streams have nothing to do with each other.
    """
    counters = np.asarray(positions, dtype=np.int64).astype(np.uint64) * np.uint64(MAX_STREAMS) + np.uint64(stream)
    with np.errstate(over="ignore"):
        mixed = _mix(_mix(keys ^ (counters * GOLDEN)))
    return (mixed >> np.uint64(11)) * 2.0**-53


def _mix(value: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195)."""
    with np.errstate(over="ignore"):
        value = value + GOLDEN
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))
