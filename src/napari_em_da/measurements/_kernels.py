"""What is counted voxel by voxel, in integers, so that no sum depends on the blocks it was taken in.

Objects are rows 1, 2, …, of tables; row 0 is the background, which is counted along and thrown away.
"""

from __future__ import annotations

import numba
import numpy as np

# The 13 neighbours that follow a voxel in the order of the array: the next one in its line, and three in each of four
# lines. The other 13 of the 26 see the pair from the other side.
LINES = np.array([(0, 1), (1, -1), (1, 0), (1, 1)])
DIRECTIONS = np.array([(0, 0, 1)] + [(z, y, x) for z, y in LINES for x in (-1, 0, 1)])
FACES = (8, 2, 0)  # the directions along z, y and x
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth's multiplicative hashing


@numba.njit(nogil=True, cache=True)
def _slot(key, keys):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return where a key is, or would be, in an open-addressing table whose empty slots are 0."""
    mask = np.uint64(keys.shape[0] - 1)
    mixed = np.uint64(key) * _MULTIPLIER
    slot = (mixed ^ (mixed >> np.uint64(32))) & mask
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(nogil=True, cache=True)
def rehash(keys, numbers, new_keys, new_numbers):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Move all entries into a larger table."""
    for old in range(keys.shape[0]):
        if keys[old] != 0:
            slot = _slot(keys[old], new_keys)
            new_keys[slot] = keys[old]
            new_numbers[slot] = numbers[old]


@numba.njit(nogil=True, cache=True)
def runs(values, width, firsts):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write where runs of equal values start, which segmentations are made of, and return how many there are.

    A run ends with its line of ``width`` voxels.
    """
    count = 0
    for start in range(0, values.shape[0], width):
        line = values[start : start + width]
        firsts[count] = start
        count += 1
        for x in range(1, width):
            firsts[count] = start + x
            count += line[x] != line[x - 1]
    firsts[count] = values.shape[0]
    return count


@numba.njit(nogil=True, cache=True)
def number(  # type: ignore[no-untyped-def]  # pragma: no cover
    values, firsts, start, unlabelled, keys, numbers, count, rows
):
    """Write the row of each run from ``start`` on; return how far that went.

    It stops when the table is half full. A value that is no id ends it with ``~run``.
    """
    for run in range(start, rows.shape[0]):
        value, row = np.int64(values[firsts[run]]), np.int32(0)
        if value < 0 and not (unlabelled and value == -1):
            return ~run
        if value > 0:
            slot = _slot(value, keys)
            if keys[slot] == 0:
                if 2 * count[0] >= keys.shape[0]:
                    return run
                count[0] += 1
                keys[slot], numbers[slot] = value, count[0]
            row = numbers[slot]
        rows[run] = row
    return rows.shape[0]


@numba.njit(nogil=True, cache=True)
def moments(firsts, rows, shape, origin, sums, low, high):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the runs of one block to count, first and second moments, and to the bounds (inclusive).

    ``sums`` has the columns n, z, y, x, zz, yy, xx, zy, zx, yx, about the first voxel of the volume. They may wrap
    around: what counts are sums about the object's own centre, and moving there undoes it.
    """
    for run in range(rows.shape[0]):
        row = rows[run]
        if row == 0:
            continue
        line = firsts[run] // shape[2]
        n = np.int64(firsts[run + 1] - firsts[run])
        z = np.int64(origin[0] + line // shape[1])
        y = np.int64(origin[1] + line % shape[1])
        a = np.int64(origin[2] + firsts[run] - line * shape[2])
        b = a + n - 1
        x = (a + b) * n // 2
        total = sums[row]
        total[0] += n
        total[1] += n * z
        total[2] += n * y
        total[3] += x
        total[4] += n * z * z
        total[5] += n * y * y
        total[6] += n * a * a + a * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
        total[7] += n * z * y
        total[8] += z * x
        total[9] += y * x
        low[row, 0], high[row, 0] = min(low[row, 0], z), max(high[row, 0], z)
        low[row, 1], high[row, 1] = min(low[row, 1], y), max(high[row, 1], y)
        low[row, 2], high[row, 2] = min(low[row, 2], a), max(high[row, 2], b)


@numba.njit(nogil=True, cache=True)
def brightness(  # type: ignore[no-untyped-def]  # pragma: no cover
    firsts, rows, image, offset, total, squares, low, high
):
    """Add the runs of one block to the sums of (intensity − offset) and its square, and to the extremes."""
    for run in range(rows.shape[0]):
        row = rows[run]
        if row == 0:
            continue
        one = two = offset - offset  # zero, in the type of the sums
        least = most = image[firsts[run]]
        for value in image[firsts[run] : firsts[run + 1]]:
            least, most = min(least, value), max(most, value)
            centred = value - offset
            one += centred
            two += centred * centred
        total[row] += one
        squares[row] += two
        low[row], high[row] = min(low[row], least), max(high[row], most)


@numba.njit(nogil=True, cache=True)
def _touch(a, b, axis, keys, numbers, count, contacts):  # type: ignore[no-untyped-def]  # pragma: no cover
    key = (np.int64(min(a, b)) << 32) | np.int64(max(a, b))
    slot = _slot(key, keys)
    if keys[slot] == 0:
        count[0] += 1
        keys[slot], numbers[slot] = key, count[0]
    contacts[numbers[slot], axis] += 1


@numba.njit(nogil=True, cache=True)
def edges(rows, core, start, crossings, keys, numbers, count, contacts):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Count the pairs of different neighbours in the 13 directions, and faces between two objects by pair and axis.

    ``core`` (3, 2) holds the bounds of the voxels whose pairs are counted; the rows beyond are the overlap. Lines from
    ``start`` on are done, and the number of lines done is returned: fewer than all when the table of pairs may fill.
    """
    height, width = rows.shape[1], rows.shape[2]
    across = core[1, 1] - core[1, 0]
    lines = (core[0, 1] - core[0, 0]) * across
    for line in range(start, lines):
        if 2 * (count[0] + 3 * width) >= keys.shape[0]:
            return line
        z, y = core[0, 0] + line // across, core[1, 0] + line % across
        here = rows[z, y]
        for x in range(core[2, 0], min(core[2, 1], width - 1)):
            a, b = here[x], here[x + 1]
            if a != b:
                crossings[a, 0] += 1
                crossings[b, 0] += 1
                if a and b:
                    _touch(a, b, 2, keys, numbers, count, contacts)
        for which in range(4):
            v, u = z + LINES[which, 0], y + LINES[which, 1]
            if v >= rows.shape[0] or u < 0 or u >= height:
                continue
            there = rows[v, u]
            for x in range(core[2, 0], core[2, 1]):
                a = here[x]
                first, last = max(x - 1, 0), min(x + 1, width - 1)
                if there[first] == a and there[x] == a and there[last] == a:
                    continue
                for w in range(first, last + 1):
                    b = there[w]
                    if a != b:
                        direction = 2 + 3 * which + w - x
                        crossings[a, direction] += 1
                        crossings[b, direction] += 1
                if there[x] != a and a and there[x] and which % 2 == 0:
                    _touch(a, there[x], 1 - which // 2, keys, numbers, count, contacts)
    return lines


@numba.njit(nogil=True, cache=True)
def border(rows, origin, shape, cut):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Count, in the 13 directions, the neighbours that a block's objects would have outside of the volume."""
    for i in range(rows.shape[0]):
        z = origin[0] + i
        for j in range(rows.shape[1]):
            y = origin[1] + j
            inner = 0 < z < shape[0] - 1 and 0 < y < shape[1] - 1
            for k in range(rows.shape[2]):
                x = origin[2] + k
                row = rows[i, j, k]
                if row == 0 or (inner and 0 < x < shape[2] - 1):
                    continue
                for d in range(DIRECTIONS.shape[0]):
                    for sign in (-1, 1):
                        v = z + sign * DIRECTIONS[d, 0]
                        u = y + sign * DIRECTIONS[d, 1]
                        w = x + sign * DIRECTIONS[d, 2]
                        if not (0 <= v < shape[0] and 0 <= u < shape[1] and 0 <= w < shape[2]):
                            cut[row, d] += 1
