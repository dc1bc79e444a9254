"""What a family of scores is, and the pair of volumes that it scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError

Empty = Literal["nan"] | int
Kind = Literal["membrane", "object"]
Region = tuple[slice, ...]
BLOCK_VOXELS = 1 << 24


@dataclass(frozen=True)
class Pair:
    """A prediction beside its annotation, with everything that says which voxels count and what they mean.

    Attributes
    ----------
    prediction, labels : numpy or dask arrays of one shape
    classes : class name to id, or None for every id that occurs
    ignore_index : label value that is not annotated, or None
    mask : bool array of the same shape, or None; only True voxels count
    spacing : (z, y, x) voxel size in nm, or None
    kind : what the foreground of a boundary task is, or None
    empty : score of a class that occurs in neither volume: "nan" (left out of means), 0 or 1
    """

    prediction: Any
    labels: Any
    classes: Mapping[str, int] | None = None
    ignore_index: int | None = 255
    mask: Any = None
    spacing: tuple[float, ...] | None = None
    kind: Kind | None = None
    empty: Empty = "nan"

    def require_labels(self) -> None:
        """Raise a DataError unless both volumes hold integers, as scores of classes need."""
        for name, array in (("prediction", self.prediction), ("annotation", self.labels)):
            if np.dtype(array.dtype).kind not in "iub":
                raise DataError(
                    f"The {name} has type {array.dtype}, not integer class ids; "
                    "threshold or argmax it first, for example (p > 0.5).astype('uint8')."
                )


@dataclass(frozen=True)
class Family:
    """Scores that come from one pass over the data; one file of this package defines one.

    Attributes
    ----------
    scores : name to one line of help
    compute : (pair, wanted names) to flat scores; ``name/class`` beside ``name`` where it is per class
    """

    scores: Mapping[str, str]
    compute: Callable[[Pair, tuple[str, ...]], dict[str, float]]


def regions(array: Any) -> Iterator[Region]:
    """Yield regions that cover an array: its own chunks (dask), or slabs of at most 16 M voxels."""
    if hasattr(array, "numblocks"):
        stops = [np.cumsum(sizes) for sizes in array.chunks]
        axes = [
            [slice(int(b - n), int(b)) for b, n in zip(s, c, strict=True)]
            for s, c in zip(stops, array.chunks, strict=True)
        ]
        yield from product(*axes)
        return
    step = max(1, BLOCK_VOXELS * array.shape[0] // max(1, array.size)) if array.ndim else 1
    for start in range(0, array.shape[0], step):
        yield (slice(start, start + step),)


def load(array: Any, region: Region) -> npt.NDArray[Any]:
    """Read one region into memory."""
    block = array[region]
    return np.ascontiguousarray(block.compute(scheduler="synchronous") if hasattr(block, "compute") else block)
