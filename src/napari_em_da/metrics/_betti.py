"""Betti numbers of binary volumes that arrive slab by slab.

Objects are 6-connected and the background 26-connected (4 and 8 in a section), the convention of the warping error.
The volume is surrounded by background.
"""

from __future__ import annotations

from typing import Literal

import cc3d
import fastremap
import numba
import numpy as np
import numpy.typing as npt

from napari_em_da.metrics._union import root, roots

Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]


class BettiCounter:
    """Counts components, tunnels and cavities of one volume; memory is a few bytes per voxel of a slab.

    Notes
    -----
    Components are labelled within a slab; a union-find over the two planes that meet joins them to those before,
    of which only the last plane is kept. The Euler number χ counts voxels − pairs + squares − cubes of voxels that
    touch, in which each cell belongs to its last plane. By Alexander duality the cavities are the components of the
    background but one, and b1 = b0 + b2 − χ.
    """

    def __init__(self) -> None:
        self._object = _Components(6)
        self._background = _Components(26)
        self._euler = 0
        self._last: Mask | None = None

    def add(self, mask: Mask) -> None:
        """Append planes: (n, Y, X) bool."""
        if self._last is None:
            self._last = np.zeros(mask.shape[1:], np.bool_)
            self._background.add(_outside(mask.shape[1:]))
        mask = np.ascontiguousarray(mask if mask.any() else mask[:1])  # empty planes are all one
        self._euler += _cells(self._last, mask)
        self._object.add(mask)
        self._background.add(np.pad(~mask, ((0, 0), (1, 1), (1, 1)), constant_values=True))
        self._last = mask[-1].copy()

    def numbers(self) -> tuple[int, int, int]:
        """Return (b0, b1, b2) of all planes; nothing can be added afterwards."""
        if self._last is None:
            return (0, 0, 0)
        self._background.add(_outside(self._last.shape))
        b0, b2 = self._object.count, self._background.count - 1
        return b0, b0 + b2 - self._euler, b2


def betti_numbers(mask: Mask) -> tuple[int, int, int]:
    """Count the components, tunnels and cavities of a binary volume.

    Parameters
    ----------
    mask : (Z, Y, X) or (Y, X) bool
        In a section, tunnels are holes.

    Returns
    -------
    b0, b1, b2 : int
        χ = b0 − b1 + b2 is the Euler number.

    References
    ----------
    Kong & Rosenfeld (1989), Digital topology: introduction and survey.
    """
    if mask.ndim == 2:
        mask = np.ascontiguousarray(mask)
        _, count = cc3d.connected_components(mask, connectivity=4, return_N=True)
        return int(count), int(count) - int(_cells(np.zeros_like(mask), mask[None])), 0
    counter = BettiCounter()
    counter.add(mask)
    return counter.numbers()


class _Components:
    """Counts the connected components of planes that arrive slab by slab."""

    def __init__(self, connectivity: Literal[6, 26]) -> None:
        self.count = 0
        self._connectivity: Literal[6, 26] = connectivity
        self._face: Ids | None = None  # of the last plane: 0, or 1..m for the components that reach it

    def add(self, mask: Mask) -> None:
        labels, new = cc3d.connected_components(mask, connectivity=self._connectivity, return_N=True)
        before = 0 if self._face is None else int(self._face.max())
        parent = np.arange(before + int(new) + 1)
        joins = 0
        if self._face is not None:
            joins = _join(self._face, labels[0].astype(np.int64), before, int(self._connectivity == 26), parent)
        self.count += int(new) - joins
        last = labels[-1].astype(np.int64)
        last[last > 0] += before
        self._face = fastremap.renumber(roots(parent)[last], preserve_zero=True)[0].astype(np.int64)


def _outside(shape: tuple[int, ...]) -> Mask:
    return np.ones((1, shape[0] + 2, shape[1] + 2), np.bool_)


@numba.njit(nogil=True, cache=True)
def _join(face, first, before, reach, parent):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Unite components across two planes; ``first`` has ids that count from ``before``. Return how many joined."""
    height, width = face.shape
    joins = 0
    for y in range(height):
        for x in range(width):
            if face[y, x] == 0:
                continue
            for v in range(max(0, y - reach), min(height, y + reach + 1)):
                for u in range(max(0, x - reach), min(width, x + reach + 1)):
                    if first[v, u]:
                        a, b = root(parent, face[y, x]), root(parent, before + first[v, u])
                        if a != b:
                            parent[max(a, b)] = min(a, b)
                            joins += 1
    return joins


@numba.njit(nogil=True, cache=True)
def _cells(below, mask):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Euler number of the cells whose last plane is in ``mask``; ``below`` is the plane before it."""
    depth, height, width = mask.shape
    total = 0
    for z in range(depth):
        under = below if z == 0 else mask[z - 1]
        plane = mask[z]
        for y in range(height):
            for x in range(width):
                if not plane[y, x]:
                    continue
                left = x > 0 and plane[y, x - 1]
                up = y > 0 and plane[y - 1, x]
                square = left and up and plane[y - 1, x - 1]
                total += 1 - left - up + square
                if under[y, x]:
                    left = left and under[y, x - 1]
                    up = up and under[y - 1, x]
                    square = square and left and up and under[y - 1, x - 1]
                    total -= 1 - left - up + square
    return total
