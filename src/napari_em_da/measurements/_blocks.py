"""The blocks in which a label volume is read: its own chunks, joined until they are worth a call."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from napari_em_da.errors import DataError
from napari_em_da.metrics._base import Region

BLOCK_VOXELS = 1 << 22  # about 0.1 s of work, and 64 MB of 64-bit ids with everything that is made of them


def blocks(array: Any) -> list[Region]:
    """Return regions that cover a volume, each a whole number of chunks in every direction.

    Parameters
    ----------
    array : numpy, dask or zarr array (Z, Y, X)
        Sections are the chunks of an array that has none.
    """
    if not all(array.shape):
        return []
    return list(product(*(_joined(starts, n) for starts, n in zip(_starts(array), array.shape, strict=True))))


def around(region: Region, shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> Region:
    """Return a region grown by ``low`` and ``high`` voxels, but not beyond the volume."""
    return tuple(
        slice(max(0, s.start - a), min(n, s.stop + b)) for s, n, a, b in zip(region, shape, low, high, strict=True)
    )


def check_labels(labels: Any) -> None:
    """Raise a DataError unless the array is a volume of integers."""
    if np.dtype(labels.dtype).kind not in "iub":
        raise DataError(
            f"The labels have type {labels.dtype}, but ids are integers; threshold and label the volume first, "
            "or convert ids that were stored as floats with labels.astype('uint32')."
        )
    if labels.ndim != 3:
        raise DataError(f"Labels have the axes (Z, Y, X), not shape {labels.shape}; give a section as labels[None].")


def _starts(array: Any) -> list[list[int]]:
    """Return where chunks start along each axis; the last axes are joined first, as they lie in memory."""
    chunks = getattr(array, "chunks", None) or (1, *array.shape[1:])
    starts = [
        np.cumsum([0, *c[:-1]]).tolist() if isinstance(c, tuple) else list(range(0, n, max(1, c)))
        for c, n in zip(chunks, array.shape, strict=True)
    ]
    size = [int(np.diff([*s, n]).max()) for s, n in zip(starts, array.shape, strict=True)]
    for axis in (2, 1, 0):
        room = BLOCK_VOXELS // max(1, int(np.prod(size)))
        times = min(max(1, room), max(1, len(starts[axis])))
        starts[axis], size[axis] = starts[axis][::times], size[axis] * times
    return starts


def _joined(starts: list[int], end: int) -> list[slice]:
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], end], strict=True)]


__all__ = ["BLOCK_VOXELS", "around", "blocks", "check_labels"]
