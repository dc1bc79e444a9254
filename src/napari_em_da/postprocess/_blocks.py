"""Instances of a volume of any size: block by block, kept on disk, with ids that agree across block borders.

A step that labels objects sees one block with a halo at a time. Its result is one file per block, written
atomically, so that an interrupted run goes on where it stopped. Objects of neighbouring blocks become one where they
agree in the region that both have seen; through any number of blocks, an object keeps one id.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ResourceError
from napari_em_da.events import Progress
from napari_em_da.metrics._base import BLOCK_VOXELS, load
from napari_em_da.metrics._union import united
from napari_em_da.postprocess._base import Depth, Stack, check_probabilities
from napari_em_da.volume import spread

Ids = npt.NDArray[Any]
Function = Callable[[Stack], Ids]
Box = tuple[slice, ...]
SAMPLES = 8  # blocks of which a section is hashed to recognise the input of an interrupted run


def instances_by_block(
    stack: Stack, function: Function, depth: Depth, key: str = ""
) -> Generator[Progress, None, Stack]:
    """Find the objects of a lazy stack block by block, and return them lazily with ids that agree everywhere.

    Parameters
    ----------
    stack : lazy Stack
        Finished blocks are kept in ``stack.work`` for the next run; in a temporary folder if it is None.
    function : Stack of numpy data to (Z, Y, X) ids, 0 is background
        Called once per block, with ``depth`` voxels around the block where the volume goes on.
    depth : (z, y, x) voxels
        Halo on each side. 0 on an axis: objects end at the faces of the blocks along that axis.
    key : str
        Everything else that decides the result, for example the ``repr`` of the options; a run with another key, grid,
        depth or input starts afresh, in a folder of its own.

    Returns
    -------
    Stack
        ``instances``, a dask array of uint32 (uint64 beyond 4e9 objects): ids 1 to n, all of them present.

    Notes
    -----
    Two objects of neighbouring blocks are the same if, in the region that both blocks have seen, connected pieces of
    them are each other's largest overlap and share at least half the voxels of the smaller piece. Any two pieces with
    IoU > 0.5 do. Pieces, since the branches of one object may meet outside that region, where only one of the blocks
    sees them meet. Where one block divides a piece and the other does not, only its larger part is joined: blocks that
    disagree split an object rather than merge two.

    Each generator step is one block. Closing the generator keeps the blocks that are done.

    Raises
    ------
    ResourceError
        If a block cannot be written.
    """
    blocks = Blocks(stack, depth, key)
    yield from blocks.run(function)
    return stack.with_data(blocks.array(_joined(blocks)), "instances")


class Blocks:
    """The results of a function on the blocks of a lazy stack, one file each.

    Attributes
    ----------
    stack : the stack, rechunked to the grid
    counts : how many ids each block has; the ids of block i are numbered from ``offsets[i]`` on
    """

    def __init__(self, stack: Stack, depth: Depth, key: str) -> None:
        self.depth = depth
        self.chunks = grid(stack.data.chunks[:3], depth)
        self.stack = stack.with_data(stack.data.rechunk(self.chunks + ((-1,) if stack.data.ndim == 4 else ())))
        self.counts: list[int] = []
        self._indices = list(product(*(range(len(sizes)) for sizes in self.chunks)))
        self._position = {index: number for number, index in enumerate(self._indices)}
        self._folder = _Folder(None if stack.work is None else stack.work / f"blocks-{self._digest(key)}")

    def run(self, function: Function) -> Generator[Progress, None, None]:
        """Apply the function to every block that is not there yet."""
        total = len(self._indices)
        yield Progress(0, total, "blocks", "objects")
        for number, index in enumerate(self._indices):
            path = self._folder.block(number)
            if not path.exists():
                core, grown = self._boxes(index)
                sections = range(self.stack.shape[0])[grown[0]]
                data = load(self.stack.data, grown)
                if self.stack.holds == "probabilities":
                    check_probabilities(data)
                labelled = tuple(z - sections.start for z in self.stack.labelled if z in sections)
                block = replace(self.stack, data=data, labelled=labelled, work=None)
                _save(path, self._parts(index, core, grown, *consecutive(function(block))))
            self.counts.append(int(_read(path, "count")))
            yield Progress(number + 1, total, "blocks", "objects")

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Number of ids before each block; the last one is the number of all."""
        return np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])

    def inside(self, number: int) -> Ids:
        """Return the ids, from 1, that a block has outside its halo."""
        return _read(self._folder.block(number), "inside")

    def shared(self) -> Iterator[tuple[int, int, Ids, Ids]]:
        """Yield for each pair of neighbours: their numbers, and what each of them has in the region of both."""
        for number, index in enumerate(self._indices):
            for axis in range(3):
                if index[axis] and self.depth[axis]:
                    other = self._position[tuple(i - (a == axis) for a, i in enumerate(index))]
                    ours, theirs = (self._folder.block(n) for n in (number, other))
                    yield other, number, _read(theirs, f"high{axis}"), _read(ours, f"low{axis}")

    def array(self, table: npt.NDArray[np.int64]) -> Any:
        """Return the blocks without halo as a lazy array whose ids are ``table[offset + id - 1]``."""
        import dask.array as da

        dtype = np.uint32 if table.max(initial=0) <= np.iinfo(np.uint32).max else np.uint64
        tables = [np.concatenate([[0], part]).astype(dtype) for part in np.split(table, self.offsets[1:-1])]
        reader = _Reader(self._folder, dict(zip(self._indices, enumerate(tables), strict=True)))
        return da.map_blocks(
            reader, chunks=self.chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype), name=f"objects-{uuid.uuid4().hex}"
        )

    def _boxes(self, index: tuple[int, ...]) -> tuple[Box, Box]:
        core, grown = [], []
        for i, sizes, around in zip(index, self.chunks, self.depth, strict=True):
            start, length = sum(sizes[:i]), sum(sizes)
            stop = start + sizes[i]
            core.append(slice(start, stop))
            grown.append(slice(max(0, start - around), min(length, stop + around)))
        return tuple(core), tuple(grown)

    def _parts(self, index: tuple[int, ...], core: Box, grown: Box, ids: Ids, count: int) -> dict[str, Any]:
        """Return what later runs read of a block: its core, and the slab that it shares with each neighbour."""
        middle = ids[tuple(slice(c.start - g.start, c.stop - g.start) for c, g in zip(core, grown, strict=True))]
        parts = {"core": middle, "count": np.int64(count), "inside": _present(middle)}
        for axis, around in enumerate(self.depth):
            before = (slice(None),) * axis
            if around and index[axis]:
                parts[f"low{axis}"] = ids[(*before, slice(2 * around))]
            if around and index[axis] < len(self.chunks[axis]) - 1:
                parts[f"high{axis}"] = ids[(*before, slice(-2 * around, None))]
        return parts

    def _digest(self, key: str) -> str:
        """Return a hash of the job: its key, grid and type, and one section of a few blocks of the input."""
        text = repr((key, self.stack.holds, self.depth, self.chunks, str(self.stack.data.dtype), self.stack.labelled))
        digest = hashlib.sha256(text.encode())
        for number in spread(len(self._indices), SAMPLES):
            z, y, x = self._boxes(self._indices[number])[0]
            middle = (z.start + z.stop) // 2
            digest.update(load(self.stack.data, (slice(middle, middle + 1), y, x)).data)
        return digest.hexdigest()[:16]


class _Folder:
    """Where blocks are kept; a temporary one is deleted with the last array that reads from it."""

    def __init__(self, path: Path | None) -> None:
        self.path = path or Path(tempfile.mkdtemp(prefix="napari-em-da-"))
        if path is None:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def block(self, number: int) -> Path:
        return self.path / f"{number}.npz"


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads one block and gives its ids their final numbers."""

    folder: _Folder
    tables: dict[tuple[int, ...], tuple[int, Ids]]

    def __call__(self, block_id: tuple[int, ...]) -> Ids:
        number, table = self.tables[block_id]
        ids: Ids = table[_read(self.folder.block(number), "core")]
        return ids

    def __dask_tokenize__(self) -> str:
        return str(self.folder.path)


def grid(chunks: Sequence[tuple[int, ...]], depth: Depth) -> tuple[tuple[int, ...], ...]:
    """Return chunk sizes of at least twice the depth (where the volume allows) and about 16 M voxels at most."""
    least = [max(1, 2 * around) for around in depth]
    merged = [_merged(sizes, low) for sizes, low in zip(chunks, least, strict=True)]
    most = [max(sizes) for sizes in merged]
    while np.prod(most, dtype=np.int64) > BLOCK_VOXELS and (axes := [a for a in range(3) if most[a] >= 2 * least[a]]):
        largest = max(axes, key=lambda a: most[a])
        most[largest] = -(-most[largest] // 2)
    parts: list[tuple[int, ...]] = []
    for sizes, low, high in zip(merged, least, most, strict=True):
        numbers = [max(1, min(-(-size // high), size // low)) for size in sizes]
        parts.append(
            tuple(size // n + (i < size % n) for size, n in zip(sizes, numbers, strict=True) for i in range(n))
        )
    return tuple(parts)


def _merged(sizes: tuple[int, ...], least: int) -> list[int]:
    merged = [0]
    for size in sizes:
        if merged[-1] >= least:
            merged.append(0)
        merged[-1] += int(size)
    if len(merged) > 1 and merged[-1] < least:
        rest = merged.pop()
        merged[-1] += rest
    return merged


def _joined(blocks: Blocks) -> npt.NDArray[np.int64]:
    """Return the table of final ids: one number per object, counted from 1 over the objects outside halos."""
    offsets = blocks.offsets
    total = int(offsets[-1])
    pairs = [same_objects(a, b) + offsets[[i, j]] - 1 for i, j, a, b in blocks.shared()]
    first, second = np.concatenate([np.empty((0, 2), np.int64), *pairs]).T
    objects = united(total, first, second)
    kept = np.zeros(total, np.bool_)
    for number, offset in enumerate(offsets[:-1]):
        kept[blocks.inside(number) + offset - 1] = True
    present = np.zeros(total, np.bool_)
    present[objects[kept]] = True
    table: npt.NDArray[np.int64] = np.cumsum(present, dtype=np.int64)[objects]
    return table


def same_objects(first: Ids, second: Ids) -> npt.NDArray[np.int64]:
    """Return the pairs of ids, (n, 2), that are one object in two segmentations of the same region.

    Two objects are the same if a connected piece of one and a piece of the other are each other's largest overlap (of
    equal ones the first) and share at least half the voxels of the smaller piece.
    """
    from skimage.measure import label

    both = np.stack([label(first).ravel(), label(second).ravel()], 1).astype(np.int64)
    starts = np.flatnonzero(np.append(True, (both[1:] != both[:-1]).any(1)))  # runs: far fewer than voxels
    pairs, at, run = np.unique(both[starts], axis=0, return_index=True, return_inverse=True)
    voxels = np.bincount(run.ravel(), np.diff(np.append(starts, len(both))), len(pairs)).astype(np.int64)
    sizes = [np.bincount(pairs[:, side], voxels) for side in (0, 1)]
    enough = 2 * voxels >= np.minimum(sizes[0][pairs[:, 0]], sizes[1][pairs[:, 1]])
    real = (pairs > 0).all(1)
    pairs, voxels, at, enough = pairs[real], voxels[real], at[real], enough[real]
    same = starts[at[_largest(pairs[:, 0], voxels) & _largest(pairs[:, 1], voxels) & enough]]
    ids = np.stack([first.ravel()[same], second.ravel()[same]], 1).astype(np.int64)
    return np.unique(ids, axis=0)


def _largest(ids: npt.NDArray[np.int64], voxels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Mark the pair with most voxels of each id; pairs come sorted, so of equal ones the first is the smallest."""
    order = np.lexsort((np.arange(len(ids)), -voxels, ids))
    chosen = np.zeros(len(ids), np.bool_)
    chosen[order[np.flatnonzero(np.diff(ids[order], prepend=-1))]] = True
    return chosen


def consecutive(ids: Ids) -> tuple[npt.NDArray[np.uint32], int]:
    """Return the ids renumbered 1 to n in their order, and n; 0 stays."""
    present = _present(ids)
    if not present.size:
        return np.zeros(ids.shape, np.uint32), 0
    if present[-1] > 4 * ids.size:
        numbers = np.searchsorted(present, ids).astype(np.uint32) + np.uint32(1)
        numbers[ids == 0] = 0
        return numbers, len(present)
    table = np.zeros(int(present[-1]) + 1, np.uint32)
    table[present] = np.arange(1, len(present) + 1)
    return table[ids], len(present)


def _present(ids: Ids) -> Ids:
    """Return the ids but 0, sorted."""
    flat = ids.ravel()
    runs = flat[np.concatenate([[True], flat[1:] != flat[:-1]])] if flat.size else flat
    found = np.unique(runs)
    return found[found > 0]


def _save(path: Path, parts: dict[str, Any]) -> None:
    """Write a block atomically: the file is whole, or it is not there."""
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez_compressed(file, **parts)
        os.replace(temporary, path)
    except OSError as error:
        raise ResourceError(
            f"Block {path.stem} could not be written to {path.parent}: {error.strerror or error}; "
            "free disk space or choose another folder for intermediate results. Blocks that are done are kept."
        ) from error


def _read(path: Path, part: str) -> Ids:
    with np.load(path) as file:
        ids: Ids = file[part]
        return ids
