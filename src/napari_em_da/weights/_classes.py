"""Classes of a label map: which ones, how many pixels, and what each one weighs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from napari_em_da.weights._compiled import compiled
from napari_em_da.weights._stack import Block, LabelStack, Weights

ClassIds = Annotated[
    tuple[int, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, int) else value),
]
Counts = dict[int, Annotated[int, Field(ge=0)]]


def class_counts(stack: LabelStack) -> Any:
    """Return {class: pixels} over all annotated pixels of the volume; 0-d dask array if lazy."""
    return stack.tally(partial(_count, ignore_index=stack.ignore_index), _add_counts)


def class_ids(stack: LabelStack) -> Any:
    """Return the sorted classes that occur among annotated pixels; 0-d dask array if lazy."""
    return stack.tally(partial(present, ignore_index=stack.ignore_index), _union)


def present(labels: Block, ignore_index: int | None) -> tuple[int, ...]:
    """Return the sorted classes of one block, less the ignored one."""
    if labels.dtype == np.uint8:
        found = np.flatnonzero(_present(np.ascontiguousarray(labels).reshape(-1)))
    else:
        found = np.unique(labels)
    return tuple(int(c) for c in found if c != ignore_index)


def look_up(labels: Block, out: Weights, weights: Mapping[int, float], default: float = 0.0) -> None:
    """Give each pixel the weight of its class, in place; classes that are not listed get ``default``."""
    if labels.dtype == np.uint8:
        table = np.full(256, default, np.float32)
        for label, weight in weights.items():
            if 0 <= label < 256:
                table[label] = weight
        take(labels, table, out)
        return
    out[...] = default
    for label, weight in weights.items():
        out[labels == label] = weight


def is_any(labels: Block, classes: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the mask of pixels whose class is one of ``classes``."""
    info = np.iinfo(labels.dtype)
    inside = [c for c in classes if info.min <= c <= info.max]
    mask = np.zeros(labels.shape, bool) if not inside else labels == inside[0]
    for label in inside[1:]:
        mask |= labels == label
    return mask


def _count(labels: Block, ignore_index: int | None) -> dict[int, int]:
    if labels.dtype == np.uint8:
        counts = _histogram(np.ascontiguousarray(labels).reshape(-1))
        found = np.flatnonzero(counts)
        pairs = zip(found, counts[found], strict=True)
    else:
        pairs = zip(*np.unique(labels, return_counts=True), strict=True)
    return {int(label): int(number) for label, number in pairs if label != ignore_index}


def _add_counts(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
    return {c: left.get(c, 0) + right.get(c, 0) for c in sorted({*left, *right})}


def _union(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return left if left == right else tuple(sorted({*left, *right}))


@compiled
def _present(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    seen = np.zeros(256, np.bool_)
    for i in range(labels.size):
        seen[labels[i]] = True
    return seen


@compiled
def _histogram(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    # Two tables in turn: equal neighbours would otherwise wait for each other's store.
    even, odd = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for i in range(0, labels.size - 1, 2):
        even[labels[i]] += 1
        odd[labels[i + 1]] += 1
    if labels.size % 2:
        even[labels[-1]] += 1
    return even + odd


@compiled
def take(indices: npt.NDArray[np.uint8], table: Weights, out: Weights) -> None:
    """Write ``table[indices]`` for (Z, Y, X) bytes; numpy would first widen them to 64 bits."""
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                out[z, y, x] = table[indices[z, y, x]]
