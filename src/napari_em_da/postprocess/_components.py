"""Connected components of labels of any size: one pass over the blocks finds them, tables say all about them.

Each block is labelled on its own; where two blocks meet, equal labels make one component of two pieces. What is kept
is one row per piece, never the voxels: a second, lazy pass labels each block again and looks its pieces up.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import product
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.events import Progress
from napari_em_da.jobs import finish
from napari_em_da.metrics._base import load, regions
from napari_em_da.postprocess._seams import (
    Box,
    Counts,
    Ids,
    Pairs,
    Seam,
    Table,
    borders,
    distinct,
    joined,
    numbered,
    paired,
    summed,
)

_MOST = np.iinfo(np.uint32).max
_BLOCK_VOXELS = 1 << 21


def components(labels: Any, *, connectivity: int = 1, sections: bool = False) -> Any:
    """Give each connected piece of equal labels its own id.

    Parameters
    ----------
    labels : (Z, Y, X) integer or bool, numpy or dask; 0 is background
    connectivity : 1, 2 or 3
        Voxels are neighbours if they differ by one step on at most this many axes.
    sections : bool
        In each section for itself: no component spans two sections.

    Returns
    -------
    (Z, Y, X) uint32, numpy or (for dask input, which is read once here) lazy dask
        Ids 1 to n in the order of first appearance block by block, 0 is background.

    References
    ----------
    Rosenfeld, Pfaltz (1966), Sequential operations in digital picture processing.
    """
    return find_components(labels, connectivity=connectivity, sections=sections).ids


def find_components(
    labels: Any, *, connectivity: int = 1, sections: bool = False, background: bool = False, contacts: bool = False
) -> Components:
    """Find all connected components of an array and measure them; see `scan_components`."""
    return finish(
        scan_components(labels, connectivity=connectivity, sections=sections, background=background, contacts=contacts)
    )


def scan_components(
    labels: Any, *, connectivity: int = 1, sections: bool = False, background: bool = False, contacts: bool = False
) -> Generator[Progress, None, Components]:
    """Find all connected components of an array, and yield Progress after each block.

    Parameters
    ----------
    labels, connectivity, sections
        As of `components`.
    background : bool
        Voxels with label 0 form components, too.
    contacts : bool
        Count the faces between components.

    Raises
    ------
    DataError
        If the labels are not integers in three axes.
    ConfigError
        If there is no such connectivity.
    ResourceError
        If there are more than 4e9 pieces.
    """
    if labels.ndim != 3 or np.dtype(labels.dtype).kind not in "iub":
        raise DataError(f"Labels are (Z, Y, X) integers, not {labels.dtype} of shape {labels.shape}; threshold first.")
    if connectivity not in (1, 2, 3):
        raise ConfigError(f"connectivity={connectivity} is not 1 (faces), 2 (and edges) or 3 (and corners).")
    search = _Search(labels, _Rule(connectivity, sections, background), contacts)
    boxes = _boxes(labels)
    for number, box in enumerate(boxes, start=1):
        search.add(box, load(labels, box))
        yield Progress(number, len(boxes), "blocks", "connected components")
    return search.result()


@dataclass(frozen=True)
class _Rule:
    """What belongs together."""

    connectivity: int
    sections: bool
    background: bool

    def label(self, block: Table) -> tuple[Table, int]:
        """Return ids 1 to n of the pieces in one block, and n; the same block has the same ids every time."""
        plain = np.require(block, block.dtype.newbyteorder("="), ["C", "W"])  # cc3d asks to write, and does not
        ids, count = self._connect(plain)
        if self.background:
            gaps, more = self._connect(plain == 0)
            ids = np.where(gaps > 0, gaps.astype(np.uint32) + np.uint32(count), ids)
            count += more
        return ids, count

    def _connect(self, block: Table) -> tuple[Table, int]:
        if not self.sections:
            ids, count = cc3d.connected_components(
                block, connectivity=(6, 18, 26)[self.connectivity - 1], return_N=True
            )
            return ids, int(count)
        ids, total = np.zeros(block.shape, np.uint32), 0
        for section, out in zip(block, ids, strict=True):
            found, count = cc3d.connected_components(
                section, connectivity=4 if self.connectivity == 1 else 8, return_N=True
            )
            np.add(found, np.uint32(total), out=out, where=found > 0)
            total += int(count)
        return ids, total

    def steps(self, axis: int) -> list[tuple[int, int]]:
        """Return the shifts within a plane across ``axis`` between voxels that are neighbours through it."""
        along_z = (0,) if self.sections else (-1, 0, 1)
        return [(u, v) for u, v in product(along_z, (-1, 0, 1)) if abs(u) + abs(v) < self.connectivity]

    @property
    def axes(self) -> tuple[int, ...]:
        return (1, 2) if self.sections else (0, 1, 2)


@dataclass(frozen=True, eq=False)
class Components:
    """All connected components of an array; tables have one row per component, and row 0 is what belongs to none.

    Attributes
    ----------
    labels : the array, numpy or dask
    sizes : (n + 1,) int64, voxels
    values : (n + 1,) the label of each
    frame : (n + 1,) bool, whether it touches the frame: of its section, or of the volume
    contacts : (m, 3) int64 rows ``component, other, faces``, each pair in both directions, sorted; None if not asked
        for. The other may be 0.
    """

    labels: Any
    sizes: Counts
    values: Table
    frame: npt.NDArray[np.bool_]
    contacts: Counts | None
    _rule: _Rule
    _roots: Ids
    _offsets: Counts
    _kept: tuple[Table, ...]

    @property
    def ids(self) -> Any:
        """The component of each voxel: (Z, Y, X) uint32, numpy or lazy dask."""
        return self.map(np.arange(len(self.sizes), dtype=np.uint32))

    def map(self, table: Table) -> Any:
        """Return ``table[component]`` for each voxel: (Z, Y, X) of the table's type, numpy or lazy dask."""
        looked = table[self._roots]
        if hasattr(self.labels, "dask"):
            return self._lazy(looked)
        result = np.empty(self.labels.shape, table.dtype)
        for box, ids, offset in zip(_boxes(self.labels), self._kept, self._offsets, strict=True):
            result[box] = _own(looked, int(offset), int(ids.max()))[ids]
        return result

    def _lazy(self, looked: Table) -> Any:
        grid = self.labels.numblocks
        offsets, rule = self._offsets.reshape(grid), self._rule

        def look_up(block: Table, block_id: tuple[int, ...]) -> Table:
            ids, count = rule.label(block)
            found: Table = _own(looked, int(offsets[block_id]), count)[ids]
            return found

        return self.labels.map_blocks(look_up, dtype=looked.dtype, meta=np.empty((0, 0, 0), looked.dtype))


def _own(looked: Table, offset: int, count: int) -> Table:
    """Return the rows of one block's pieces, row 0 first."""
    return np.concatenate([looked[:1], looked[offset + 1 : offset + 1 + count]])


class _Search:
    """The pieces found so far: piece i of block b has number offset_b + i, and 0 is no piece."""

    def __init__(self, labels: Any, rule: _Rule, contacts: bool) -> None:
        self.labels, self.rule, self.contacts = labels, rule, contacts
        self.shape = tuple(int(n) for n in labels.shape)
        self.total = 0
        self.offsets: list[int] = []
        self.kept: list[Table] = []
        self.sizes: list[Counts] = [np.zeros(1, np.int64)]
        self.values: list[Table] = [np.zeros(1, labels.dtype)]
        self.frame: list[Table] = []
        self.links: list[Pairs] = []
        self.faces: list[tuple[Pairs, Counts]] = []
        self.seams = [Seam(axis, self.shape) for axis in range(3)]

    def add(self, box: Box, block: Table) -> None:
        """Label one block; blocks come in the order of z, y, x."""
        ids, count = self.rule.label(block)
        if self.total + count > _MOST:
            raise ResourceError(
                f"The labels fall into more than {_MOST} pieces, which look like noise; smooth them first, "
                "or work on a part of the volume."
            )
        offset, self.total = self.total, self.total + count
        self.offsets.append(offset)
        if not hasattr(self.labels, "dask"):
            self.kept.append(ids)
        sizes = np.bincount(ids.ravel(), minlength=count + 1)
        values = np.zeros(count + 1, block.dtype)
        values[ids.ravel()] = block.ravel()
        self.sizes[0] += sizes[0]
        self.sizes.append(sizes[1:])
        self.values.append(values[1:])
        if self.contacts:
            self._count_inside(ids, offset)
        for axis in self.rule.axes:
            self._meet(axis, box, ids, block, offset)

    def _meet(self, axis: int, box: Box, ids: Table, block: Table, offset: int) -> None:
        """Join the block's pieces to those before it along one axis, and note which lie at the frame."""
        first, last = (numbered(ids.take(end, axis), offset) for end in (0, -1))
        seam = self.seams[axis]
        seam.advance(box, block.dtype)
        if box[axis].start == 0:
            self.frame.append(distinct(first))
        else:
            label = block.take(0, axis)
            for step in self.rule.steps(axis):
                before, its_label = seam.before(box, step)
                same = (before > 0) & (first > 0) & (its_label == label)
                self.links.append(distinct(paired(before[same], first[same])))
                if self.contacts and step == (0, 0):
                    differ = its_label != label
                    self.faces.append(borders(before[differ], first[differ]))
        if box[axis].stop == self.shape[axis]:
            self.frame.append(distinct(last))
        seam.leave(box, last, block.take(-1, axis))

    def _count_inside(self, ids: Table, offset: int) -> None:
        for axis in self.rule.axes:
            before, after = (ids[(slice(None),) * axis + (part,)] for part in (slice(None, -1), slice(1, None)))
            differ = before != after
            self.faces.append(borders(*(numbered(side[differ], offset) for side in (before, after))))

    def result(self) -> Components:
        """Join the pieces into components."""
        roots = joined(self.total + 1, np.concatenate([np.zeros(0, np.uint64), *self.links]))
        sizes = np.bincount(roots, np.concatenate(self.sizes)).astype(np.int64)
        values = np.zeros(len(sizes), self.labels.dtype)
        values[roots] = np.concatenate(self.values)
        frame = np.zeros(len(sizes), np.bool_)
        frame[roots[np.concatenate([np.zeros(1, np.uint32), *self.frame])]] = True
        contacts = summed(self.faces, roots) if self.contacts else None
        offsets = np.array(self.offsets, np.int64)
        return Components(self.labels, sizes, values, frame, contacts, self.rule, roots, offsets, tuple(self.kept))


def _boxes(array: Any) -> list[Box]:
    """Return the regions of an array with all three axes and their true ends, in the order of z, y, x.

    The chunks of a dask array; of one in memory, parts that fit into a processor's cache, which is faster than larger
    ones, and short, for cc3d holds the interpreter meanwhile and with it the viewer.
    """
    if hasattr(array, "numblocks"):
        return [(z, y, x) for z, y, x in regions(array)]
    _, height, width = array.shape
    rows = max(1, _BLOCK_VOXELS // max(1, width))
    steps = (max(1, rows // max(1, height)), rows)
    parts = [[slice(i, min(i + by, n)) for i in range(0, n, by)] for n, by in zip(array.shape, steps, strict=False)]
    return [(z, y, slice(0, width)) for z, y in product(*parts)]
