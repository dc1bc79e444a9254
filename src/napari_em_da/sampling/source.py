"""One volume, checked, indexed and ready to be read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_em_da.augment.geometry import Box
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.lazy import computed
from napari_em_da.sampling.positions import Sliceable, class_voxels
from napari_em_da.volume import Intensity, Volume

Array = npt.NDArray[Any]
EVERYWHERE = (slice(None), slice(None), slice(None))
SAME_SPACING = 0.02  # sections whose spacing differs by less are taken as they are


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
    section_step : float
        Sections per training section, at least 1.
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
    section_step: float
    image: Array | None
    intensity: Intensity
    voxels: tuple[Array, ...]

    def read(self, boxes: Sequence[Box]) -> Array:
        """Read raw intensities, joined along z."""
        return _join([self.source.volume.read(box) if self.image is None else self.image[box] for box in boxes])

    def read_inside(self, array: Sliceable, boxes: Sequence[Box], fill: int, dtype: npt.DTypeLike) -> Array:
        """Read labels or weights; what lies outside the region is ``fill``, whatever the array holds there."""
        return _join([self._read_inside(array, box, fill, dtype) for box in boxes])

    def _read_inside(self, array: Sliceable, box: Box, fill: int, dtype: npt.DTypeLike) -> Array:
        block = np.full([s.stop - s.start for s in box], fill, dtype)
        inner = [slice(max(b.start, r.start), min(b.stop, r.stop)) for b, r in zip(box, self.region, strict=True)]
        if all(s.stop > s.start for s in inner):
            local = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(inner, box, strict=True))
            block[local] = np.asarray(computed(array[tuple(inner)]))
        return block


def prepare(
    source: Source, pixel_nm: float | None, section_nm: float | None, classes: int, memory_bytes: int
) -> Prepared:
    """Check a source, index its labels, and hold its voxels in memory if they fit.

    Raises
    ------
    ConfigError, DataError
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
    sections = 1.0 if section_nm is None else section_step(volume, section_nm)
    return Prepared(source, shape, (z, y, x), step, sections, image, volume.intensity, voxels)


def section_step(volume: Volume, section_nm: float) -> float:
    """Return how many sections of a volume make one training section, at least 1.

    Raises
    ------
    ConfigError
        If the volume's sections lie further apart than that: the ones between do not exist, and repeating sections
        would show the network cells that are flat.
    DataError
        If the volume has no voxel size.
    """
    if volume.voxel_nm is None:
        raise DataError(
            f"{volume.name} has no voxel size, so section_nm {section_nm:g} means nothing; give its voxel_nm."
        )
    step = section_nm / volume.voxel_nm[0]
    if step < 1 - SAME_SPACING:
        raise ConfigError(
            f"sampling.section_nm is {section_nm:g}, but the sections of {volume.name} are {volume.voxel_nm[0]:g} nm "
            f"apart; set section_nm to {volume.voxel_nm[0]:g} or more, or leave it out."
        )
    return step if step > 1 + SAME_SPACING else 1.0


def _join(blocks: list[Array]) -> Array:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _voxels_per_pixel(volume: Volume, pixel_nm: float | None) -> Array:
    if pixel_nm is None:
        return np.eye(2)
    if volume.voxel_nm is None:
        raise DataError(f"{volume.name} has no voxel size, so pixel_nm {pixel_nm:g} means nothing; give its voxel_nm.")
    factors = pixel_nm / np.array(volume.voxel_nm[1:])
    return np.diag(np.where(np.abs(factors - 1) < 1e-6, 1.0, factors))  # the volume's own pixels stay exact copies
