"""Exact squared Euclidean distances in a section, with integers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_em_da.weights._compiled import compiled

Squares = npt.NDArray[np.int32]
FARTHEST = 46000  # px; its square, with some room, fits 32 bits
REACH = 96  # px; columns farther away are left to the lower envelope, whose cost does not grow with distance
BLOCK = 128  # px; a block of a row is done when its farthest pixel is


def squared_distance(target: npt.NDArray[np.bool_]) -> Squares:
    """Return the squared distance in pixels from each pixel to the nearest true one.

    Parameters
    ----------
    target : (Y, X) bool

    Returns
    -------
    (Y, X) int32
        ``min(Y + X, 46000)**2`` everywhere if ``target`` is all false; distances beyond 46000 pixels are cut there.

    Notes
    -----
    Near a boundary a vectorised scan of the neighbouring columns ends after a few steps and beats the lower envelope
    of parabolas; rows with a pixel more than 96 columns away from its nearest boundary take the envelope.

    References
    ----------
    A. Meijster, J. Roerdink, W. Hesselink, "A general algorithm for computing distance transforms in linear time",
    2000; P. Felzenszwalb, D. Huttenlocher, "Distance transforms of sampled functions", 2012.
    """
    out = np.empty(target.shape, np.int32)
    _squared_distance(target, out)
    return out


@compiled
def _squared_distance(target: npt.NDArray[np.bool_], out: Squares) -> None:
    height, width = target.shape
    far = np.int32(min(height + width, FARTHEST))
    for y in range(height):
        _down(target[y], out[max(y - 1, 0)], out[y], far, y == 0)
    for y in range(height - 2, -1, -1):
        _up(out[y + 1], out[y])
    squares = np.full(width + 2 * REACH, far * far, np.int32)
    site, start = np.empty(width, np.int64), np.empty(width + 1, np.float64)
    halves = 0.5 / np.maximum(np.arange(width), 1)
    for y in range(height):
        squares[REACH : REACH + width] = out[y] * out[y]
        if not _scan(squares, out[y]):
            _lower_envelope(squares[REACH : REACH + width], halves, site, start, out[y])


# Short loops in functions of their own: only so does the compiler see that it may use vector instructions.
@compiled
def _down(target: npt.NDArray[np.bool_], above: Squares, row: Squares, far: np.int32, first: bool) -> None:
    for x in range(row.size):
        passed = far if first else min(above[x] + np.int32(1), far)
        row[x] = np.int32(0) if target[x] else passed


@compiled
def _up(below: Squares, row: Squares) -> None:
    for x in range(row.size):
        row[x] = min(row[x], below[x] + np.int32(1))


@compiled
def _scan(squares: Squares, row: Squares) -> bool:
    """Minimise ``d^2 + g^2`` over columns d = 1, 2, … away; false if some pixel needs more than ``REACH``."""
    row[:] = squares[REACH : REACH + row.size]
    for begin in range(0, row.size, BLOCK):
        end = min(begin + BLOCK, row.size)
        worst, step = row[begin:end].max(), 1
        while worst > step * step:
            if step > REACH:
                return False
            worst = _lower(row, squares, begin, end, step)
            step += 1
    return True


@compiled
def _lower(row: Squares, squares: Squares, begin: int, end: int, step: int) -> np.int32:
    square = np.int32(step * step)
    worst = square
    left, right = np.uint64(REACH - step), np.uint64(REACH + step)
    for x in range(np.uint64(begin), np.uint64(end)):
        value = min(row[x], np.int32(min(squares[x + left], squares[x + right]) + square))
        row[x] = value
        worst = max(worst, value)
    return worst


@compiled
def _lower_envelope(
    squares: Squares,
    halves: npt.NDArray[np.float64],
    site: npt.NDArray[np.int64],
    start: npt.NDArray[np.float64],
    row: Squares,
) -> None:
    """Write ``min_i (x - i)^2 + g_i^2``: parabola ``site[k]`` of the envelope rules from ``start[k]`` on."""
    width = row.size
    top, site[0], start[0] = 0, 0, 0.0
    for x in range(1, width):
        value = np.float64(squares[x]) + np.float64(x) * x
        while True:
            i = site[top]
            # Exact: crossings on either side of a pixel differ by far more than a rounding error of float64.
            cut = (value - (np.float64(squares[i]) + np.float64(i) * i)) * halves[x - i]
            if cut > start[top] or top == 0:
                break
            top -= 1
        if cut <= start[top]:
            site[0] = x
        elif cut < width:
            top += 1
            site[top], start[top] = x, cut
    begin = 0
    for k in range(top + 1):
        end = min(int(start[k + 1]) + 1, width) if k < top else width
        for x in range(begin, end):
            row[x] = squares[site[k]] + (x - site[k]) * (x - site[k])
        begin = max(begin, end)
