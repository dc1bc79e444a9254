"""Sizes and solidity of the regions in section masks, all regions of all sections at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_em_da.weights._compiled import compiled

Masks = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
SPECK_PX = 10  # regions of this size and below are noise
_IN_SECTION = ndimage.generate_binary_structure(2, 1)[None] & np.array([False, True, False])[:, None, None]
_NET_SOLIDITY = 0.6  # an object fills more of its convex hull, a membrane less
_NET_LARGEST = 0.8  # between objects one region holds nearly all of the rest; a membrane splits it


@dataclass(frozen=True, eq=False)
class Regions:
    """4-connected regions above `SPECK_PX` pixels; one row each.

    Attributes
    ----------
    section : (n,) int64, index of the section
    area : (n,) int64, pixels
    convex : (n,) int64, pixels whose centre lies in the convex hull of the region's pixel centres
    """

    section: Counts
    area: Counts
    convex: Counts


@dataclass(frozen=True, eq=False)
class Shapes:
    """What one class looks like in sections.

    Attributes
    ----------
    windows : int
        How many were measured.
    share : float
        Of all (annotated) pixels.
    empty : float
        Share of the windows without a single pixel of the class.
    areas : (n,) int64
        Pixels of its regions.
    solidity : float
        Mean of area / convex area over the regions; 0 without a region.
    cells : (m,) int64
        Pixels of the regions of the rest.
    net : bool
        Thin and connected, as membranes are: its regions fill little of their convex hulls (area-weighted solidity
        below 0.6) and split the rest (its largest region per window holds less than 0.8 of it on average).
    """

    windows: int
    share: float
    empty: float
    areas: Counts
    solidity: float
    cells: Counts
    net: bool

    @classmethod
    def of(cls, masks: Masks, annotated: Masks | None = None) -> Shapes:
        """Measure windows (N, Y, X); pixels that are not annotated belong neither to the class nor to the rest."""
        known = np.ones(masks.shape, bool) if annotated is None else annotated
        masks = masks & known
        found, rest = find_regions(masks), find_regions(known & ~masks)
        solid = found.area / found.convex
        present = np.asarray(masks.any(axis=(1, 2)))
        weighted = float(np.average(solid, weights=found.area)) if solid.size else 1.0
        return cls(
            windows=len(masks),
            share=float(masks.sum() / max(1, known.sum())),
            empty=float((~present).mean()),
            areas=found.area,
            solidity=float(solid.mean()) if solid.size else 0.0,
            cells=rest.area,
            net=weighted < _NET_SOLIDITY and _largest_share(rest, present) < _NET_LARGEST,
        )


def _largest_share(rest: Regions, present: Masks) -> float:
    """Return the mean share of the largest region among all of a window, over windows that hold the class."""
    total = np.bincount(rest.section, weights=rest.area, minlength=len(present))
    largest = np.zeros(len(present))
    np.maximum.at(largest, rest.section, rest.area)
    counted = present & (total > 0)
    return float((largest[counted] / total[counted]).mean()) if counted.any() else 1.0


def find_regions(masks: Masks) -> Regions:
    """Find and measure the regions of each section (N, Y, X) for itself.

    Notes
    -----
    The convex area follows from the hull of the pixel centres by Pick's theorem (area + border / 2 + 1 lattice points),
    in integers. Digital discs and rectangles have a solidity of exactly 1; scikit-image's hull of the pixels' edge
    midpoints is a little larger, which lowers the solidity of small regions.

    References
    ----------
    Andrew A.M., Another efficient algorithm for convex hulls in two dimensions, Information Processing Letters 9, 1979.
    """
    ids, count = ndimage.label(masks, _IN_SECTION)
    section, area, convex = _measure(np.ascontiguousarray(ids, np.int32), count)
    kept = area > SPECK_PX
    return Regions(section[kept], area[kept], convex[kept])


@compiled
def _measure(ids: npt.NDArray[np.int32], count: int) -> tuple[Counts, Counts, Counts]:
    """Return (section, area, convex area) of the regions 1 to ``count``; each lies in one section."""
    section, area = np.zeros(count, np.int64), np.zeros(count, np.int64)
    top, bottom = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for z in range(ids.shape[0]):
        for y in range(ids.shape[1]):
            for x in range(ids.shape[2]):
                i = ids[z, y, x] - 1
                if i >= 0:
                    if area[i] == 0:
                        section[i], top[i] = z, y
                    area[i] += 1
                    bottom[i] = y
    convex = np.zeros(count, np.int64)
    height = int((bottom - top).max()) + 1 if count else 0
    start = np.zeros(count + 1, np.int64)  # of each region's rows in one long list
    for i in range(count):
        start[i + 1] = start[i] + bottom[i] - top[i] + 1
    left, right = np.full(start[count], ids.shape[2], np.int64), np.full(start[count], -1, np.int64)
    for z in range(ids.shape[0]):
        for y in range(ids.shape[1]):
            for x in range(ids.shape[2]):
                i = ids[z, y, x] - 1
                if i >= 0:
                    row = start[i] + y - top[i]
                    left[row] = min(left[row], x)
                    right[row] = max(right[row], x)
    chain = np.zeros(height, np.int64)
    for i in range(count):
        rows = slice(start[i], start[i + 1])
        convex[i] = _convex_area(left[rows], right[rows], chain)
    return section, area, convex


@compiled
def _convex_area(left: Counts, right: Counts, chain: Counts) -> int:
    """Count the lattice points in the hull of rows that reach from ``left`` to ``right``."""
    doubled, border = 0, 0
    for side in (-1, 1):
        ends = right if side == 1 else left
        used = 0
        for y in range(len(ends)):
            while used >= 2:
                a, b = chain[used - 2], chain[used - 1]
                if side * ((ends[b] - ends[a]) * (y - a) - (ends[y] - ends[a]) * (b - a)) > 0:
                    break
                used -= 1
            chain[used] = y
            used += 1
        for k in range(1, used):
            a, b = chain[k - 1], chain[k]
            doubled += side * (b - a) * (ends[a] + ends[b])
            border += _gcd(b - a, abs(ends[b] - ends[a]))
    last = len(left) - 1
    border += right[0] - left[0] + right[last] - left[last]
    return int((doubled + border) // 2 + 1)


@compiled
def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a
