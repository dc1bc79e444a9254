"""Draw an object on some sections, and let the ones between follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import Region, load
from napari_em_da.proofreading.edits import Edit
from napari_em_da.proofreading.search import check_ids, locate

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
_ROUNDING = 1e-9  # of distances; where both outlines balance, the object is not


def interpolate(
    labels: Any,
    id: int,
    sections: Sequence[int] | None = None,
    *,
    pixel: tuple[float, float] = (1.0, 1.0),
    align: bool = False,
    region: Region | None = None,
) -> Edit:
    """Interpolate an object between the sections on which it was drawn.

    The signed distance to its outline (positive inside) is interpolated linearly between two such sections, and the
    object is where that is positive. Only background is painted; on the sections between, the object's own former
    voxels are replaced, those of others stay.

    Parameters
    ----------
    labels : integer numpy, dask or zarr array (Z, Y, X)
    sections : sequence of int, optional
        Where it was drawn; by default every section on which it occurs.
    pixel : (y, x)
        Size of a pixel, for distances.
    align : bool
        Move the outline along the line between the centroids, for thin objects that do not overlap from one drawn
        section to the next.
    region : tuple of slices, optional
        A box that holds the object; by default it is searched for, which reads the volume once.

    Raises
    ------
    DataError
        If the object is missing from a named section, is drawn on fewer than two, or vanishes between two.

    References
    ----------
    Raya & Udupa (1990), Shape-based interpolation of multidimensional objects.
    """
    if len(pixel) != 2 or any(not s > 0 for s in pixel):
        raise ConfigError(f"pixel={pixel} must be two positive numbers, its size y, x.")
    region = locate(labels, check_ids(id), region)
    before = load(labels, region)
    drawn = _drawn(before == id, region[0].start, sections, id)
    after = before.copy()
    for low, high in zip(drawn, drawn[1:], strict=False):
        for z, mask in _between(before[low] == id, before[high] == id, high - low, pixel, align):
            if not mask.any():
                raise DataError(
                    f"Object {id} vanishes on section {region[0].start + low + z}, between {region[0].start + low} and "
                    f"{region[0].start + high}, where its outlines do not overlap; draw it on one between, or use "
                    "align=True."
                )
            section = after[low + z]
            section[section == id] = 0
            section[mask & (section == 0)] = id
    return Edit.between(region, before, after, f"Interpolate {id} between {len(drawn)} sections")


def _drawn(mask: Mask, start: int, sections: Sequence[int] | None, id: int) -> list[int]:
    """Return the drawn sections, counted from the region's first one."""
    present = set(np.flatnonzero(mask.any((1, 2))).tolist())
    drawn = sorted(present if sections is None else {int(z) - start for z in sections})
    for z in drawn:
        if z not in present:
            others = ", ".join(str(start + p) for p in sorted(present))
            raise DataError(f"Object {id} is not on section {start + z}; it is on {others}.")
    if len(drawn) < 2:
        raise DataError(f"Object {id} is drawn on {len(drawn)} section; interpolation needs at least two.")
    return drawn


def _between(first: Mask, last: Mask, gap: int, pixel: tuple[float, float], align: bool) -> list[tuple[int, Mask]]:
    """Return the masks 1 to gap − 1 sections after the first."""
    if gap < 2:
        return []
    move = np.zeros(2)
    if align:
        move = np.subtract(ndimage.center_of_mass(last), ndimage.center_of_mass(first))
    # room for an outline that moves out of the box, before it moves back in
    room = int(np.ceil(np.abs(move).max(initial=0)))
    a, b = (_signed_distance(np.pad(mask, room), pixel) for mask in (first, last))
    inner = tuple(slice(room, room + n) for n in first.shape)
    found = []
    for z in range(1, gap):
        mixed = (gap - z) * _moved(a, z / gap * move) + z * _moved(b, (z / gap - 1) * move)
        found.append((z, mixed[inner] > _ROUNDING * gap))
    return found


def _signed_distance(mask: Mask, pixel: tuple[float, float]) -> Floats:
    """Return the distance to the nearest pixel of the other kind, negative outside."""
    padded = np.pad(mask, 1)  # so that there is an outside; the outline ends at the edge of the section, too
    inside, outside = (ndimage.distance_transform_edt(m, sampling=pixel) for m in (padded, ~padded))
    signed: Floats = (inside - outside)[1:-1, 1:-1]
    return signed


def _moved(distance: Floats, by: npt.NDArray[np.float64]) -> Floats:
    if not by.any():
        return distance
    moved: Floats = ndimage.shift(distance, by, order=1, mode="nearest")
    return moved
