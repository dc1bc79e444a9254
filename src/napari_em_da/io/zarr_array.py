"""Zarr: one plain array in a folder, with its voxel size among the attributes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.errors import DataError
from napari_em_da.volume import Volume, VoxelSize, check_voxel_size

ATTRIBUTE = "voxel_nm"
CHUNK = (16, 256, 256)
AXES = ("z", "y", "x", "c")


class ZarrReader:
    """Reads a folder that is one zarr array, format 2 or 3; groups belong to other formats."""

    def cannot_read(self, path: Path) -> str | None:
        """Return why the folder is no zarr array."""
        if (path / ".zarray").is_file():
            return None
        if not (path / "zarr.json").is_file():
            return "it is no folder with a zarr.json or .zarray"
        if '"array"' not in (path / "zarr.json").read_text(encoding="utf-8", errors="replace"):
            return "it is a zarr group; give the path of one array inside it"
        return None

    def read(self, path: Path) -> Volume:
        """Open lazily.

        Raises
        ------
        DataError
            If the metadata is damaged or the array is not (Z, Y, X[, C]).
        """
        import zarr

        try:
            array = zarr.open_array(str(path), mode="r")
            attributes = dict(array.attrs)
        except Exception as error:  # damaged metadata fails in many ways
            raise DataError(f"{path} is not a readable zarr array ({type(error).__name__}: {error}).") from error
        stored = attributes.get(ATTRIBUTE)
        volume = Volume.from_array(array, name=path.stem)
        return Volume(volume.source, _voxel_size(stored), path.stem, path)


class ZarrWriter:
    """Writes a zarr format 3 array in chunks of 16 x 256 x 256 voxels, compressed."""

    suffixes = (".zarr",)

    def size(self, volume: Volume) -> int:
        """Return the bytes needed if nothing compresses."""
        return volume.nbytes

    def steps(self, volume: Volume, path: Path) -> Iterator[int]:
        """Write slab by slab, 16 sections in memory at a time, and yield how many are written after each."""
        import zarr

        chunks = tuple(min(c, n) for c, n in zip(CHUNK, volume.shape, strict=False)) + volume.shape[3:]
        names = AXES[: len(volume.shape)]
        size: dict[str, Any] = {} if volume.voxel_nm is None else {ATTRIBUTE: list(volume.voxel_nm)}
        array = zarr.create_array(
            str(path), shape=volume.shape, chunks=chunks, dtype=volume.dtype, dimension_names=names, attributes=size
        )
        for z in range(0, volume.shape[0], chunks[0]):
            slab = (slice(z, min(z + chunks[0], volume.shape[0])),)
            array[slab] = volume.read(slab)
            yield slab[0].stop


READER = ZarrReader()
WRITER = ZarrWriter()


def _voxel_size(stored: Any) -> VoxelSize | None:
    try:
        return check_voxel_size(np.asarray(stored, float).tolist())
    except (TypeError, ValueError, DataError):  # another program's attribute of the same name, or none
        return None
