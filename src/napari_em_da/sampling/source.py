"""One volume, checked, indexed and ready to be read window by window."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_em_da.augment.geometry import Box
from napari_em_da.errors import DataError
from napari_em_da.sampling.positions import Sliceable, class_voxels
from napari_em_da.volume import Intensity, Volume

Array = npt.NDArray[Any]
EVERYWHERE = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, eq=False)
class Source:
    """One volume to draw windows from.

    Attributes
    ----------
    volume : Volume
        One channel.
    labels : array-like (Z, Y, X) of class indices, 255 = not annotated, optional
    weights : array-like (Z, Y, X), optional
    region : three slices
        Where windows may be centred. Labels outside it are never seen; intensities may be, as context.
    """

    volume: Volume
    labels: Sliceable | None = field(default=None, repr=False)
    weights: Sliceable | None = field(default=None, repr=False)
    region: tuple[slice, slice, slice] = EVERYWHERE


class Prepared(NamedTuple):
    """A source, checked and indexed.

    Attributes
    ----------
    source : Source
    shape : (z, y, x)
    region : three slices with bounds
    step : (2, 2) float64
        Voxels per training pixel.
    image : (Z, Y, X) array or None
        The whole volume, where it fits in memory.
    intensity : Intensity
    voxels : tuple of int64 arrays
        Flat positions of the voxels of each class that is present; empty without labels.
    """

    source: Source
    shape: tuple[int, int, int]
    region: Box
    step: Array
    image: Array | None
    intensity: Intensity
    voxels: tuple[Array, ...]

    def read(self, box: Box) -> Array:
        """Read raw intensities."""
        return self.source.volume.read(box) if self.image is None else self.image[box]

    def read_inside(self, array: Sliceable, box: Box, fill: int, dtype: npt.DTypeLike) -> Array:
        """Read labels or weights; what lies outside the region is ``fill``, whatever the array holds there."""
        block = np.full([s.stop - s.start for s in box], fill, dtype)
        inner = [slice(max(b.start, r.start), min(b.stop, r.stop)) for b, r in zip(box, self.region, strict=True)]
        if all(s.stop > s.start for s in inner):
            local = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(inner, box, strict=True))
            block[local] = np.asarray(array[tuple(inner)])
        return block


def prepare(source: Source, pixel_nm: float | None, classes: int, memory_bytes: int) -> Prepared:
    """Check a source, index its labels, and hold its voxels in memory if they fit.

    Raises
    ------
    DataError
        See `Sampler`.
    """
    volume = source.volume
    name = volume.name
    if len(volume.shape) != 3:
        raise DataError(f"{name} has shape {volume.shape}; windows need one channel (Z, Y, X), so pick one first.")
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    for what, array in (("labels", source.labels), ("weights", source.weights)):
        if array is not None and tuple(array.shape) != shape:
            found = tuple(array.shape)
            raise DataError(f"The {what} of {name} have shape {found}, its image {shape}; crop them to agree.")
    z, y, x = (slice(*s.indices(n)[:2]) for s, n in zip(source.region, shape, strict=True))
    if any(s.stop <= s.start for s in (z, y, x)):
        raise DataError(f"The region {source.region} of {name}, shape {shape}, is empty; widen it.")
    step = _voxels_per_pixel(volume, pixel_nm)
    voxels = () if source.labels is None else class_voxels(source.labels, (z, y, x), classes, name)
    image = volume.read() if volume.nbytes <= memory_bytes else None
    return Prepared(source, shape, (z, y, x), step, image, volume.intensity, voxels)


def _voxels_per_pixel(volume: Volume, pixel_nm: float | None) -> Array:
    if pixel_nm is None:
        return np.eye(2)
    if volume.voxel_nm is None:
        raise DataError(f"{volume.name} has no voxel size, so pixel_nm {pixel_nm:g} means nothing; give its voxel_nm.")
    factors = pixel_nm / np.array(volume.voxel_nm[1:])
    return np.diag(np.where(np.abs(factors - 1) < 1e-6, 1.0, factors))  # the volume's own pixels stay exact copies
