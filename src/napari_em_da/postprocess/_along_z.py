"""Averaging of probabilities over neighbouring sections, as far as the objects of each class go on in them.

Everything here works on one piece of a section at a time, (C, Y, X), whoever reads it and wherever the result goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.config import VoxelSize

Section = npt.NDArray[np.float32]
Read = Callable[[int, int], npt.NDArray[np.float32]]  # (class, section) to (Y, X)
REACH = 2.5  # standard deviations
LEAST_CORRELATION = 0.25  # of a class's maps of two sections: with less there is a gap between them
LEAST_NEAR = 0.51  # of the weight within half a standard deviation
LOOKS = 16  # sections in which widths are measured
LEAST_SIGMA = 0.25  # sections; a narrower average leaves the section what it is


class Tally:
    """What has to be known of a volume before it is averaged: widths, and where sections go on in each other.

    Parameters
    ----------
    classes : int
        Background included.
    depth : int
        Sections.
    voxel_nm : (z, y, x)

    Notes
    -----
    The width of a class is four times the mean distance of its pixels to its border, in their section: that of a stripe
    is its thickness, that of a disc two thirds of its diameter. Specks have few pixels, and count as little.
    """

    def __init__(self, classes: int, depth: int, voxel_nm: VoxelSize) -> None:
        self.voxel_nm = voxel_nm
        self._pixels, self._depths = np.zeros(classes), np.zeros(classes)
        self._sums = np.zeros((6, classes, max(depth - 1, 0)))  # n, and of a, b, aa, bb, ab
        self._before: Section | None = None

    def measure(self, labels: npt.NDArray[Any]) -> None:
        """Measure the widths in a whole section (Y, X) of class numbers."""
        import edt

        pixel = self.voxel_nm[1:]
        largest = min(n * size for n, size in zip(labels.shape, pixel, strict=True)) / 2  # without a border it is inf
        for c in range(1, len(self._pixels)):
            mask = labels == c
            if mask.any():
                depths = edt.edt(mask, anisotropy=pixel, black_border=False, parallel=1)[mask]
                depths -= sum(pixel) / 4  # it goes to the next pixel's middle, the border is half-way
                self._depths[c] += np.minimum(depths, largest).sum(dtype=np.float64)
                self._pixels[c] += len(depths)

    def compare(self, z: int, section: Section) -> None:
        """Compare a section, or a piece of it, (C, Y, X), with the one before; they come in order, beginning with 0."""
        b = section.reshape(len(section), -1)
        if z and self._before is not None:
            a = self._before
            sums = [np.einsum("cn,cn->c", one, other, dtype=np.float64) for one, other in ((a, a), (b, b), (a, b))]
            first = [one.sum(1, dtype=np.float64) for one in (a, b)]
            self._sums[:, :, z - 1] += [np.full(len(a), a.shape[1]), *first, *sums]
        self._before = b

    def widths(self) -> npt.NDArray[np.float64]:
        """Return the width of each class in nm, 0 where it was not found."""
        widths: npt.NDArray[np.float64] = 4 * np.divide(
            self._depths, self._pixels, out=np.zeros_like(self._depths), where=self._pixels > 0
        )
        return widths

    def correlations(self) -> npt.NDArray[np.float64]:
        """Return how each class's map correlates with that of the next section: (C, Z - 1); 0 where it is constant."""
        n, a, b, aa, bb, ab = self._sums
        spread = np.sqrt(np.maximum(n * aa - a * a, 0) * np.maximum(n * bb - b * b, 0))
        found: npt.NDArray[np.float64] = np.zeros_like(spread)
        np.divide(n * ab - a * b, spread, out=found, where=spread > 1e-6 * n)
        return found


def looked_at(depth: int) -> list[int]:
    """Return the sections in which widths are measured."""
    return sorted({round(z) for z in np.linspace(0, depth - 1, min(depth, LOOKS))})


def pieces(sizes: Sequence[Sequence[int]]) -> list[tuple[slice, ...]]:
    """Return the parts of a section to read at once, from the sizes of its chunks along y and x."""
    starts = [np.concatenate([[0], np.cumsum(n)]) for n in sizes]
    return list(product(*([slice(int(a), int(b)) for a, b in pairwise(ends)] for ends in starts)))


@dataclass(frozen=True, eq=False)
class Plan:
    """Which sections are averaged with which weights.

    Attributes
    ----------
    sigmas : (C,) standard deviation along z in sections; 0 for a class that stays as it is
    stretch : (C, Z) number of the uninterrupted stretch of sections that each section lies in
    """

    sigmas: npt.NDArray[np.float64]
    stretch: npt.NDArray[np.int64]

    @classmethod
    def of(cls, tally: Tally, share: float, least: float) -> Plan:
        """Plan to average over ``share`` of each class's width, nowhere across sections that correlate less."""
        sigmas = share * tally.widths() / tally.voxel_nm[0]
        sigmas[sigmas < LEAST_SIGMA] = 0
        apart = tally.correlations() < least
        stretch = np.concatenate([np.zeros((len(apart), 1), np.int64), np.cumsum(apart, axis=1)], axis=1)
        return cls(sigmas, stretch)

    @property
    def idle(self) -> bool:
        """Whether nothing changes."""
        return not self.sigmas[1:].any()

    @property
    def gaps(self) -> int:
        """Number of places that nothing is averaged across."""
        return int(self.stretch[self.sigmas > 0, -1].max(initial=0))

    def weights(self, c: int, z: int) -> list[tuple[int, float]]:
        """Return the sections that make a class's map of one section, and their weights, which sum to 1.

        A Gaussian that continues the last section beyond the end of a stretch. More than half of the weight stays
        within half a standard deviation: what the network is sure of here is not overruled by sections in which the
        object has moved on. Of many thin sections some are enough: at most 13 are read.
        """
        sigma = float(self.sigmas[c])
        if not sigma:
            return [(z, 1.0)]
        step = max(1, int(sigma / 2))
        most = math.ceil(REACH * sigma / step)
        shift = step * np.arange(-most, most + 1)
        weight = np.exp(-0.5 * (shift / sigma) ** 2)
        weight /= weight.sum()
        near = weight[np.abs(shift) <= sigma / 2].sum()
        if near < LEAST_NEAR:
            weight *= (1 - LEAST_NEAR) / (1 - near)
            weight[most] += 1 - weight.sum()
        row = self.stretch[c]
        first, end = np.searchsorted(row, row[z], "left"), np.searchsorted(row, row[z], "right")
        places = np.clip(z + shift, first, end - 1)
        return [(int(place), float(weight[places == place].sum())) for place in np.unique(places)]

    def average(self, read: Read, z: int) -> Section:
        """Return the averaged probabilities of a section, or a piece of it, (C, Y, X); voxels without any stay so."""
        own = np.stack([read(c, z) for c in range(len(self.sigmas))]).astype(np.float32, copy=False)
        result = own.copy()
        for c in np.flatnonzero(self.sigmas):
            if c:
                result[c] = 0
                for place, weight in self.weights(int(c), z):
                    result[c] += np.float32(weight) * (own[c] if place == z else read(int(c), place))
        total = result[1:].sum(0)
        result[0] = np.maximum(1 - total, 0)
        result /= np.maximum(total, 1)
        result[:, ~own.any(0)] = 0
        return result
