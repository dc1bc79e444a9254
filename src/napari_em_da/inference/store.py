"""The working store of a segmentation: zarr arrays and a journal of finished blocks, so that a run can continue."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError, ResourceError
from napari_em_da.inference.blocks import Block, Grid, Triple, triple
from napari_em_da.volume import Volume, VoxelSize

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Outputs:
    """What to write, and into which working folder (made if absent; continued if it holds the same job).

    Attributes
    ----------
    store : Path
        Zarr group, best beside the final output and named after it.
    labels : bool
        Write ``labels`` (Z, Y, X) uint8: the class of the largest score, ties to the smallest class.
    probabilities : bool
        Write ``probabilities`` (C, Z, Y, X) float32, one contiguous volume per class, background included.
    """

    store: Path
    labels: bool = True
    probabilities: bool = False


@dataclass(frozen=True)
class Prediction:
    """A finished segmentation on disk; picklable, opened when asked for."""

    store: Path
    name: str
    voxel_nm: VoxelSize | None

    def labels(self) -> Volume:
        """Return the labels lazily: (Z, Y, X) uint8."""
        return self._open("labels", channels=False)

    def probabilities(self) -> Volume:
        """Return the probabilities lazily with channels last, as volumes have them: (Z, Y, X, C) float32."""
        return self._open("probabilities", channels=True)

    def smoothed(self) -> Volume:
        """Return the probabilities averaged along z, where `along_z.smooth` has written them."""
        return self._open("smoothed", channels=True)

    def remove(self) -> None:
        """Delete the working store, once its arrays have been written elsewhere."""
        remove_store(self.store)

    def _open(self, what: str, channels: bool) -> Volume:
        import dask.array as da

        if not (self.store / what).is_dir():
            raise DataError(f"{self.store} holds no {what}; segment again with Outputs(..., {what}=True).")
        array = da.from_zarr(str(self.store), component=what)
        return Volume(da.moveaxis(array, 0, -1) if channels else array, self.voxel_nm, f"{self.name} {what}")


class Journal:
    """Which blocks are finished: JSON lines, appended and flushed; a torn last line is ignored.

    A line is the key of the job (first line), the shape of the cores that follow with the number of their stack, or
    the index of a finished one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._shape: Triple | None = None
        self._done: list[tuple[int, Triple, npt.NDArray[np.bool_]]] = []

    def matches(self, key: str) -> bool:
        """Return True if the file was begun for the job ``key``."""
        lines = self._lines()
        return next(lines, {}).get("key") == key

    def open(self, shape: Triple) -> None:
        """Read which blocks of stacks of at most this shape are finished, and get ready to add to them."""
        self._shape = shape
        for line in self._lines():
            if "core" in line:
                self._add_grid(triple(line["core"]), line.get("stack", 0))
            elif "done" in line:
                self._done[-1][2][tuple(line["done"])] = True
        self._file = self._path.open("a", encoding="utf-8")
        self._file.write("\n")  # ends a torn line

    def use(self, core: Triple, stack: int = 0) -> None:
        """Record that blocks finished from now on have this core and belong to this stack."""
        self._add_grid(core, stack)
        self._append({"core": core, "stack": stack, "shape": self._shape})

    def mark(self, block: Block) -> None:
        """Record a finished block."""
        self._done[-1][2][block.index] = True
        self._append({"done": block.index})

    def has(self, block: Block, stack: int = 0) -> bool:
        """Return True if one finished block of the stack, possibly of a coarser grid, covers this one."""
        for core, done in (entry[1:] for entry in self._done if entry[0] == stack):
            first = tuple(c.start // n for c, n in zip(block.core, core, strict=True))
            last = tuple((c.stop - 1) // n for c, n in zip(block.core, core, strict=True))
            if first == last and done[first]:
                return True
        return False

    def share(self, sections: int) -> float:
        """Return the finished share of a volume of so many sections, 0 to 1; the file may be in use elsewhere."""
        for line in self._lines():
            if "core" in line and line.get("shape"):
                self._shape = triple(line["shape"])
                self._add_grid(triple(line["core"]), line.get("stack", 0))
            elif "done" in line and self._done:
                self._done[-1][2][tuple(line["done"])] = True
        if self._shape is None:
            return 0.0
        done = 0
        for _, core, blocks in self._done:
            sizes = [
                np.minimum(n, np.arange(1, c + 1) * n0) - np.arange(c) * n0
                for n, c, n0 in zip(self._shape, blocks.shape, core, strict=True)
            ]
            done += int(np.einsum("zyx,z,y,x->", blocks.astype(np.int64), *sizes))
        return min(1.0, done / (sections * self._shape[1] * self._shape[2]))

    def close(self) -> None:
        """Close the file; everything marked is already in it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _add_grid(self, core: Triple, stack: int) -> None:
        if self._shape is not None:
            counts = tuple(-(-n // step) for n, step in zip(self._shape, core, strict=True))
            self._done.append((stack, core, np.zeros(counts, bool)))

    def _append(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._path.open(encoding="utf-8") as file:
            for text in file:
                with suppress(json.JSONDecodeError):
                    yield json.loads(text)


class Store:
    """The zarr arrays of one job and their journal.

    Parameters
    ----------
    outputs : Outputs
    key : str
        Of the job.
    shape : (z, y, x) of the volume
    classes : int
    grid : Grid
        Of the first stack.
    stacks : list of int arrays
        Section numbers of each stack that is segmented on its own; the first is the longest.
    """

    def __init__(
        self, outputs: Outputs, key: str, shape: Triple, classes: int, grid: Grid, stacks: list[npt.NDArray[np.intp]]
    ) -> None:
        import zarr
        from zarr.codecs import BloscCodec

        self.restarted = _prepare(outputs.store, key)
        group = zarr.open_group(str(outputs.store), mode="a")
        step = triple(min(n, size) for n, size in zip(grid.core, shape, strict=True))
        chunk = (1, *step[1:])  # single sections: what viewers show and TIFF stores
        compressor = BloscCodec(cname="lz4", clevel=3, shuffle="shuffle")
        self._arrays: dict[str, Any] = {}
        wanted = {"labels": (outputs.labels, shape, chunk, "uint8")}
        wanted["probabilities"] = (outputs.probabilities, (classes, *shape), (1, *chunk), "float32")  # type: ignore[assignment]
        for name, (use, size, chunks, dtype) in wanted.items():
            if use:
                self._arrays[name] = group.require_array(
                    name, shape=size, chunks=chunks, dtype=dtype, compressors=compressor, fill_value=0
                )
        self.journal = Journal(outputs.store / JOURNAL)
        self.journal.open(grid.shape)
        self.stacks = stacks

    def write(
        self,
        block: Block,
        labels: npt.NDArray[np.uint8],
        probabilities: npt.NDArray[np.float32] | None,
        stack: int = 0,
    ) -> None:
        """Write one block's output, cut to its core, and mark it finished.

        Parameters
        ----------
        block : Block
        labels : (Z, Y, X) uint8 of the block's whole output
        probabilities : (C, Z, Y, X) float32 of the same, or None
        stack : int
            Which stack the block belongs to.
        """
        arrays, where = self._arrays, block.core
        if len(self.stacks) > 1:
            arrays = {name: array.oindex for name, array in arrays.items()}
            where = (self.stacks[stack][block.core[0]], *block.core[1:])  # type: ignore[assignment]
        with enough_disk():
            if "labels" in arrays:
                arrays["labels"][where] = labels[block.inner]
            if "probabilities" in arrays and probabilities is not None:
                arrays["probabilities"][(slice(None), *where)] = probabilities[(slice(None), *block.inner)]
            self.journal.mark(block)


def _prepare(path: Path, key: str) -> bool:
    """Make room for the job ``key``; return True if another job's work had to go."""
    journal = path / JOURNAL
    other = journal.is_file()
    if other and Journal(journal).matches(key):
        return False
    if other:
        remove_store(path)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} exists and is not a working store of this package; choose another store.")
    path.mkdir(parents=True, exist_ok=True)
    journal.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
    return other


def finished_share(path: Path) -> float | None:
    """Return how much of an unfinished segmentation is in a working store, 0 to 1; None if there is no such store."""
    if not (path / JOURNAL).is_file():
        return None
    arrays = open_arrays(path)
    return Journal(path / JOURNAL).share(next(iter(arrays.values())).shape[-3]) if arrays else 0.0


def open_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays that a working store holds so far, read-only; blocks that are not finished are 0."""
    import zarr

    names = [name for name in ("labels", "probabilities") if (path / name / "zarr.json").is_file()]
    return {name: zarr.open_array(str(path / name), mode="r") for name in names}


def remove_store(path: Path) -> None:
    """Delete a working store; a folder that is none is refused.

    Raises
    ------
    DataError
        If the folder holds no journal.
    """
    if not (path / JOURNAL).is_file():
        raise DataError(f"{path} is not a working store of this package (no {JOURNAL} in it); nothing was deleted.")
    shutil.rmtree(path)


@contextmanager
def enough_disk(otherwise: str = "") -> Iterator[None]:
    """Turn a full disk into a ResourceError that says what to do, and what else would help."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        kept = "The disk is full; free some space and run again: finished blocks are kept."
        raise ResourceError(f"{kept} {otherwise}".rstrip()) from error
