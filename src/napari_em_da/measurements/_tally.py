"""Sums by object, taken block by block: all that the measurements are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.measurements import _kernels
from napari_em_da.measurements._blocks import around
from napari_em_da.metrics._base import Region, load

Ints = npt.NDArray[np.int64]


class Numbering:
    """Numbers 1, 2, … for sparse positive keys, in the order in which they appear."""

    def __init__(self) -> None:
        self.keys = np.zeros(1 << 10, np.int64)
        self.numbers = np.zeros(1 << 10, np.int32)
        self.count = np.zeros(1, np.int32)

    def grow(self, room: int = 0) -> None:
        """Double the table until it can take ``room`` more keys."""
        size = 2 * len(self.keys)
        while size < 2 * (room + int(self.count[0])) + 2:
            size *= 2
        keys, numbers = np.zeros(size, np.int64), np.zeros(size, np.int32)
        _kernels.rehash(self.keys, self.numbers, keys, numbers)
        self.keys, self.numbers = keys, numbers

    def found(self) -> Ints:
        """Return the keys by number; number 1 comes first."""
        known = self.keys != 0
        keys = np.zeros(int(self.count[0]), np.int64)
        keys[self.numbers[known] - 1] = self.keys[known]
        return keys

    def runs(self, labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
        """Return where runs along x start in the flat block (and its end), and the number of each run's id.

        That is 0 for background and for 2^64 − 1 (not labelled).

        Raises
        ------
        DataError
            If an id is negative, or above 2^63 − 1.
        """
        values = _plain(labels).ravel()
        unsigned = values.dtype == np.uint64
        firsts = np.empty(values.size + 1, np.int64 if values.size >= 1 << 31 else np.int32)
        count = _kernels.runs(values, labels.shape[2], firsts)
        firsts, rows = firsts[: count + 1], np.empty(count, np.int32)
        done = 0
        while True:
            signed = values.view(np.int64) if unsigned else values
            done = _kernels.number(signed, firsts, done, unsigned, self.keys, self.numbers, self.count, rows)
            if done < 0:
                raise DataError(
                    f"The labels hold the id {int(values[firsts[~done]])}, but ids lie between 0 (background) and "
                    "2^63 - 1; replace it, or renumber the labels."
                )
            if done == count:
                return firsts, rows
            self.grow()


class Tally:
    """Running sums of all objects of one volume.

    Parameters
    ----------
    shape : of the volume
    edges : also count pairs of different neighbours, for surfaces and contacts
    image : also sum intensities; an array of the same shape, or None
    """

    def __init__(self, shape: tuple[int, ...], edges: bool, image: Any = None) -> None:
        self.shape = np.asarray(shape, np.int64)
        self.ids, self.pairs = Numbering(), Numbering()
        self.sums = np.zeros((1, 10), np.int64)
        self.low = np.full((1, 3), np.iinfo(np.int64).max)
        self.high = np.full((1, 3), -1)
        self.edges, self.image = edges, image
        self.crossings, self.cut = np.zeros((1, 13), np.int64), np.zeros((1, 13), np.int64)
        self.contacts = np.zeros((1, 3), np.int64)
        if image is not None and all(shape):
            self.offset = _offset(image)
            self.total, self.squares = np.zeros((2, 1), type(self.offset))
            least, most = _limits(np.dtype(image.dtype))
            self.dimmest, self.brightest = np.full(1, most), np.full(1, least)

    def add(self, labels: Any, region: Region) -> None:
        """Add one region of the volume."""
        outer = around(region, labels.shape, (0, 1, 1), (1, 1, 1)) if self.edges else region
        core = np.array([(s.start - o.start, s.stop - o.start) for s, o in zip(region, outer, strict=True)])
        origin = np.array([s.start for s in region], np.int64)
        wide = load(labels, outer)
        block = np.ascontiguousarray(wide[tuple(slice(a, b) for a, b in core)])
        firsts, rows = self.ids.runs(block)
        self._make_room()
        _kernels.moments(firsts, rows, block.shape, origin, self.sums, self.low, self.high)
        if self.image is not None:
            values = _plain(load(self.image, region)).ravel()
            _kernels.brightness(
                firsts, rows, values, self.offset, self.total, self.squares, self.dimmest, self.brightest
            )
        if self.edges:
            everything = _painted(*self.ids.runs(wide)).reshape(wide.shape)
            self._make_room()
            self._add_edges(everything, core)
            _kernels.border(_painted(firsts, rows).reshape(block.shape), origin, self.shape, self.cut)

    def _add_edges(self, rows: npt.NDArray[np.int32], core: Ints) -> None:
        done, lines = 0, int((core[0, 1] - core[0, 0]) * (core[1, 1] - core[1, 0]))
        while done < lines:
            pairs = self.pairs
            self.contacts = _taller(self.contacts, len(pairs.keys) // 2 + 1)
            done = _kernels.edges(
                rows, core, done, self.crossings, pairs.keys, pairs.numbers, pairs.count, self.contacts
            )
            if done < lines:
                pairs.grow(3 * rows.shape[2] + 1)

    def _make_room(self) -> None:
        """Give every object a row in every table; twice as many as needed, so that copies stay rare."""
        needed = int(self.ids.count[0]) + 1
        if needed <= len(self.sums):
            return
        height = 2 * needed
        self.sums = _taller(self.sums, height)
        self.low = _taller(self.low, height, np.iinfo(np.int64).max)
        self.high = _taller(self.high, height, -1)
        if self.edges:
            self.crossings, self.cut = _taller(self.crossings, height), _taller(self.cut, height)
        if self.image is not None:
            least, most = _limits(np.dtype(self.image.dtype))
            self.total, self.squares = _taller(self.total, height), _taller(self.squares, height)
            self.dimmest = _taller(self.dimmest, height, most)
            self.brightest = _taller(self.brightest, height, least)


def _painted(firsts: npt.NDArray[Any], rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the row of every voxel of a block from its runs."""
    return np.repeat(rows, np.diff(firsts))


def _taller(table: npt.NDArray[Any], height: int, fill: Any = 0) -> npt.NDArray[Any]:
    if height <= len(table):
        return table
    grown = np.full((height, *table.shape[1:]), fill, table.dtype)
    grown[: len(table)] = table
    return grown


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values in a type that compiled code takes: native byte order, neither bool nor half precision."""
    if values.dtype == np.bool_:
        return values.view(np.uint8)
    dtype = np.dtype(np.float32) if values.dtype.itemsize == 2 and values.dtype.kind == "f" else values.dtype
    return values.astype(dtype.newbyteorder("="), copy=False)


def _offset(image: Any) -> np.int64 | np.float64:
    """Return what is subtracted from intensities, so that their squares neither overflow nor cancel.

    Up to 16 bits the sums are integers, hence exact; otherwise they are float64, about the first voxel.
    """
    dtype = np.dtype(image.dtype)
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        info = np.iinfo(dtype)
        return np.int64((int(info.min) + int(info.max) + 1) // 2)
    if dtype == np.bool_:
        return np.int64(0)
    first = float(load(image, (slice(0, 1),) * 3).item())
    return np.float64(first if np.isfinite(first) else 0)


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return a value below and one above all others, in the type that extremes are kept in."""
    if dtype.kind == "f":
        kept = np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64).type
        return kept(-np.inf), kept(np.inf)
    kept = np.dtype(np.uint8 if dtype == np.bool_ else dtype).type
    return kept(np.iinfo(kept).min), kept(np.iinfo(kept).max)
