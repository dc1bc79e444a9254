"""What a family of scores is, and the pair of volumes that it scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.config import ScoringConfig
from napari_em_da.errors import DataError
from napari_em_da.lazy import computed

Empty = Literal["nan"] | int
Kind = Literal["membrane", "object", "instances"]
Ignore = int | Literal["auto"] | None
Region = tuple[slice, ...]
BLOCK_VOXELS = 1 << 24


@dataclass(frozen=True)
class Pair:
    """A prediction beside its annotation, with everything that says which voxels count and what they mean.

    Attributes
    ----------
    prediction, labels : numpy or dask arrays of one shape
    classes : class name to id, or None for every id that occurs
    ignore_index : annotated value that does not count, None, or "auto": 255 among classes, none among instance ids
    mask : bool array of the same shape, or None; only True voxels count
    spacing : (z, y, x) voxel size in nm, or None
    kind : what the volumes hold, for scores of partitions: a boundary map with 1 = membrane or 1 = object, or ids
    empty : score of a class that occurs in neither volume: "nan" (left out of means), 0 or 1
    scoring : how scores are computed
    warnings : sentences for the user that a family adds while it computes
    """

    prediction: Any
    labels: Any
    classes: Mapping[str, int] | None = None
    ignore_index: Ignore = "auto"
    mask: Any = None
    spacing: tuple[float, ...] | None = None
    kind: Kind | None = None
    empty: Empty = "nan"
    scoring: ScoringConfig = ScoringConfig()
    warnings: list[str] = field(default_factory=list)

    def ignored(self, *, ids: bool = False) -> int | None:
        """Return the annotated value that does not count; 255 is an ordinary number among instance ids."""
        if self.ignore_index == "auto":
            return None if ids else 255
        return self.ignore_index

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
    scores : name to docstring
        First line: what it is; then formula, range, which direction is better, and the source.
    compute : (pair, wanted names) to flat scores; ``name/class`` beside ``name`` where it is per class
        A score without a value is an `Undefined` that says why.
    ids : whether integers are instance ids rather than classes, unless ``kind`` says otherwise
    """

    scores: Mapping[str, str]
    compute: Callable[[Pair, tuple[str, ...]], dict[str, float | Undefined]]
    ids: bool = False


class Undefined(str):
    """Why a score has no value; `evaluate_arrays` returns NaN there and keeps the reason."""

    __slots__ = ()


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
    block = np.asarray(computed(block))
    return np.ascontiguousarray(block, block.dtype.newbyteorder("="))  # compiled kernels know this byte order alone
