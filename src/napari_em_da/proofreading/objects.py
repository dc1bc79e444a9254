"""Operators on whole objects: merge, delete, relabel and renumber."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.measurements._blocks import blocks, check_labels
from napari_em_da.metrics._base import Region, load
from napari_em_da.proofreading.edits import Edit
from napari_em_da.proofreading.search import Spacing, check_ids, check_spacing, free, locate


def merge(
    labels: Any, ids: Sequence[int], *, keep: Literal["first", "smallest"] = "first", region: Region | None = None
) -> Edit:
    """Give several objects one id.

    Parameters
    ----------
    labels : integer numpy, dask or zarr array (Z, Y, X)
        Not changed; all operators return an `Edit` for it.
    ids : sequence of at least two different ids
    keep : {"first", "smallest"}
        Which id all get.
    region : tuple of slices, optional
        A box that holds the objects; by default it is searched for, which reads the volume once.

    Raises
    ------
    DataError
        If an id does not occur; the nearest ones are named.
    """
    wanted = check_ids(ids)
    if len(set(wanted)) < 2:
        raise ConfigError(f"ids={wanted} must name at least two different objects.")
    if keep not in ("first", "smallest"):
        raise ConfigError(f"keep={keep!r} must be 'first' or 'smallest'.")
    target = wanted[0] if keep == "first" else min(wanted)
    region = locate(labels, wanted, region)
    before = load(labels, region)
    after = before.copy()
    for i in wanted:
        after[before == i] = target
    return Edit.between(region, before, after, f"Merge {', '.join(map(str, wanted))} into {target}")


def delete(
    labels: Any,
    id: int,
    *,
    fill: Literal["background", "neighbours"] = "background",
    spacing: Spacing = (1.0, 1.0, 1.0),
    region: Region | None = None,
) -> Edit:
    """Remove an object.

    Parameters
    ----------
    fill : {"background", "neighbours"}
        What takes its place; with "neighbours" each voxel goes to the nearest of the objects that touch it (corners
        count), and to the background if none does.
    spacing : (z, y, x)
        Voxel size, for distances.
    region : as for `merge`

    Raises
    ------
    DataError
        If the id does not occur; the nearest ones are named.
    """
    if fill not in ("background", "neighbours"):
        raise ConfigError(f"fill={fill!r} must be 'background' or 'neighbours'.")
    region = locate(labels, check_ids(id), region, (1, 1, 1))
    before = load(labels, region)
    gone = before == id
    after = before.copy()
    after[gone] = 0
    if fill == "neighbours":
        touching = ndimage.binary_dilation(gone, np.ones((3, 3, 3))) & objects(after)
        if touching.any():
            nearest = ndimage.distance_transform_edt(
                ~touching, sampling=check_spacing(spacing), return_distances=False, return_indices=True
            )
            after[gone] = before[tuple(nearest[:, gone])]
    return Edit.between(region, before, after, f"Delete {id}")


def relabel(labels: Any, old: int, new: int, *, region: Region | None = None) -> Edit:
    """Give an object another id, which must be free.

    Raises
    ------
    DataError
        If ``old`` does not occur, ``new`` does (anywhere, or in ``region`` if that is given), or the dtype is too
        small for it.
    """
    check_ids([old, new])
    free(labels.dtype, new)
    where = locate(labels, [old], region)
    taken = [where] if region is not None else blocks(labels)
    if old != new and any((load(labels, r) == new).any() for r in taken):
        raise DataError(f"The id {new} belongs to another object; merge {old} and {new} if they are one.")
    before = load(labels, where)
    after = before.copy()
    after[before == old] = new
    return Edit.between(where, before, after, f"Relabel {old} to {new}")


def compact(labels: Any) -> Edit:
    """Renumber all objects 1, 2, …, in the order of their ids; the edit holds the volume twice."""
    check_labels(labels)
    whole = tuple(slice(0, n) for n in labels.shape)
    before = load(labels, whole)
    inside = objects(before)
    found, place = np.unique(before[inside], return_inverse=True)
    after = before.copy()
    after[inside] = place + 1
    return Edit.between(whole, before, after, f"Renumber {found.size} objects")


def objects(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where objects are: neither background nor 2^64 − 1 (not labelled)."""
    inside: npt.NDArray[np.bool_] = labels != 0
    return inside & (labels != np.uint64(2**64 - 1)) if labels.dtype == np.uint64 else inside
