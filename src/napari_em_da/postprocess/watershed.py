"""Seeded watershed: objects of a probability map, parted where they are narrow.

Objects are what is more probable than not; the peaks of their distance to the outside are the seeds of a watershed
(Beucher & Lantuéjoul 1979). Thick sections are flooded one by one and linked along z.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Count, Fraction, NonNegative, Positive, VoxelSize
from napari_em_da.config import Options as Base
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess._affinities import boundary_of
from napari_em_da.postprocess._base import Depth, Stack, Step, Work
from napari_em_da.postprocess._flood import flood

Map = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]
ANISOTROPIC = 3.0  # from above this ratio of section thickness to pixel on, sections are flooded one by one
SEED_DISTANCE_PX = 5


class Options(Base):
    """Options of the seeded watershed."""

    kind: Literal["membrane", "object"] = Field("object", description="What the class is: membranes, or objects")
    channel: str | None = Field(None, description="Name of that class; the second one of two if absent")
    level: Fraction = Field(0.5, description="Object is what has more than this probability of being one")
    dimensions: Literal["auto", "2d", "3d"] = Field(
        "auto", description="Per section and linked, or in 3D; auto: 2d where voxels are more than 3 times thicker"
    )
    flood: Literal["distance", "probability"] = Field(
        "distance", description="Floods meet where objects are narrow, or on ridges of the membrane probability"
    )
    smooth_px: NonNegative = Field(2.0, description="Gaussian sigma of the distance, in pixels of the plane")
    seed_spacing_nm: Positive | None = Field(None, description="Smallest distance of two seeds; 5 pixels if absent")
    seed_radius_nm: Positive | None = Field(
        None, description="Instead of peaks, seeds are the pieces farther from the outside than this"
    )
    min_iou: Fraction = Field(0.5, description="Objects of adjacent sections are one if their IoU exceeds this")
    halo_px: Count = Field(64, description="Context around blocks of a lazy stack, in pixels of the plane")


def seeded_watershed(
    probability: npt.NDArray[Any],
    *,
    spacing: VoxelSize = (1.0, 1.0, 1.0),
    level: float = 0.5,
    dimensions: Literal["auto", "2d", "3d"] = "auto",
    on: Literal["distance", "probability"] = "distance",
    smooth_px: float = 2.0,
    seed_spacing: float | None = None,
    seed_radius: float | None = None,
    min_iou: float = 0.5,
) -> Ids:
    """Part the objects of a probability map.

    Parameters
    ----------
    probability : (Z, Y, X) float, 0 to 1
        Of being inside an object.
    spacing : (z, y, x)
        Voxel size, in the unit of ``seed_spacing`` and ``seed_radius``.
    level : float
        Objects are where the probability is larger.
    dimensions : {"auto", "2d", "3d"}
        "2d" floods each section and links the objects along z (`link_sections`); "auto" does so where voxels are more
        than three times thicker than wide.
    on : {"distance", "probability"}
        What is flooded: minus the smoothed distance, or one minus the probability.
    smooth_px : float
        Sigma of the Gaussian that smooths the distance, in pixels of the plane (the same length along z).
    seed_spacing : float, optional
        A seed is the largest distance within so far of itself along each axis; 5 pixels by default.
    seed_radius : float, optional
        Seeds are instead the connected pieces with a larger distance than this.
    min_iou : float
        Of `link_sections`.

    Returns
    -------
    (Z, Y, X) uint32
        Ids 1, 2, …; 0 outside of objects.

    Notes
    -----
    A connected object that is given no seed, for it is small and near a larger one, or thin, is one seed as a whole:
    nothing that is object is lost.

    References
    ----------
    Beucher & Lantuéjoul (1979), Use of watersheds in contour detection.
    """
    height = np.asarray(probability, np.float32)
    mask = height > level
    boundary = 1 - height if on == "probability" else None
    spaced = SEED_DISTANCE_PX * spacing[2] if seed_spacing is None else seed_spacing

    def part(box: Any, steps: tuple[float, ...]) -> Ids:
        return _part(mask[box], None if boundary is None else boundary[box], steps, smooth_px, spaced, seed_radius)

    if by_section(dimensions, height.shape[0], spacing):
        return link_sections(np.stack([part(z, spacing[1:]) for z in range(len(mask))]), min_iou)
    return part(..., spacing)


def by_section(dimensions: str, sections: int, spacing: VoxelSize | None) -> bool:
    """Return whether sections are flooded one by one.

    Raises
    ------
    ConfigError
        If that depends on a voxel size that nobody said.
    """
    if dimensions != "auto" or sections == 1:
        return dimensions != "3d" or sections == 1
    if spacing is None:
        raise ConfigError("Whether to flood in 2D or 3D depends on the voxel size; give voxel_nm, or dimensions.")
    return spacing[0] / spacing[2] > ANISOTROPIC


def _part(
    mask: Mask,
    boundary: Map | None,
    spacing: tuple[float, ...],
    smooth_px: float,
    seed_spacing: float,
    seed_radius: float | None,
) -> Ids:
    import edt
    from scipy import ndimage

    if not mask.any():
        return np.zeros(mask.shape, np.uint32)
    distance = edt.edt(np.ascontiguousarray(mask), anisotropy=spacing, black_border=False, parallel=1)
    # Infinite without any outside: then the whole is one object with one seed, wherever it lies.
    np.minimum(distance, np.float32(np.dot(mask.shape, spacing)), out=distance)
    if smooth_px:
        distance = ndimage.gaussian_filter(distance, [smooth_px * spacing[-1] / s for s in spacing], truncate=4.0)
    seeds = _peaks(distance, spacing, seed_spacing) if seed_radius is None else distance > seed_radius
    seeds &= mask
    pieces, count = ndimage.label(mask)
    seeded = np.zeros(count + 1, np.bool_)
    seeded[pieces[seeds]] = True
    seeds |= mask & ~seeded[pieces]
    markers, _ = ndimage.label(seeds)
    return flood(-distance if boundary is None else boundary, markers, mask)


def _peaks(distance: Map, spacing: tuple[float, ...], apart: float) -> Mask:
    """Mark the largest distance within ``apart`` along each axis; a plateau, or equals that close, are one peak."""
    from scipy import ndimage
    from scipy.spatial import cKDTree

    reach = [max(1, int(apart / s)) for s in spacing]
    top = (distance == ndimage.maximum_filter(distance, [2 * r + 1 for r in reach])) & (distance > 0)
    plateaus, count = ndimage.label(top, np.ones((3,) * distance.ndim))
    places = np.flatnonzero(top)
    first = places[np.unique(plateaus.ravel()[places], return_index=True)[1]]
    where = np.stack(np.unravel_index(first, distance.shape), 1) / np.array(reach)
    near = cKDTree(where).query_pairs(1.0, p=np.inf, output_type="ndarray") if count else np.empty((0, 2), int)
    dropped = np.zeros(count, np.bool_)
    for one, other in near[np.lexsort((near[:, 1], near[:, 0]))]:
        if not dropped[one]:
            dropped[other] = True
    peaks = np.zeros(distance.shape, np.bool_)
    peaks.ravel()[first[~dropped]] = True
    return peaks


def link_sections(labels: npt.NDArray[np.integer], min_iou: float = 0.5) -> Ids:
    """Give objects of adjacent sections one id where they overlap enough.

    Two objects are linked if their intersection over union exceeds ``min_iou`` and neither has a better partner; of
    equal partners the one with the smaller id counts. Above 0.5 there is never more than one.

    Parameters
    ----------
    labels : (Z, Y, X) integer
        Ids of each section for itself; 0 is background.
    min_iou : float

    Returns
    -------
    (Z, Y, X) uint32
        Ids 1, 2, … in the order in which objects begin along z.

    References
    ----------
    Jaccard (1912), The distribution of the flora in the alpine zone (intersection over union).
    """
    out = np.zeros(labels.shape, np.uint32)
    last = 0
    before, numbers = np.zeros(labels.shape[1:], np.int64), np.zeros(1, np.int64)
    for section, result in zip(labels, out, strict=True):
        ids, flat = np.unique(section, return_inverse=True)
        now = flat.reshape(section.shape) + (1 if ids[0] != 0 else 0)
        count = len(ids) - (ids[0] == 0)
        own = np.zeros(count + 1, np.int64)
        for old, new in _partners(before, now, len(numbers), count + 1, min_iou):
            own[new] = numbers[old]
        fresh = np.flatnonzero(own[1:] == 0) + 1
        own[fresh] = last + 1 + np.arange(len(fresh))
        last += len(fresh)
        result[...] = own[now]
        before, numbers = now, own
    return out


def _partners(
    before: npt.NDArray[np.int64], now: npt.NDArray[np.int64], rows: int, columns: int, min_iou: float
) -> npt.NDArray[np.int64]:
    """Return (n, 2) pairs of ids that are each other's best partner."""
    pairs, both = np.unique(before.ravel() * columns + now.ravel(), return_counts=True)
    old, new = pairs // columns, pairs % columns
    union = np.bincount(before.ravel(), minlength=rows)[old] + np.bincount(now.ravel(), minlength=columns)[new] - both
    iou = both / union
    kept = (old > 0) & (new > 0) & (iou > min_iou)
    old, new, iou = old[kept], new[kept], iou[kept]
    best = np.lexsort((new, old, -iou))
    chosen, olds, news = [], set(), set()
    for pair in best:
        o, n = int(old[pair]), int(new[pair])
        if o not in olds and n not in news:
            chosen.append((o, n))
        olds.add(o)
        news.add(n)
    return np.array(chosen, np.int64).reshape(-1, 2)


def apply(stack: Stack, options: Options) -> Stack | Work:
    """Part the objects of a stack.

    Notes
    -----
    A lazy stack is done block by block with a halo of ``halo_px``, in 2D of one section along z; objects that reach
    farther into a neighbouring block may be parted there elsewhere than in one piece.

    Raises
    ------
    ConfigError
        If a class is unknown, or the voxel size is and an option needs it.
    """
    boundary_of(stack, options.kind, options.channel)  # a class that does not exist is told before any work
    flat = by_section(options.dimensions, stack.shape[0], stack.voxel_nm)
    needs_nm = options.seed_spacing_nm is not None or options.seed_radius_nm is not None
    spacing = stack.nm() if needs_nm else stack.voxel_nm or (1.0, 1.0, 1.0)

    def function(block: Stack) -> Ids:
        return seeded_watershed(
            1 - boundary_of(block, options.kind, options.channel),
            spacing=spacing,
            level=options.level,
            dimensions="2d" if flat else "3d",
            on=options.flood,
            smooth_px=options.smooth_px,
            seed_spacing=options.seed_spacing_nm,
            seed_radius=options.seed_radius_nm,
            min_iou=options.min_iou,
        )

    if not stack.lazy:
        return stack.with_data(function(stack), "instances")
    from napari_em_da.postprocess._blocks import instances_by_block

    z = 1 if flat else math.ceil(options.halo_px * spacing[2] / spacing[0])
    depth: Depth = (z, options.halo_px, options.halo_px)
    return instances_by_block(stack, function, depth, repr((options, stack.voxel_nm, stack.classes)))


STEP = Step(Options, ("probabilities",), "instances", apply)
