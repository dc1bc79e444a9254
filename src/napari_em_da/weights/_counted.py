"""Entropy of large windows and few classes: one moving count per class, whatever the size of the window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_em_da.weights._compiled import compiled
from napari_em_da.weights._stack import Weights

Indices = npt.NDArray[np.int64]


@compiled
def counted(
    codes: npt.NDArray[np.int32],
    classes: int,
    sections: Indices,
    rows: Indices,
    columns: Indices,
    n_log_n: Indices,
    unit: float,
    begin: int,
    end: int,
    out: Weights,
) -> None:
    """Fill rows ``begin`` to ``end`` of every section (Z, Y, X) of ``out``.

    Parameters
    ----------
    codes : (Z, Y, X)
        Class of each pixel, -1 for none.
    sections, rows, columns
        Source index of every padded position along an axis, -1 where there is none.
    n_log_n
        ``n log n`` in fixed point, so that sums are exact in any order.
    unit : float
        What a difference of these is multiplied by.
    """
    depth, height, width = out.shape
    high, wide, deep = rows.size - height + 1, columns.size - width + 1, sections.size - depth + 1
    line = np.zeros((classes, width), np.int32)  # counts of a column of the window, per class
    sums, totals = np.zeros(width, np.int64), np.zeros(width, np.int64)
    for z in range(depth):
        line[:] = 0
        for y in range(begin, begin + high - 1):
            _enter(codes, sections[z : z + deep], rows[y], np.int32(1), line)
        for y in range(begin, end):
            _enter(codes, sections[z : z + deep], rows[y + high - 1], np.int32(1), line)
            sums[:] = 0
            totals[:] = 0
            for label in range(classes):
                _add_window(line[label], columns, wide, n_log_n, sums, totals)
            for x in range(width):
                total = totals[x]
                out[z, y, x] = (n_log_n[total] - sums[x]) * unit / total if total > 0 else 0.0
            _enter(codes, sections[z : z + deep], rows[y], np.int32(-1), line)


@compiled
def _enter(
    codes: npt.NDArray[np.int32], sections: Indices, row: int, sign: np.int32, line: npt.NDArray[np.int32]
) -> None:
    for section in sections:
        if section >= 0 and row >= 0:
            for x in range(line.shape[1]):
                code = codes[section, row, x]
                if code >= 0:
                    line[code, x] += sign


@compiled
def _add_window(
    counts: npt.NDArray[np.int32], columns: Indices, wide: int, n_log_n: Indices, sums: Indices, totals: Indices
) -> None:
    """Slide along a row: add ``n log n`` of the class's count in the window, and the count, to every pixel."""
    n = 0
    for place in range(wide - 1):
        if columns[place] >= 0:
            n += counts[columns[place]]
    for x in range(counts.size):
        new, old = columns[x + wide - 1], columns[x]
        if new >= 0:
            n += counts[new]
        sums[x] += n_log_n[n]
        totals[x] += n
        if old >= 0:
            n -= counts[old]
