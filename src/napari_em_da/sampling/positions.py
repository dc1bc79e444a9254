"""Where windows lie: jittered grids, and the voxels of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_em_da.augment.geometry import Box
from napari_em_da.errors import DataError
from napari_em_da.lazy import computed

Array = npt.NDArray[Any]
IGNORE = 255
INDEXED_VOXELS = 1 << 20  # positions kept per class; enough that a long run hardly ever meets one twice


class Sliceable(Protocol):
    """Anything with numpy's shape and slicing: an array in memory, a memory map, a dask or zarr array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def jittered_grid(
    shape: Sequence[int], window: Sequence[int], spacing: Sequence[int], rng: np.random.Generator
) -> Array:
    """Return window corners, one drawn uniformly from every bin of a grid over all corners that fit.

    Parameters
    ----------
    shape, window, spacing : sequences of n ints
        Of the volume, of the window, and between bins, per axis; the last bin may be narrower.
    rng : numpy Generator

    Returns
    -------
    (corners, n) int64
        Bins in C order.

    Raises
    ------
    DataError
        If the window is larger than the volume.

    References
    ----------
    Guay M.D. et al., Dense cellular segmentation for EM using 2D-3D neural network ensembles, Sci. Rep. 11, 2021.
    """
    usable = np.asarray(shape) - np.asarray(window) + 1
    if (usable < 1).any():
        raise DataError(f"Window {tuple(window)} is larger than the volume {tuple(shape)}; use at most that size.")
    edges = [np.arange(0, n, step) for n, step in zip(usable, spacing, strict=True)]
    low = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, len(usable))
    return rng.integers(low, np.minimum(low + np.asarray(spacing), usable))


def class_voxels(labels: Sliceable, region: Box, classes: int, name: str = "labels") -> tuple[Array, ...]:
    """Index the voxels of every class present in a region.

    Classes of more than about a million voxels are thinned at random, evenly over the region and always alike.

    Returns
    -------
    tuple of int64 arrays
        Flat positions in the volume, one array per class that is present.

    Raises
    ------
    DataError
        If a label is neither a class nor 255, or the region holds no labelled voxel.
    """
    rng = np.random.default_rng(0)
    found: dict[int, Array] = {}
    keep = dict.fromkeys(range(classes), 1.0)
    _, height, width = labels.shape
    for z in range(region[0].start, region[0].stop):
        section = np.asarray(computed(labels[z, region[1], region[2]]))
        present = np.unique(section)
        if (wrong := present[(present != IGNORE) & ((present < 0) | (present >= classes))]).size:
            known = f"labels are 0 to {classes - 1}, and {IGNORE} for not annotated"
            raise DataError(f"{name} has label {wrong[0]} in section {z}, but with {classes} classes {known}.")
        for label in present[present != IGNORE].tolist():
            y, x = np.nonzero(section == label)
            at = (z * height + y + region[1].start) * width + x + region[2].start
            if keep[label] < 1:
                at = at[rng.random(at.size) < keep[label]]
            found[label] = np.concatenate([found[label], at]) if label in found else at
            while found[label].size > INDEXED_VOXELS:
                keep[label] /= 2
                found[label] = found[label][rng.random(found[label].size) < 0.5]
    if not found:
        raise DataError(f"{name} has no labelled voxel in its region {region}; annotate some, or leave the volume out.")
    return tuple(found[label] for label in sorted(found))
