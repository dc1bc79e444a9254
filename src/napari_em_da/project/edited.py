"""A large label volume with edits on top: read and painted like an array, while only edited chunks are in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_em_da.project.chunks import Index, Region, shared

if TYPE_CHECKING:
    from napari_em_da.project.strokes import StrokeStore

Blocks = dict[Index, npt.NDArray[Any]]


class Edited:
    """The labels of a ``StrokeStore`` as an array that a labels layer can hold and paint on.

    What is painted stays in memory, in whole chunks, until ``StrokeStore.save`` has written it. Indices may be whole
    numbers, slices, an ellipsis, integer arrays (one per indexed axis) and one mask of the whole shape.

    Parameters
    ----------
    store : StrokeStore
    """

    def __init__(self, store: StrokeStore) -> None:
        self._store = store
        self._painted: Blocks = {}
        self._mutex = threading.RLock()  # painting happens while another thread saves

    @property
    def shape(self) -> Index:
        return self._store.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._store.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels, whether in memory or not."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("Labels with edits on top cannot become an array without a copy.")
        whole: npt.NDArray[Any] = self[...]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Any:
        box, inner = locate(key, self.shape)
        return self._read(box)[inner]

    def __setitem__(self, key: Any, value: Any) -> None:
        box, inner = locate(key, self.shape)
        with self._mutex:
            block = self._read(box)
            before = block.copy()
            block[inner] = value
            for index in self._store.chunks.touching(box):
                here, there = shared(self._store.chunks.region(index), box)
                if (block[there] != before[there]).any():
                    chunk = self._painted.get(index)
                    if chunk is None:
                        chunk = self._painted[index] = self._store.read(self._store.chunks.region(index))
                    chunk[here] = block[there]

    def painted(self, box: Region) -> Blocks:
        """Return copies of the chunks that touch a box and were painted since they were saved."""
        with self._mutex:
            touched = self._painted.keys() & set(self._store.chunks.touching(box))
            return {index: self._painted[index].copy() for index in sorted(touched)}

    def settle(self, saved: Mapping[Index, npt.NDArray[Any]]) -> None:
        """Let go of chunks that are saved, unless they have been painted on since."""
        with self._mutex:
            for index, block in saved.items():
                if np.array_equal(self._painted[index], block):
                    del self._painted[index]

    def _read(self, box: Region) -> npt.NDArray[Any]:
        with self._mutex:
            block = self._store.read(box)
            for index in self._painted.keys() & set(self._store.chunks.touching(box)):
                here, there = shared(self._store.chunks.region(index), box)
                block[there] = self._painted[index][here]
            return block


def locate(key: Any, shape: Index) -> tuple[Region, tuple[Any, ...]]:
    """Return the smallest box that holds what a key selects, and the key counted from the box's corner.

    Raises
    ------
    IndexError
        If the key has too many axes, is out of bounds, or is of an unknown kind.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) == 1 and getattr(parts[0], "dtype", "") == np.dtype(bool) and parts[0].shape == shape:
        parts = np.nonzero(parts[0])
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(parts) - len(dots) > len(shape) or len(dots) > 1:
        raise IndexError(f"{len(parts)} indices for {len(shape)} axes")
    at = dots[0] if dots else len(parts)
    rest = len(shape) - (len(parts) - len(dots))
    parts = (*parts[:at], *[slice(None)] * rest, *parts[at + len(dots) :])
    found = [_along(part, size) for part, size in zip(parts, shape, strict=True)]
    return tuple(box for box, _ in found), tuple(inner for _, inner in found)


def _along(part: Any, size: int) -> tuple[slice, Any]:
    if isinstance(part, slice):
        chosen = range(*part.indices(size))
        if not chosen:
            return slice(0, 0), slice(None)
        return slice(min(chosen), max(chosen) + 1), slice(None, None, chosen.step)
    index = np.asarray(part)
    if index.size and index.dtype.kind not in "iu":
        raise IndexError(f"an index of type {index.dtype}; use whole numbers, slices or integer arrays")
    index = index.astype(np.intp)
    if ((index < -size) | (index >= size)).any():
        raise IndexError(f"index {int(np.abs(index).max())} is out of bounds for an axis of {size}")
    index = np.where(index < 0, index + size, index)
    low, high = (int(index.min()), int(index.max()) + 1) if index.size else (0, 0)
    return slice(low, high), int(index) - low if index.ndim == 0 else index - low
