"""Where an object lies, and which id is free: one pass over blocks, never the whole volume in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.measurements._blocks import around, blocks, check_labels
from napari_em_da.metrics._base import Region, load

Spacing = Sequence[float]
LARGEST = 2**63 - 1
_FIRST_LOOK = 32  # voxels on either side of a point


def bounding_box(labels: Any, ids: int | Sequence[int], near: Sequence[int] | None = None) -> Region:
    """Return the bounding box of an object, or of several together.

    Parameters
    ----------
    labels : integer numpy, dask or zarr array (Z, Y, X)
    ids : int or sequence of ints
    near : (z, y, x), optional
        A voxel of the object. The search then starts there and follows the object as long as it goes on, which reads
        only what is around it, but misses parts of the object that lie elsewhere.

    Raises
    ------
    DataError
        If an id does not occur (the nearest ids that do are named), or is no id of an object.
    """
    check_labels(labels)
    wanted = check_ids(ids)
    if near is not None:
        if len(wanted) != 1:
            raise ConfigError(f"near is a voxel of one object, not of {len(wanted)}; search them one by one.")
        return _follow(labels, wanted[0], near)
    boxes: dict[int, Region] = {}
    for region in blocks(labels):
        block = load(labels, region)
        for i in wanted:
            inner = _box(block == i)
            if inner is not None:
                boxes[i] = _union(boxes.get(i), _shifted(inner, region))
    require(labels, wanted, set(boxes))
    total: Region | None = None
    for box in boxes.values():
        total = _union(total, box)
    if total is None:
        raise ConfigError("No id was given; name at least one.")
    return total


def next_id(labels: Any) -> int:
    """Return the first id above all others, for a new object; 2^64 − 1 (not labelled) does not count.

    Raises
    ------
    DataError
        If the dtype has no larger number.
    """
    check_labels(labels)
    largest = 0
    for region in blocks(labels):
        block = load(labels, region)
        if block.dtype == np.uint64:
            block = block.view(np.int64)
        largest = max(largest, int(block.max()))
    return free(labels.dtype, largest + 1)


def free(dtype: Any, new: int, count: int = 1) -> int:
    """Return ``new`` if ``count`` ids from there on fit the dtype; raise a DataError with the remedy otherwise."""
    dtype = np.dtype(dtype)
    most = 1 if dtype == np.bool_ else min(LARGEST, int(np.iinfo(dtype).max))
    if new + count - 1 > most:
        raise DataError(
            f"{dtype} labels cannot hold the id {new + count - 1}: {most} is the largest. Convert them with "
            "labels.astype('uint32') or 'uint64', or renumber them from 1 with compact()."
        )
    return new


def check_ids(ids: int | Sequence[int]) -> list[int]:
    """Return the ids as a list; raise a DataError for one that no object has."""
    wanted = [int(i) for i in np.atleast_1d(np.asarray(ids, object))]
    for i in wanted:
        if not 0 < i <= LARGEST:
            raise DataError(f"{i} is no id of an object: these lie between 1 and 2^63 - 1, and 0 is the background.")
    return wanted


def require(labels: Any, wanted: Sequence[int], found: set[int]) -> None:
    """Raise a DataError for the first wanted id that was not found, with the nearest ones that occur."""
    for i in wanted:
        if i not in found:
            near = _nearest(labels, i)
            others = f"the nearest ids are {' and '.join(map(str, near))}" if near else "the volume holds no object"
            raise DataError(f"There is no object {i}; {others}.")


def locate(labels: Any, ids: Sequence[int], region: Region | None, margin: Sequence[int] = (0, 0, 0)) -> Region:
    """Return the bounding box of objects, or the box that the caller says holds them, with a margin."""
    low = high = tuple(int(m) for m in margin)
    if region is None:
        return around(bounding_box(labels, ids), labels.shape, low, high)
    check_labels(labels)
    if len(region) != 3 or any(s.step not in (None, 1) for s in region):
        raise ConfigError(f"region={region} must be three slices with step 1.")
    given = tuple(slice(*s.indices(n)[:2]) for s, n in zip(region, labels.shape, strict=True))
    block = load(labels, given)
    require(block, check_ids(ids), {i for i in ids if (block == i).any()})
    return around(given, labels.shape, low, high)


def check_spacing(spacing: Spacing) -> tuple[float, ...]:
    """Return three positive numbers; raise a ConfigError if these are others."""
    if len(spacing) != 3 or any(not 0 < s < np.inf for s in spacing):
        raise ConfigError(f"spacing={tuple(spacing)} must be three positive numbers, the voxel size z, y, x.")
    return tuple(float(s) for s in spacing)


def _nearest(labels: Any, wanted: int) -> list[int]:
    """Return the largest id below and the smallest one above."""
    below, above = 0, LARGEST + 1
    for region in blocks(labels):
        block = load(labels, region)
        if block.dtype == np.uint64:
            block = block.view(np.int64)
        block = block[block > 0]
        below = int(block[block < wanted].max(initial=below)) if wanted > 1 and (block < wanted).any() else below
        higher = block[block > wanted]
        above = min(above, int(higher.min())) if higher.size else above
    return [i for i in (below, above) if 0 < i <= LARGEST]


def _follow(labels: Any, id: int, near: Sequence[int]) -> Region:
    """Look at a growing box around a voxel until the object ends inside of it."""
    start = tuple(slice(int(p), int(p) + 1) for p in near)
    if len(near) != 3 or any(not 0 <= p < n for p, n in zip(near, labels.shape, strict=True)):
        raise DataError(f"near={tuple(near)} lies outside of the volume {labels.shape}.")
    if (held := int(load(labels, start).item())) != id:
        raise DataError(f"The voxel {tuple(near)} holds {held}, not {id}; give one of the object's own.")
    low, high = [_FIRST_LOOK] * 3, [_FIRST_LOOK] * 3
    while True:
        region = around(start, labels.shape, tuple(low), tuple(high))
        box = _shifted(_box(load(labels, region) == id) or start, region)
        cut_low = [b.start == r.start > 0 for b, r in zip(box, region, strict=True)]
        cut_high = [b.stop == r.stop < n for b, r, n in zip(box, region, labels.shape, strict=True)]
        if not any(cut_low + cut_high):
            return box
        low = [2 * reach if cut else reach for reach, cut in zip(low, cut_low, strict=True)]
        high = [2 * reach if cut else reach for reach, cut in zip(high, cut_high, strict=True)]


def _box(mask: npt.NDArray[np.bool_]) -> Region | None:
    """Return the bounding box of True voxels, axis by axis on what is left; None if there are none."""
    box = []
    for axis in range(mask.ndim):
        along = np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis)))
        if not along.size:
            return None
        box.append(slice(int(along[0]), int(along[-1]) + 1))
        mask = mask[(slice(None),) * axis + (box[-1],)]
    return tuple(box)


def _shifted(inner: Region, region: Region) -> Region:
    return tuple(slice(r.start + s.start, r.start + s.stop) for s, r in zip(inner, region, strict=True))


def _union(a: Region | None, b: Region) -> Region:
    if a is None:
        return b
    return tuple(slice(min(s.start, t.start), max(s.stop, t.stop)) for s, t in zip(a, b, strict=True))
