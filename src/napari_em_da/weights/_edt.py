"""Exact squared Euclidean distances in a section, with integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.weights._compiled import compiled


def squared_distance(target: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return the squared distance in pixels from each pixel to the nearest true one.

    Parameters
    ----------
    target : (Y, X) bool

    Returns
    -------
    (Y, X) integer
        At least ``(Y + X)**2``, more than any true distance, everywhere if ``target`` is all false.

    References
    ----------
    A. Meijster, J. Roerdink, W. Hesselink, "A general algorithm for computing distance transforms in linear time",
    2000; P. Felzenszwalb, D. Huttenlocher, "Distance transforms of sampled functions", 2012.
    """
    out = np.empty(target.shape, np.int32 if sum(target.shape) < 46340 else np.int64)
    _squared_distance(target, out)
    return out


@compiled
def _squared_distance(target: npt.NDArray[np.bool_], out: npt.NDArray[Any]) -> None:
    height, width = target.shape
    far = height + width
    for x in range(width):
        out[0, x] = 0 if target[0, x] else far
    for y in range(1, height):
        for x in range(width):
            out[y, x] = 0 if target[y, x] else min(out[y - 1, x] + 1, far)
    for y in range(height - 2, -1, -1):
        for x in range(width):
            out[y, x] = min(out[y, x], out[y + 1, x] + 1)
    _lower_envelopes(out)


@compiled
def _lower_envelopes(out: npt.NDArray[Any]) -> None:
    """Replace each row of column distances g by ``min_i (x - i)^2 + g_i^2``."""
    height, width = out.shape
    halves = 0.5 / np.maximum(np.arange(width), 1)
    site = np.empty(width, np.int32)  # parabolas of the envelope, left to right
    start = np.empty(width + 1, np.float64)  # where each takes over
    squares = np.empty(width, out.dtype)
    for y in range(height):
        row = out[y]
        for x in range(width):
            squares[x] = row[x] * row[x]
        top = 0
        site[0] = 0
        start[0] = 0.0
        for x in range(1, width):
            value = np.float64(squares[x]) + np.float64(x) * x
            while True:
                i = site[top]
                # Exact: two crossings of different order differ by far more than a rounding error of float64.
                cut = (value - (np.float64(squares[i]) + np.float64(i) * i)) * halves[x - i]
                if cut > start[top] or top == 0:
                    break
                top -= 1
            if cut <= start[top]:
                site[0] = x
            elif cut < width:
                top += 1
                site[top] = x
                start[top] = cut
        x = 0
        for k in range(top + 1):
            i = site[k]
            end = min(np.int64(start[k + 1]) + 1, width) if k < top else width
            square = squares[i]
            for q in range(x, end):
                row[q] = square + (q - i) * (q - i)
            x = max(x, end)
