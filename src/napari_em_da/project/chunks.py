"""The chunks of one zarr array as the bytes of their files: encoded once, written where and when the caller likes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.io.zarr_array import ATTRIBUTE, AXES
from napari_em_da.volume import VoxelSize

METADATA = "zarr.json"
CHUNK = (1, 256, 256)  # one section: what a brush touches, and what a viewer reads
SLAB_VOXELS = 1 << 23
EDITS = "em_da_edits"  # attribute: chunks that are absent are those of another volume, not zeros

Index = tuple[int, ...]
Region = tuple[slice, ...]


class Chunks:
    """A zarr format 3 array without a place: its metadata, its grid, and its codec.

    Parameters
    ----------
    metadata : bytes
        The array's ``zarr.json``.

    Raises
    ------
    DataError
        If the metadata is damaged, or that of another kind of array.
    """

    def __init__(self, metadata: bytes) -> None:
        try:
            content = json.loads(metadata)
            grid = content["chunk_grid"]["configuration"]["chunk_shape"]
            separator = content["chunk_key_encoding"]["configuration"]["separator"]
            self.shape: Index = tuple(int(n) for n in content["shape"])
            self.chunk: Index = tuple(int(n) for n in grid)
            self.dtype: np.dtype[Any] = np.dtype(content["data_type"])
            self.attributes: dict[str, Any] = content.get("attributes", {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{METADATA} is damaged ({type(error).__name__}: {error}).") from None
        if separator != "/" or len(self.shape) not in (2, 3) or self.dtype.kind not in "ui":
            raise DataError(f"{METADATA} describes no labels of a project: {self.dtype} of shape {self.shape}.")
        self.metadata = metadata

    @classmethod
    def new(
        cls, shape: Sequence[int], dtype: npt.DTypeLike, voxel_nm: VoxelSize | None = None, *, edits: bool = False
    ) -> Chunks:
        """Return the chunks of a new (Z, Y, X) or (Y, X) label volume; booleans become uint8."""
        kind = np.dtype(dtype).newbyteorder("=")
        kind = np.dtype(np.uint8) if kind.kind == "b" else kind
        if len(shape) not in (2, 3) or not all(n > 0 for n in shape) or kind.kind not in "ui":
            raise DataError(f"Labels to correct must be integers of 2 or 3 axes; these are {kind} of {tuple(shape)}.")
        attributes: dict[str, Any] = {} if voxel_nm is None else {ATTRIBUTE: list(voxel_nm)}
        return cls(_metadata(tuple(shape), kind, attributes | ({EDITS: True} if edits else {})))

    def retyped(self, dtype: npt.DTypeLike) -> Chunks:
        """Return the same chunks with another type of labels."""
        return Chunks(_metadata(self.shape, np.dtype(dtype), self.attributes))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def edits(self) -> bool:
        """Whether chunks that are absent are those of another volume."""
        return bool(self.attributes.get(EDITS))

    def key(self, index: Index) -> str:
        """Return the path of a chunk's file in the array's folder."""
        return "/".join(("c", *map(str, index)))

    def present(self, names: Iterable[str]) -> set[Index]:
        """Return the chunks among the paths of files."""
        keys = (name.split("/")[1:] for name in names if name.startswith("c/"))
        return {tuple(map(int, k)) for k in keys if len(k) == self.ndim and all(part.isdecimal() for part in k)}

    def region(self, index: Index) -> Region:
        """Return the voxels of a chunk, cut to the array."""
        along = zip(index, self.chunk, self.shape, strict=True)
        return tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in along)

    def touching(self, region: Region) -> Iterator[Index]:
        """Yield the chunks that share voxels with a region (slices with bounds, step 1)."""
        if any(s.stop <= s.start for s in region):
            return iter(())
        along = (range(s.start // c, -(-s.stop // c)) for s, c in zip(region, self.chunk, strict=True))
        return itertools.product(*along)

    def around(self, region: Region) -> Region:
        """Return the region grown to whole chunks, cut to the array."""
        along = zip(region, self.chunk, self.shape, strict=True)
        return tuple(slice(s.start // c * c, min(-(-s.stop // c) * c, n)) for s, c, n in along)

    def encode(self, blocks: Mapping[Index, npt.NDArray[Any]]) -> dict[str, bytes]:
        """Return the files of whole chunks, each array of the shape of its ``region``; zeros get a file too."""
        empty = {index for index, block in blocks.items() if not block.any()}
        files = self._files({}) if len(empty) < len(blocks) else {}
        array: Any = self._open(files) if files else None
        # zarr writes no chunk that holds the fill value alone, but an erased one must replace the one on disk
        ones = self._files({}, {**json.loads(self.metadata), "fill_value": 1}) if empty else {}
        erased: Any = self._open(ones) if ones else None
        for index, block in blocks.items():
            (erased if index in empty else array)[self.region(index)] = block
        files |= ones
        return {self.key(index): files[self.key(index)].to_bytes() for index in blocks}

    def decode(self, files: Mapping[Index, bytes], region: Region) -> npt.NDArray[Any]:
        """Return a region made of the given chunks, zeros elsewhere.

        Raises
        ------
        DataError
            If a chunk's bytes are damaged.
        """
        try:
            return np.asarray(self._open(self._files(files))[region])
        except Exception as error:  # codecs fail in many ways
            raise DataError(
                f"A chunk of the labels in {region} is damaged ({type(error).__name__}: {error}). Put back a copy of "
                "it, or delete its file to start that part from empty."
            ) from error

    def _files(self, files: Mapping[Index, bytes], metadata: dict[str, Any] | None = None) -> dict[str, Any]:
        from zarr.core.buffer import default_buffer_prototype

        make = default_buffer_prototype().buffer.from_bytes
        head = self.metadata if metadata is None else json.dumps(metadata).encode()
        return {METADATA: make(head), **{self.key(index): make(data) for index, data in files.items()}}

    def _open(self, files: dict[str, Any]) -> Any:
        import zarr
        from zarr.storage import MemoryStore

        return zarr.open_array(MemoryStore(files), mode="r+")


def slabs(box: Region) -> list[Region]:
    """Return a box in parts of whole sections, small enough to be held in memory a few times."""
    if len(box) == 2:
        return [box]
    step = max(1, SLAB_VOXELS // max(1, math.prod(s.stop - s.start for s in box[1:])))
    along = range(box[0].start, box[0].stop, step)
    return [(slice(z, min(z + step, box[0].stop)), *box[1:]) for z in along]


def whole(shape: Index) -> Region:
    """Return the region that is all of an array."""
    return tuple(slice(0, n) for n in shape)


def within(box: Region | None, shape: Index) -> Region:
    """Return a box with its bounds inside the shape; axes that are not named are whole."""
    given = (*(box or ()), *[slice(None)] * (len(shape) - len(box or ())))
    along = [s.indices(n)[:2] for s, n in zip(given, shape, strict=True)]
    return tuple(slice(low, max(low, high)) for low, high in along)


def shared(chunk: Region, box: Region) -> tuple[Region, Region]:
    """Return the voxels that a chunk and a box share, counted from the start of each."""
    common = [(max(c.start, b.start), min(c.stop, b.stop)) for c, b in zip(chunk, box, strict=True)]
    here, there = (
        tuple(slice(low - s.start, high - s.start) for (low, high), s in zip(common, place, strict=True))
        for place in (chunk, box)
    )
    return here, there


def edits_only(path: Path) -> bool:
    """Return whether the array in a folder holds edits of another volume; False if it cannot be read."""
    try:
        return Chunks((path / METADATA).read_bytes()).edits
    except (OSError, DataError):
        return False


def _metadata(shape: Index, dtype: np.dtype[Any], attributes: dict[str, Any]) -> bytes:
    import zarr
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    chunk = tuple(min(c, n) for c, n in zip(CHUNK[-len(shape) :], shape, strict=True))
    names = AXES[:3][-len(shape) :]
    zarr.create_array(
        MemoryStore(files), shape=shape, chunks=chunk, dtype=dtype, dimension_names=names, attributes=attributes
    )
    text: bytes = files[METADATA].to_bytes()
    return text
