"""Operators that cut one object into several: by seeds, by a plane, or into its components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import edt
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import Region, load
from napari_em_da.proofreading.edits import Edit
from napari_em_da.proofreading.search import Spacing, check_ids, check_spacing, free, locate, next_id

_RANK = {6: 1, 18: 2, 26: 3}


def split_by_seeds(
    labels: Any,
    id: int,
    seeds: Sequence[npt.ArrayLike],
    *,
    image: Any = None,
    spacing: Spacing = (1.0, 1.0, 1.0),
    new_id: int | None = None,
    region: Region | None = None,
) -> Edit:
    """Cut an object into one part per seed by a watershed inside of it.

    Parameters
    ----------
    labels : integer numpy, dask or zarr array (Z, Y, X)
    seeds : one (3,) point or (n, 3) brush stroke per part, in voxels (z, y, x)
        The first part keeps the id, the others get new ones; a component without a seed keeps the id, too.
    image : array of the same shape, optional
        The cut follows its bright ridges, for example a boundary probability; by default it follows the object's
        narrow places (ridges of the negative distance to its surface).
    spacing : (z, y, x)
        Voxel size, for distances.
    new_id : int, optional
        First of the new ids; by default `next_id`, which reads the whole volume.
    region : tuple of slices, optional
        A box that holds the object; by default it is searched for, which reads the volume once.

    Raises
    ------
    DataError
        If the id does not occur, a seed lies outside of the object or in two parts, or the dtype has no free id.

    References
    ----------
    Meyer (1994), Topographic distance and watershed lines.
    """
    from skimage.segmentation import watershed

    if len(seeds) < 2:
        raise ConfigError(f"{len(seeds)} seed cuts nothing; give one for each part, at least two.")
    if image is not None and tuple(image.shape) != tuple(labels.shape):
        raise DataError(f"The image has shape {tuple(image.shape)} but the labels {tuple(labels.shape)}; crop it.")
    region = locate(labels, check_ids(id), region, (1, 1, 1))
    before = load(labels, region)
    mask = before == id
    markers = _markers(seeds, id, before, region)
    if image is None:
        depth = edt.edt(mask, anisotropy=check_spacing(spacing))
        landscape = np.zeros_like(depth) if mask.all() else -depth  # infinite where there is no outside
    else:
        landscape = load(image, region)
    parts = watershed(landscape, markers, mask=mask)
    return _separated(labels, region, before, parts, id, new_id, f"Split {id} by {len(seeds)} seeds")


def split_by_plane(
    labels: Any,
    id: int,
    point: Sequence[float],
    normal: Sequence[float],
    *,
    spacing: Spacing = (1.0, 1.0, 1.0),
    new_id: int | None = None,
    region: Region | None = None,
) -> Edit:
    """Cut an object in two: voxels on the side that the normal points to get a new id.

    Parameters
    ----------
    point : (z, y, x) in voxels
        A point of the plane; voxels exactly on the plane keep the id.
    normal : (z, y, x)
        Perpendicular to the plane in physical space, of any length.
    spacing, new_id, region : as for `split_by_seeds`

    Raises
    ------
    DataError
        If the id does not occur, the plane misses the object, or the dtype has no free id.
    """
    direction = np.asarray(normal, np.float64)
    if direction.shape != (3,) or not np.isfinite(direction).all() or not direction.any():
        raise ConfigError(f"normal={tuple(normal)} must be three numbers, not all 0.")
    region = locate(labels, check_ids(id), region)
    before = load(labels, region)
    steps = [
        n * s * (np.arange(r.start, r.stop) - p)
        for n, s, r, p in zip(direction, check_spacing(spacing), region, point, strict=True)
    ]
    beyond = steps[0][:, None, None] + steps[1][:, None] + steps[2] > 0
    parts = np.where(before == id, 1 + beyond, 0)
    count = np.bincount(parts.ravel(), minlength=3)
    if not count[1:].all():
        raise DataError(
            f"The plane misses object {id}: all {count[1:].sum()} voxels lie on one side; "
            "move the point into the object."
        )
    return _separated(labels, region, before, parts, id, new_id, f"Split {id} by a plane")


def split_components(
    labels: Any,
    id: int,
    *,
    connectivity: Literal[6, 18, 26] = 26,
    new_id: int | None = None,
    region: Region | None = None,
) -> Edit:
    """Give each connected component of an object its own id; the largest keeps it, the next gets the first new one.

    Parameters
    ----------
    connectivity : {6, 18, 26}
        Which voxels are connected: over faces, over edges too, or over corners too.
    new_id, region : as for `split_by_seeds`

    Raises
    ------
    DataError
        If the id does not occur, or the dtype has no free id.
    """
    if connectivity not in _RANK:
        raise ConfigError(f"connectivity={connectivity} must be 6, 18 or 26.")
    region = locate(labels, check_ids(id), region)
    before = load(labels, region)
    found, count = ndimage.label(before == id, ndimage.generate_binary_structure(3, _RANK[connectivity]))
    order = np.argsort(-np.bincount(found.ravel(), minlength=count + 1)[1:], kind="stable")
    rank = np.zeros(count + 1, np.int64)
    rank[1 + order] = np.arange(1, count + 1)
    return _separated(labels, region, before, rank[found], id, new_id, f"Split {id} into {count} components")


def _separated(
    labels: Any, region: Region, before: npt.NDArray[Any], parts: npt.NDArray[Any], id: int, new: int | None, text: str
) -> Edit:
    """Return the edit that gives parts 2, 3, … new ids."""
    more = max(0, int(parts.max()) - 1)
    after = before.copy()
    if more:
        first = free(before.dtype, next_id(labels) if new is None else check_ids(new)[0], more)
        if new is not None and (clash := before[(before >= first) & (before < first + more)]).size:
            raise DataError(f"The id {clash[0]} belongs to another object; let new_id be free, or leave it out.")
        split = parts > 1
        after[split] = parts[split] - 2 + first
    return Edit.between(region, before, after, text)


def _markers(
    seeds: Sequence[npt.ArrayLike], id: int, before: npt.NDArray[Any], region: Region
) -> npt.NDArray[np.int32]:
    markers = np.zeros(before.shape, np.int32)
    corner = [s.start for s in region]
    for part, seed in enumerate(seeds, start=1):
        points = np.atleast_2d(np.asarray(seed))
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise ConfigError(f"Seed {part} has the shape {np.shape(seed)}; give points (z, y, x) as (n, 3).")
        points = np.rint(points).astype(np.int64)
        inner = points - corner
        inside = ((inner >= 0) & (inner < before.shape)).all(1)
        inside[inside] = before[tuple(inner[inside].T)] == id
        if not inside.all():
            raise DataError(
                f"Seed {part} has the point {tuple(points[~inside][0].tolist())} outside of object {id}; "
                "place every seed in the object."
            )
        where = tuple(inner.T)
        if (taken := markers[where]).any():
            raise DataError(f"Seeds {taken[taken > 0][0]} and {part} share a voxel; keep seeds of two parts apart.")
        markers[where] = part
    return markers
