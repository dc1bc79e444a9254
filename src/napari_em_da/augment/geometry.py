"""Where a window's pixels come from: one in-plane inverse map shared by image, labels and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_em_da.augment.elastic import coarse_displacement, elastic_displacement
from napari_em_da.augment.piecewise_affine import piecewise_affine_displacement
from napari_em_da.config import AugmentConfig

Array = npt.NDArray[Any]
Box = tuple[slice, slice, slice]
SMALLEST_BLUR_PX = 0.25  # a narrower Gaussian leaves the pixels as they are


@dataclass(frozen=True)
class Deformation:
    """What augmentation does to the geometry of a window.

    Attributes
    ----------
    matrix : (2, 2) float64
        From output offsets (y, x) to input offsets.
    displacement : (2, Y, X) float32, optional
        Added to the output positions (y, x) before the matrix, in output pixels.
    flip_z : bool
    """

    matrix: Array
    displacement: Array | None = None
    flip_z: bool = False


IDENTITY = Deformation(np.eye(2))


def random_deformation(augment: AugmentConfig, size: Sequence[int], rng: np.random.Generator) -> Deformation:
    """Draw flips, rotation, magnification and the deformation fields of one window.

    Parameters
    ----------
    augment : AugmentConfig
    size : (z, y, x)
        Of the window; z is 1 for 2D, which is then never flipped.
    rng : numpy Generator

    Notes
    -----
    Piecewise affine and elastic fields are added, not composed: both are small beside the window.
    """
    matrix = np.eye(2)
    if augment.flip:
        matrix = np.diag(rng.choice((-1.0, 1.0), 2))
    if augment.rotate90:
        matrix = matrix @ np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), int(rng.integers(4)))
    if augment.rotate_deg:
        angle = np.deg2rad(rng.uniform(-augment.rotate_deg, augment.rotate_deg))
        matrix = matrix @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if augment.scale != (1.0, 1.0):
        matrix = matrix / np.exp(rng.uniform(*np.log(augment.scale)))
    plane = (int(size[1]), int(size[2]))
    fields = []
    if rng.random() < augment.piecewise_affine:
        fields.append(piecewise_affine_displacement(plane, rng.uniform(*augment.piecewise_affine_strength), rng))
    if rng.random() < augment.elastic:
        if augment.elastic_kind == "coarse":
            fields.append(coarse_displacement(plane, rng, augment.elastic_px))
        else:
            fields.append(elastic_displacement(plane, rng, augment.elastic_px, augment.elastic_spacing_px))
    flip_z = augment.flip and size[0] > 1 and rng.random() < 0.5
    return Deformation(matrix, sum(fields[1:], fields[0]) if fields else None, bool(flip_z))


def section_offsets(count: int, step: float = 1.0) -> tuple[int, ...]:
    """Return how far the sections of a window lie behind its first: multiples of ``step`` >= 1, to the nearest."""
    return tuple(range(count)) if step == 1 else tuple(floor(i * step + 0.5) for i in range(count))


def place(
    centre: Sequence[float] | Array,
    region: Box,
    size: Sequence[int],
    matrix: Array,
    margin: Sequence[int] = (0, 0, 0),
    section_step: float = 1.0,
) -> tuple[float, float, float]:
    """Shift a centre so that the window covers as much of a region as it can.

    A window that fits lies wholly inside; one that is larger than the region covers all of it. Deformation fields
    are left out of account.

    Where sections are skipped, the section of the centre is always among those that are taken, or sparse annotation
    would be missed. The window leaves the region for that by less than a step, and only where it hardly fits.

    Parameters
    ----------
    centre : (z, y, x)
        In voxels; a whole number is the middle of a voxel.
    region : three slices with bounds
    size : (z, y, x)
        Of the window in output pixels.
    matrix : (2, 2)
        From output offsets to input offsets.
    margin : (z, y, x)
        What the labelled part lacks on each side of the window; only that part is fitted.
    section_step : float
        Input sections per section of the window, at least 1.

    Returns
    -------
    (z, y, x)
        On the half-voxel lattice that makes every input position whole wherever the matrix allows it.
    """
    full = _half_extent(np.asarray(size), matrix)
    half = _half_extent(np.asarray(size) - 2 * np.asarray(margin), matrix)
    first = np.array([s.start for s in region]) + half
    last = np.array([s.stop - 1 for s in region]) - half
    at = np.clip(np.asarray(centre, float), np.minimum(first, last), np.maximum(first, last))
    exact = np.array([True, *([is_lattice(matrix)] * 2)])
    z, y, x = np.where(exact, np.floor(at - full + 0.5) + full, at)
    if section_step != 1:
        z = _middle(int(centre[0]), region[0], section_offsets(size[0], section_step), margin[0])
    return float(z), float(y), float(x)


def _middle(section: int, span: slice, offsets: tuple[int, ...], margin: int) -> float:
    """Return the middle of the window that takes ``section``, the nearest one to the span of sections."""
    labelled = offsets[margin : len(offsets) - margin]
    low, high = sorted((span.start - labelled[0], span.stop - 1 - labelled[-1]))
    wanted = section - labelled[(len(labelled) - 1) // 2]
    firsts = [section - offset for offset in labelled]
    first = min(firsts, key=lambda n: (max(low - n, n - high, 0), abs(n - wanted)))
    return first + offsets[-1] / 2


def is_lattice(matrix: Array) -> bool:
    """Tell whether a matrix only permutes and flips the axes, so that no interpolation is needed."""
    return bool(np.isin(np.abs(matrix), (0.0, 1.0)).all()) and abs(np.linalg.det(matrix)) == 1.0


@dataclass(frozen=True, eq=False)
class Window:
    """A window placed in a volume: the voxels it needs, and how they become its pixels.

    Attributes
    ----------
    shape : (z, y, x)
        Of the volume.
    size : (z, y, x)
        Of the window; z is 1 for 2D.
    centre : (z, y, x)
        Input position of the window's middle.
    deformation : Deformation
    section_step : float
        Input sections per output section, at least 1; the nearest sections are taken as they are.

    Notes
    -----
    The map acts in the plane, and is the same for all sections of the window. Along z nothing is interpolated.
    """

    shape: tuple[int, int, int]
    size: tuple[int, int, int]
    centre: tuple[float, float, float]
    deformation: Deformation = IDENTITY
    section_step: float = 1.0

    @cached_property
    def sections(self) -> tuple[int, ...]:
        """Section number of every output section; may lie outside the volume."""
        offsets = section_offsets(self.size[0], self.section_step)
        first = round(self.centre[0] - offsets[-1] / 2)
        numbers = tuple(first + offset for offset in offsets)
        return numbers[::-1] if self.deformation.flip_z else numbers

    @cached_property
    def positions(self) -> Array:
        """Input position (y, x) of every output pixel, relative to the window's centre; (2, Y, X) float32."""
        matrix = self.deformation.matrix.astype(np.float32)
        y = (np.arange(self.size[1], dtype=np.float32) - (self.size[1] - 1) / 2)[:, None]
        x = (np.arange(self.size[2], dtype=np.float32) - (self.size[2] - 1) / 2)[None, :]
        if self.deformation.displacement is not None:
            y = y + self.deformation.displacement[0]
            x = x + self.deformation.displacement[1]
        return np.stack([matrix[0, 0] * y + matrix[0, 1] * x, matrix[1, 0] * y + matrix[1, 1] * x])

    @cached_property
    def box(self) -> Box:
        """The voxels to read: everything the map touches, and what mirrors into it at the volume's faces."""
        pad = int(np.ceil(2 * max(self._blur_px)))
        spans = [_span(min(self.sections), max(self.sections), self.shape[0])]
        for axis in (0, 1):
            low = self.centre[axis + 1] + float(self.positions[axis].min())
            high = self.centre[axis + 1] + float(self.positions[axis].max())
            spans.append(_span(int(np.floor(low)) - pad, int(np.ceil(high)) + pad, self.shape[axis + 1]))
        return spans[0], spans[1], spans[2]

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """What to read of ``box``, joined along z: all of it, or where sections are skipped those that are taken."""
        if self.section_step == 1:
            return (self.box,)
        return tuple((slice(z, z + 1), *self.box[1:]) for z in self._planes)

    @property
    def exact(self) -> bool:
        """Whether every pixel is the copy of one voxel."""
        return self.deformation.displacement is None and is_lattice(self.deformation.matrix)

    def image(self, block: Array) -> Array:
        """Resample intensities (the voxels of ``boxes``), bilinear, mirrored at the volume's faces.

        Returns
        -------
        (Z, Y, X) of the block's dtype

        Notes
        -----
        OpenCV rounds positions to 1/32 voxel. Where the map shrinks the image, a Gaussian of (factor - 1) / 2
        voxels first removes what the coarser grid cannot show. A window that only flips and turns is copied.
        """
        if max(self._blur_px) > SMALLEST_BLUR_PX:
            sigma_y, sigma_x = (max(sigma, 1e-3) for sigma in self._blur_px)
            block = np.stack([cv2.GaussianBlur(s, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y) for s in block])
        return self._remap(block, cv2.INTER_NEAREST if self.exact else cv2.INTER_LINEAR, None)

    def labels(self, block: Array, fill: int) -> Array:
        """Resample labels or weights (the voxels of ``boxes``) to the nearest voxel; ``fill`` outside the volume."""
        return self._remap(block, cv2.INTER_NEAREST, fill)

    @cached_property
    def _planes(self) -> Sequence[int]:
        """Section number of every plane of a block of ``boxes``, rising."""
        if self.section_step == 1:
            return range(self.box[0].start, self.box[0].stop)
        return sorted({mirror(z, self.shape[0]) for z in self.sections})

    @cached_property
    def _blur_px(self) -> tuple[float, float]:
        steps = np.hypot(*self.deformation.matrix.T)  # input voxels per output pixel along y and x
        sigma_y, sigma_x = np.maximum(steps - 1, 0) / 2
        return float(sigma_y), float(sigma_x)

    @cached_property
    def _maps(self) -> tuple[Array, Array]:
        y, x = (self.positions[axis] + np.float32(self.centre[axis + 1] - self.box[axis + 1].start) for axis in (0, 1))
        return x, y

    def _remap(self, block: Array, interpolation: int, fill: int | None) -> Array:
        border = cv2.BORDER_REFLECT_101 if fill is None else cv2.BORDER_CONSTANT
        out = np.empty(self.size, block.dtype)
        for target, z in zip(out, self.sections, strict=True):
            if fill is not None and not 0 <= z < self.shape[0]:
                target[...] = fill
                continue
            section = block[self._planes.index(mirror(z, self.shape[0]))]
            cv2.remap(section, *self._maps, interpolation, dst=target, borderMode=border, borderValue=fill or 0)
        return out


def mirror(index: int, length: int) -> int:
    """Reflect an index into ``[0, length)`` without repeating the edge."""
    if length == 1:
        return 0
    index %= 2 * (length - 1)
    return min(index, 2 * (length - 1) - index)


def _half_extent(size: Array, matrix: Array) -> Array:
    half = (size - 1) / 2
    return np.array([half[0], *(np.abs(matrix) @ half[1:])])


def _span(low: int, high: int, length: int) -> slice:
    """Voxels from ``low`` to ``high`` inclusive, inside the axis, with the mirror images of those outside."""
    below, above = -low, 2 * (length - 1) - high  # where the outermost positions reflect to
    if high >= length:
        low = min(low, above)
    if low < 0:
        high = max(high, below)
    return slice(min(max(low, 0), length - 1), min(max(high, 0), length - 1) + 1)
