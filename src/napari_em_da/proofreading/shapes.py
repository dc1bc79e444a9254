"""Operators on the shape of one object: fill its holes, grow it, shrink it."""

from __future__ import annotations

import math
from typing import Any

import edt
import numpy as np
from scipy import ndimage

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import Region, load
from napari_em_da.proofreading.edits import Edit
from napari_em_da.proofreading.search import Spacing, check_ids, check_spacing, locate

_EVERYWHERE = np.ones((3, 3, 3), np.bool_)
_ROUNDING = 1 + 1e-6  # distances are float32; a voxel at exactly the radius counts


def fill(labels: Any, id: int, *, sections: bool = True, region: Region | None = None) -> Edit:
    """Fill the holes of an object: background that it encloses. Other objects inside of it stay.

    Parameters
    ----------
    sections : bool
        A hole is enclosed within its section (over faces); otherwise on all sides of the volume.
    region : tuple of slices, optional
        A box that holds the object; by default it is searched for, which reads the volume once.

    Raises
    ------
    DataError
        If the id does not occur; the nearest ones are named.
    """
    region = locate(labels, check_ids(id), region)
    before = load(labels, region)
    mask = before == id
    structure = ndimage.generate_binary_structure(3, 1)
    if sections:
        structure[[0, 2]] = False
        mask = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
        filled = np.stack([ndimage.binary_fill_holes(section) for section in mask])[:, 1:-1, 1:-1]
    else:
        filled = ndimage.binary_fill_holes(mask, structure)
    after = before.copy()
    after[filled & (before == 0)] = id
    return Edit.between(region, before, after, f"Fill holes of {id}")


def grow(labels: Any, id: int, radius_nm: float, spacing: Spacing, *, region: Region | None = None) -> Edit:
    """Let an object grow into the background around it.

    Voxels whose centre lies within the radius of a voxel of the object join it, unless another object lies between.

    Parameters
    ----------
    radius_nm : float
        In the unit of the spacing.
    spacing : (z, y, x)
        Voxel size in nm.
    region : tuple of slices, optional
        As for `fill`; the radius around it is added.

    Raises
    ------
    DataError
        If the id does not occur; the nearest ones are named.
    """
    size = _check(radius_nm, spacing)
    region = locate(labels, check_ids(id), region, [math.floor(radius_nm / s) for s in size])
    before = load(labels, region)
    mask = before == id
    near = edt.edt(~mask, anisotropy=size) <= radius_nm * _ROUNDING
    near = ndimage.binary_propagation(mask, _EVERYWHERE, mask=mask | (near & (before == 0)))
    after = before.copy()
    after[near] = id
    return Edit.between(region, before, after, f"Grow {id} by {radius_nm:g} nm")


def shrink(labels: Any, id: int, radius_nm: float, spacing: Spacing, *, region: Region | None = None) -> Edit:
    """Let an object lose its outer layer to the background.

    A voxel goes if the centre of one that does not belong to the object lies within the radius; the object is taken to
    go on beyond the border of the volume.

    Raises
    ------
    DataError
        If the id does not occur, or nothing of it would be left.
    """
    size = _check(radius_nm, spacing)
    region = locate(labels, check_ids(id), region, (1, 1, 1))
    before = load(labels, region)
    mask = before == id
    after = before.copy()
    depth = edt.edt(mask, anisotropy=size)  # infinite if the object fills the volume
    kept = depth > radius_nm * _ROUNDING
    if not kept.any():
        raise DataError(
            f"Nothing of object {id} would be left: its deepest voxel is {depth.max():g} nm inside; "
            f"use a radius below that, not {radius_nm:g}, or delete the object."
        )
    after[mask & ~kept] = 0
    return Edit.between(region, before, after, f"Shrink {id} by {radius_nm:g} nm")


def _check(radius_nm: float, spacing: Spacing) -> tuple[float, ...]:
    if not (math.isfinite(radius_nm) and radius_nm > 0):
        raise ConfigError(f"radius_nm={radius_nm} must be positive.")
    return check_spacing(spacing)
