"""Where blocks meet: the planes between them, and pairs of pieces on either side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.metrics._union import united

Ids = npt.NDArray[np.uint32]
Table = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.uint64]  # two ids as one number
Box = tuple[slice, slice, slice]


class Seam:
    """Ids and labels of the last plane before the next blocks along one axis, with a margin of one voxel.

    The plane spans the blocks that share the outer axes' position: a section of the volume, a row of blocks, a block.
    """

    def __init__(self, axis: int, shape: tuple[int, ...]) -> None:
        self.axis, self.shape = axis, shape
        self.position: tuple[int, ...] = ()
        self.planes: list[tuple[Ids, Table]] = []

    def advance(self, box: Box, dtype: np.dtype[Any]) -> None:
        """Begin a new plane if the block is not beside the one before."""
        position = tuple(part.start for part in box[: self.axis + 1])
        if position != self.position:
            self.position = position
            size = tuple(
                2 + (part.stop - part.start if axis < self.axis else self.shape[axis])
                for axis, part in enumerate(box)
                if axis != self.axis
            )
            self.planes = [*self.planes[-1:], (np.zeros(size, np.uint32), np.zeros(size, dtype))]

    def before(self, box: Box, step: tuple[int, int]) -> tuple[Ids, Table]:
        """Return ids and labels of the neighbours before the block's first plane, ``step`` away within it."""
        window = self._window(box, step)
        ids, labels = self.planes[0]
        return ids[window], labels[window]

    def leave(self, box: Box, ids: Ids, labels: Table) -> None:
        """Keep the block's last plane for the blocks after it."""
        window = self._window(box, (0, 0))
        for plane, face in zip(self.planes[-1], (ids, labels), strict=True):
            plane[window] = face

    def _window(self, box: Box, step: tuple[int, int]) -> tuple[slice, slice]:
        parts = [
            slice(0, part.stop - part.start) if axis < self.axis else part
            for axis, part in enumerate(box)
            if axis != self.axis
        ]
        u, v = (slice(part.start + 1 + by, part.stop + 1 + by) for part, by in zip(parts, step, strict=True))
        return u, v


def numbered(ids: Table, offset: int) -> Ids:
    """Return the numbers of a block's pieces among those of all blocks; 0 stays."""
    numbers: Ids = np.where(ids > 0, ids.astype(np.uint32) + np.uint32(offset), np.uint32(0))
    return numbers


def paired(first: Ids, second: Ids) -> Pairs:
    """Return two ids as one number."""
    return first.astype(np.uint64) << np.uint64(32) | second.astype(np.uint64)


def _split(pairs: Pairs) -> tuple[Ids, Ids]:
    return (pairs >> np.uint64(32)).astype(np.uint32), pairs.astype(np.uint32)


def borders(before: Ids, after: Ids) -> tuple[Pairs, Counts]:
    """Count the faces between each two pieces."""
    return np.unique(paired(before, after), return_counts=True)


def distinct(values: Table) -> Table:
    """Return the different values, sorted. `numpy.unique` hashes them, which takes far longer if most differ."""
    ordered = np.sort(values, axis=None)
    found: Table = ordered[_starts(ordered)]
    return found


def joined(total: int, links: Pairs) -> Ids:
    """Return the component of each piece, numbered in the order of their first pieces; piece 0 is component 0."""
    return united(total, *_split(links)).astype(np.uint32)


def summed(faces: list[tuple[Pairs, Counts]], roots: Ids) -> Counts:
    """Add up the faces of each pair of components, in both directions."""
    pairs = np.concatenate([np.zeros(0, np.uint64), *(keys for keys, _ in faces)])
    counts = np.concatenate([np.zeros(0, np.int64), *(count for _, count in faces)])
    a, b = (roots[side] for side in _split(pairs))
    both = np.concatenate([paired(a, b), paired(b, a)])
    order = np.argsort(both)
    keys, counts = both[order], np.concatenate([counts, counts])[order]
    starts = _starts(keys)
    first, second = _split(keys[starts])
    total = np.add.reduceat(counts, starts) if len(starts) else counts
    rows = np.stack([first.astype(np.int64), second.astype(np.int64), total], 1)
    return rows[first > 0]


def _starts(ordered: Table) -> Counts:
    """Return where each different value begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
