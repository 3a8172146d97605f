"""Which of many pieces share a row, so that little of it stays empty."""

from bisect import bisect_left, insort

import numpy as np


def fill_rows(sizes: np.ndarray, row_length: int | tuple[int, ...], seed: int | None = None) -> list[np.ndarray]:
    """Best-fit decreasing bin packing: from the largest piece to the smallest, each into the fullest row that has room.

    It needs at most 11/9 of the fewest rows possible (Johnson et al. 1974, https://doi.org/10.1137/0203025).

    Args:
        sizes: places that each piece takes [pieces], none more than row_length; or [pieces, sides] of rows with several
            sides, such as an encoder's and a decoder's, of which all must have room.
        row_length: places of a row, of each of its sides.
        seed: in which order pieces of one size are taken, into the row that was filled last of equally full ones; None:
            as they come, into the first of these.

    Returns:
        For each row the indices of its pieces; every piece is in one row.
    """
    sides = sizes[:, None] if sizes.ndim == 1 else sizes
    empty = (row_length,) if isinstance(row_length, int) else tuple(row_length)
    order = np.arange(len(sides)) if seed is None else np.random.default_rng(seed).permutation(len(sides))
    order = order[np.argsort(-sides.sum(1)[order], kind="stable")]
    rows: list[list[int]] = []
    rooms: list[tuple[int, ...]] = []  # what some row has left, in all and of each side, in ascending order
    rows_with: dict[tuple[int, ...], list[int]] = {}
    for piece, size in zip(order.tolist(), sides[order].tolist()):
        place = bisect_left(rooms, (sum(size),))
        while place < len(rooms) and any(left < taken for left, taken in zip(rooms[place][1:], size)):
            place += 1
        if place == len(rooms):
            rows.append([])
            left, row = empty, len(rows) - 1
        else:
            room = rooms[place]
            left, row = room[1:], rows_with[room].pop(0 if seed is None else -1)
            if not rows_with[room]:
                del rows_with[room]
                rooms.pop(place)
        rows[row].append(piece)
        left = tuple(there - taken for there, taken in zip(left, size))
        room = (sum(left), *left)
        if room not in rows_with:
            insort(rooms, room)
        alike = rows_with.setdefault(room, [])
        alike.insert(bisect_left(alike, row) if seed is None else len(alike), row)
    return [np.array(row) for row in rows]


def fill_evenly(sizes: np.ndarray, shortest: int) -> list[np.ndarray]:
    """Rows as long as the largest piece needs or a little longer, so that even the last one is nearly full.

    There are as many rows as the pieces would fill to the last place, each as long as the largest piece; their length
    then grows from an even share until best fit gets along with so many (MULTIFIT, Coffman et al. 1978,
    https://doi.org/10.1137/0207001).

    Args:
        sizes: places that each piece takes [pieces, sides], as in `fill_rows`.
        shortest: places that a side of a row has at least.

    Returns:
        For each row the indices of its pieces; every piece is in one row.
    """
    total, least = sizes.sum(0), np.maximum(sizes.max(0), shortest)
    number = max(1, int((total // least).max()))
    length = np.maximum(least, -(-total // number))
    while len(rows := fill_rows(sizes, tuple(length.tolist()))) > number:
        length += np.maximum(1, length // 50)
    return rows


def fill_rows_to(sizes: np.ndarray, share: float) -> list[np.ndarray]:
    """Rows of which every side has at least this share of its places taken, as many and so as short as are found.

    For each number of rows pieces are spread from the largest to the smallest, each into the row whose fuller side is
    then least full (longest processing time first, Graham 1969, https://doi.org/10.1137/0117039). Fewer rows hold more
    pieces, whose sizes even out; one row of all pieces is full.

    Args:
        sizes: places that each piece takes [pieces, sides], as in `fill_rows`; one at least.
        share: below 1.

    Returns:
        For each row the indices of its pieces, ascending; every piece is in one row.
    """
    if len(sizes) < 2:
        return [np.arange(len(sizes))]
    total = sizes.sum(0)
    parts = sizes / total
    order = np.argsort(-parts.max(1), kind="stable").tolist()
    number = int((total / (share * sizes.max(0))).min())
    while number > 1:
        filled, row_of = np.zeros((number, len(total))), np.empty(len(sizes), dtype=np.int64)
        for piece in order:
            row_of[piece] = row = int((filled + parts[piece]).max(1).argmin())
            filled[row] += parts[piece]
        if filled.max() * number * share <= 1:
            return [np.flatnonzero(row_of == row) for row in range(number)]
        number -= max(1, number // 8)
    return [np.arange(len(sizes))]
