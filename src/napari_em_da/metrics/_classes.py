"""What surface and topology scores look at: the foreground classes of a pair, read in slabs of whole sections."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import BLOCK_VOXELS, Pair, load
from napari_em_da.metrics._sections import sections as stream
from napari_em_da.metrics.overlap import _found, _named

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Part = Callable[[Array], Array]
_NO_LABEL = np.iinfo(np.uint64).max


def stacked(pair: Pair) -> Pair:
    """Return the pair with volumes (Z, Y, X); a section (Y, X) becomes (1, Y, X).

    Raises
    ------
    DataError
        If the volumes have another number of axes, or the prediction is neither integer nor a boundary map.
    """
    if not _is_boundary(pair):
        pair.require_labels()
    if pair.labels.ndim == 3:
        return pair
    if pair.labels.ndim != 2:
        raise DataError(f"The volumes have {pair.labels.ndim} axes; this score is of (Z, Y, X) or (Y, X).")
    mask = None if pair.mask is None else pair.mask[None]
    return replace(pair, prediction=pair.prediction[None], labels=pair.labels[None], mask=mask)


def _is_boundary(pair: Pair) -> bool:
    return pair.kind in ("membrane", "object")


def spacing_of(pair: Pair) -> tuple[float, float, float]:
    """Return the (z, y, x) voxel size in nm, or ones with a warning for the user where nobody said.

    Raises
    ------
    ConfigError
        If a size is not above 0, or one is missing.
    """
    if pair.spacing is None:
        sentence = "The voxel size is not known, so distances are in voxels; pass spacing=(z, y, x) in nm."
        if sentence not in pair.warnings:
            pair.warnings.append(sentence)
        return (1.0, 1.0, 1.0)
    sizes = tuple(float(size) for size in pair.spacing)
    sizes = (sizes[0], *sizes) if len(sizes) == 2 and pair.labels.shape[0] == 1 else sizes
    if len(sizes) != 3 or not all(np.isfinite(size) and size > 0 for size in sizes):
        raise ConfigError(f"spacing={pair.spacing} must be three sizes (z, y, x) above 0, in nm.")
    return sizes[0], sizes[1], sizes[2]


def parts(pair: Pair) -> dict[str, Part]:
    """Return what is scored: a name, and the function from values to that part (0 outside of it).

    The foreground classes by name; one part with the empty name where ``kind`` says that the volumes are boundary
    maps (whatever is marked) or instances (their ids).

    Raises
    ------
    ConfigError, DataError
        Classes that cannot be, ids above 255, nothing annotated, boundary maps that contradict their kind.
    """
    if pair.kind == "instances":
        check_annotated(bool(read(pair, z)[2].any()) for z, _ in slabs(pair.labels))
        return {"": partial(instance_ids, ignored=pair.ignored(ids=True))}
    if _is_boundary(pair):
        deque(stream(pair), maxlen=0)  # for its checks and warnings
        return {"": partial(marked, pair=pair)}
    matrix, names = _named(pair) if pair.classes is not None else _found(pair)
    check_annotated([bool(matrix.sum())])
    ids = pair.classes or {name: int(name) for name in names if name != "background"}
    return {name: partial(np.equal, ids[name]) for name in names if name != "background"}


def marked(values: Array, pair: Pair) -> Mask:
    """Return the marked voxels of a boundary map: those of ``classes`` where given, else all that are not 0."""
    if values.dtype == np.bool_:
        return values
    chosen: Mask = np.isin(values, list(pair.classes.values())) if pair.classes else values != 0
    return chosen


def check_annotated(found: Iterable[bool]) -> None:
    """Raise a DataError unless some voxel counts."""
    if not any(found):
        raise DataError("No voxel is annotated: each one is masked or ignored; check ignore_index and the mask.")


def instance_ids(values: Array, ignored: int | None = None) -> Array:
    """Return instance ids with the no-label value 2^64 - 1 as background.

    Raises
    ------
    DataError
        If an id is negative.
    """
    if values.dtype == np.uint64:
        return np.where(values == _NO_LABEL, np.uint64(0), values)
    if ignored is not None and ignored < 0:
        values = np.where(values == ignored, 0, values)
    if values.dtype.kind == "i" and values.min() < 0:
        raise DataError(f"Instance id {values.min()} is negative; relabel from 1, with 0 for the background.")
    return values


def slabs(array: Any, halo: int = 0) -> Iterator[tuple[slice, slice]]:
    """Yield slabs of whole sections: the sections to read, and those of them that the slab stands for.

    A slab stands for at most 16 M voxels, or one section, or twice the halo where that is more.
    """
    depth, plane = array.shape[0], int(np.prod(array.shape[1:]))
    step = max(1, BLOCK_VOXELS // plane, 2 * halo)
    if hasattr(array, "numblocks") and step > array.chunksize[0]:
        step -= step % array.chunksize[0]  # no chunk is read twice
    for start in range(0, depth, step):
        stop = min(start + step, depth)
        low = max(0, start - halo)
        yield slice(low, min(stop + halo, depth)), slice(start - low, stop - low)


def read(pair: Pair, sections: slice) -> tuple[Array, Array, Mask]:
    """Read sections of the prediction, the annotation, and which of their voxels count.

    A probability, which only a boundary map may be, becomes bool: at 0.5 it is not object.
    """
    prediction, labels = load(pair.prediction, (sections,)), load(pair.labels, (sections,))
    if prediction.dtype.kind == "f":
        prediction = prediction >= 0.5 if pair.kind == "membrane" else prediction > 0.5
    ignored = pair.ignored(ids=pair.kind == "instances")
    counted: Mask = np.ones(labels.shape, np.bool_) if ignored is None else labels != ignored
    if pair.mask is not None:
        counted &= load(pair.mask, (sections,)).astype(np.bool_, copy=False)
    return prediction, labels, counted


def named(score: str, part: str) -> str:
    """Return the key of a part's score."""
    return f"{score}/{part}" if part else score
