"""The labels of a layer that is being corrected, saved chunk by chunk so that no crash can break them."""

from __future__ import annotations

import math
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.lazy import computed
from napari_em_da.project.chunks import METADATA, Chunks, Index, Region, shared, slabs, whole, within
from napari_em_da.project.edited import Edited
from napari_em_da.project.files import PARTIAL, check_space, replace_file, saving, sync_files, write_bytes
from napari_em_da.project.journal import Entry, Journal
from napari_em_da.volume import Volume, VoxelSize

LITTLE = 4096
KEPT = "what was saved before is whole"
JOURNALLED = "the strokes are safe in the journal beside it"


class StrokeStore:
    """Labels (Z, Y, X) or (Y, X) in a zarr folder with a journal beside it.

    A save goes to the journal first, as one file, then into the array, then out of the journal: after a crash at any
    moment the labels are those before the save or those after it. Make one with ``create`` or ``open``.

    Notes
    -----
    Saving may run in another thread than painting; saves of one store wait for each other, reads never wait.
    """

    def __init__(self, path: Path, chunks: Chunks, base: Volume | None, guard: Callable[[], object] | None) -> None:
        self.path = path
        self.chunks = chunks
        self._base = base
        self._guard = guard or (lambda: None)
        self._journal = Journal(path.with_suffix(".journal"))
        self._waiting: tuple[Entry, ...] = ()  # in the journal, not (wholly) in the array
        self._have: set[Index] = set()
        self._mutex = threading.Lock()

    @classmethod
    def create(
        cls,
        path: Path,
        array: Any,
        *,
        edits_only: bool = False,
        voxel_nm: VoxelSize | None = None,
        guard: Callable[[], object] | None = None,
    ) -> StrokeStore:
        """Make a store, whole or not at all.

        Parameters
        ----------
        path : Path
            ``<name>.zarr``, which does not exist.
        array : numpy, dask or zarr array of integers, (Z, Y, X) or (Y, X)
            The labels as they are now; booleans become uint8.
        edits_only : bool
            Do not copy the array: keep only chunks that change, and read the others from it.
        voxel_nm : (z, y, x), optional
        guard : callable, optional
            Called before anything is written; raises if it must not be.

        Raises
        ------
        ConfigError
            If the path exists.
        DataError
            If the array is not of integers, or not of 2 or 3 axes.
        ResourceError
            If the disk is full.
        """
        if path.exists():
            raise ConfigError(f"{path} exists already; open it, or choose another name.")
        store = cls(path, Chunks.new(array.shape, array.dtype, voxel_nm, edits=edits_only), None, guard)
        store._guard()
        temporary = path.with_name(f".{path.name}{PARTIAL}")
        shutil.rmtree(temporary, ignore_errors=True)  # of a creation that was killed
        journal = store._journal.folder
        try:
            with saving(path, LITTLE if edits_only else math.prod(array.shape) * store.dtype.itemsize, KEPT):
                shutil.rmtree(journal, ignore_errors=True)  # of a store that the user has deleted
                store._write_new(temporary, None if edits_only else array)
                os.replace(temporary, path)
        except Exception:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        store._have = store._on_disk()
        store._base = _flat_or_deep(array, store.shape) if edits_only else None
        return store

    @classmethod
    def open(cls, path: Path, *, base: Any = None, guard: Callable[[], object] | None = None) -> StrokeStore:
        """Open a store and finish or drop what a crash has interrupted.

        Parameters
        ----------
        path : Path
        base : Volume or array, optional
            What the edits are edits of, for a store that was made with ``edits_only``.
        guard : callable, optional
            As in ``create``.

        Raises
        ------
        DataError
            If there is no store, its metadata is damaged, or ``base`` is missing or of another shape.
        """
        (guard or (lambda: None))()
        if not (path / METADATA).is_file():
            raise DataError(f"There are no strokes at {path}; put the folder back from a copy, or start new ones.")
        waiting = Journal(path.with_suffix(".journal")).recover()
        metadata = [entry.files[METADATA] for entry in waiting if METADATA in entry.files]
        chunks = Chunks(metadata[-1] if metadata else (path / METADATA).read_bytes())
        if chunks.edits and base is None:
            raise DataError(f"{path} holds edits of another volume; give that volume too (the edits are safe).")
        store = cls(path, chunks, _flat_or_deep(base, chunks.shape) if chunks.edits else None, guard)
        store._waiting = tuple(waiting)
        store._have = store._on_disk().union(*(chunks.present(entry.files) for entry in waiting))
        with suppress(ResourceError):  # the disk is still full: everything can be read from the journal meanwhile
            store._finish()
        return store

    @property
    def shape(self) -> Index:
        return self.chunks.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.chunks.dtype

    @property
    def edits_only(self) -> bool:
        """Whether only edits are stored."""
        return self.chunks.edits

    def load(self) -> npt.NDArray[Any] | Edited:
        """Return the labels as last saved: in memory, or as an ``Edited`` array if only edits are stored."""
        return Edited(self) if self.edits_only else self.read()

    def read(self, region: Region | None = None) -> npt.NDArray[Any]:
        """Return a region (slices with bounds, step 1; all of it by default) as last saved: a fresh array.

        Raises
        ------
        DataError
            If a file is damaged or gone.
        """
        region = whole(self.shape) if region is None else region
        out = np.zeros([s.stop - s.start for s in region], self.dtype) if self._base is None else self._unedited(region)
        for part in slabs(region):
            found = {index: self._bytes(index) for index in self.chunks.touching(part) if index in self._have}
            if not found:
                continue
            view = out[shared(part, region)[1]]
            labels = self.chunks.decode(found, part)
            if self._base is None:
                view[...] = labels
                continue
            for index in found:
                here = shared(self.chunks.region(index), part)[1]
                view[here] = labels[here]
        return out

    def save(self, array: Any, changed_box: Region | None = None) -> int:
        """Save what has changed, and return how many chunks that were.

        Parameters
        ----------
        array : numpy, dask or zarr array, or what ``load`` returned
            The labels as they are now.
        changed_box : tuple of slices, optional
            Where something may have changed; everywhere if None.

        Raises
        ------
        DataError
            If the array has another shape, or labels that no integer type holds together with those saved.
        ResourceError
            If the disk is full: what was saved before stays readable; save again later.
        """
        with self._mutex:
            self._guard()
            self._finish()
            if tuple(array.shape) != self.shape:
                raise DataError(f"The labels are {tuple(array.shape)}, the strokes {self.shape}; start new strokes.")
            box = self.chunks.around(within(changed_box, self.shape))
            if isinstance(array, Edited):
                blocks = array.painted(box)
                self._commit(self.chunks.encode(blocks))
                array.settle(blocks)
                return len(blocks)
            self._make_room(np.dtype(array.dtype), array, box)
            return self._commit(self._changes(array, box))

    def _changes(self, array: Any, box: Region) -> dict[str, bytes]:
        """Return the files of the chunks in a box (of whole chunks) that differ from those saved."""
        files: dict[str, bytes] = {}
        for part in slabs(box):
            new, old = np.asarray(computed(array[part])).astype(self.dtype), self.read(part)
            different = new != old
            if not different.any():
                continue
            changed = {}
            for index in self.chunks.touching(part):
                here = shared(self.chunks.region(index), part)[1]
                if different[here].any():
                    changed[index] = new[here]
            files.update(self.chunks.encode(changed))
        return files

    def _make_room(self, dtype: np.dtype[Any], array: Any, box: Region) -> None:
        """Widen the type of the stored labels if those in a box need it: a viewer can convert a layer's type."""
        if np.can_cast(dtype, self.dtype) or dtype.kind == "b":
            return
        limits, parts = np.iinfo(self.dtype), (np.asarray(computed(array[part])) for part in slabs(box))
        if dtype.kind in "ui" and all(limits.min <= p.min() and p.max() <= limits.max for p in parts if p.size):
            return
        wide = np.promote_types(dtype, self.dtype)
        if wide.kind not in "ui":
            raise DataError(f"The labels are {dtype}, the strokes {self.dtype}; convert the layer to {self.dtype}.")
        wider = self.chunks.retyped(wide)
        files = {METADATA: wider.metadata}
        for index in sorted(self._have):
            files.update(wider.encode({index: self.read(self.chunks.region(index)).astype(wide)}))
        self._commit(files)

    def _commit(self, files: Mapping[str, bytes]) -> int:
        """Write files to the journal, then into the array."""
        if not files:
            return 0
        needed = 2 * sum(map(len, files.values()))
        with saving(self._journal.folder, needed, KEPT):
            check_space(self._journal.folder, needed, KEPT)
            entry = self._journal.add(files)
        self._waiting += (entry,)
        self._have = self._have | self.chunks.present(files)
        if METADATA in files:
            self.chunks = Chunks(files[METADATA])
        self._finish()
        return len(files)

    def _finish(self) -> None:
        """Write what the journal holds into the array, in order: an older entry must never come after a newer one."""
        while self._waiting:
            entry = self._waiting[0]
            with saving(self.path, entry.nbytes, JOURNALLED):
                for key, data in entry.files.items():
                    (self.path / key).parent.mkdir(parents=True, exist_ok=True)
                    replace_file(self.path / key, data, sync=False)
                sync_files(self.path / key for key in entry.files)
                self._journal.remove(entry)
            self._waiting = self._waiting[1:]

    def _bytes(self, index: Index) -> bytes:
        key = self.chunks.key(index)
        for entry in reversed(self._waiting):
            if key in entry.files:
                return entry.files[key]
        try:
            return (self.path / key).read_bytes()
        except OSError as error:
            raise DataError(f"{self.path / key} cannot be read ({error.strerror}); put back a copy of it.") from error

    def _unedited(self, region: Region) -> npt.NDArray[Any]:
        if self._base is None or not all(s.stop > s.start for s in region):
            return np.zeros([max(0, s.stop - s.start) for s in region], self.dtype)
        deep = region if len(region) == 3 else (slice(0, 1), *region)
        return self._base.read(deep).astype(self.dtype, copy=False).reshape([s.stop - s.start for s in region])

    def _on_disk(self) -> set[Index]:
        return self.chunks.present(p.relative_to(self.path).as_posix() for p in (self.path / "c").rglob("*"))

    def _write_new(self, folder: Path, array: Any) -> None:
        folder.mkdir(parents=True)
        write_bytes(folder / METADATA, self.chunks.metadata, sync=False)
        written = [folder / METADATA]
        for part in () if array is None else slabs(whole(self.shape)):
            labels = np.asarray(computed(array[part])).astype(self.dtype, copy=False)
            blocks = {i: labels[shared(self.chunks.region(i), part)[1]] for i in self.chunks.touching(part)}
            full = {index: block for index, block in blocks.items() if block.any()}  # an absent chunk is zeros
            for key, data in self.chunks.encode(full).items():
                written.append(folder / key)
                written[-1].parent.mkdir(parents=True, exist_ok=True)
                write_bytes(written[-1], data, sync=False)
        sync_files(written)


def _flat_or_deep(base: Any, shape: Index) -> Volume:
    volume = base if isinstance(base, Volume) else Volume.from_array(base)
    if volume.shape != (shape if len(shape) == 3 else (1, *shape)):
        raise DataError(
            f"The strokes are {shape}, but {volume.path or 'the volume that they change'} is {volume.shape}; give the "
            "volume that they were made on."
        )
    return volume
