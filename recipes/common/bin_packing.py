"""Which of many pieces share a row, so that little of it stays empty."""

from bisect import bisect_left, insort

import numpy as np


def fill_rows(sizes: np.ndarray, row_length: int, seed: int) -> list[np.ndarray]:
    """Best-fit decreasing bin packing: from the largest piece to the smallest, each into the fullest row that has room.

    It needs at most 11/9 of the fewest rows possible (Johnson et al. 1974, https://doi.org/10.1137/0203025).

    Args:
        sizes: places that each piece takes [pieces], none more than row_length.
        row_length: places of a row.
        seed: in which order pieces of one size are taken.

    Returns:
        For each row the indices of its pieces; every piece is in one row.
    """
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    rows: list[list[int]] = []
    rooms: list[int] = []  # what some row has left, in ascending order
    rows_with: dict[int, list[int]] = {}
    for piece, size in zip(order.tolist(), sizes[order].tolist()):
        place = bisect_left(rooms, size)
        if place == len(rooms):
            rows.append([])
            room, row = row_length, len(rows) - 1
        else:
            room = rooms[place]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rows_with[room]
                rooms.pop(place)
        rows[row].append(piece)
        room -= size
        if room not in rows_with:
            insort(rooms, room)
        rows_with.setdefault(room, []).append(row)
    return [np.array(row) for row in rows]
