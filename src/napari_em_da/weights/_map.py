"""Labels to pixel weights: raw map, then scale, then floor, then zero where nobody annotated."""

from __future__ import annotations

import math
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from napari_em_da.catalog import Catalog, unknown
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.lazy import once
from napari_em_da.volume import check_voxel_size
from napari_em_da.weights._base import SCALES, Finish, WeightSpec
from napari_em_da.weights._section import Count, OneSection
from napari_em_da.weights._stack import LabelStack, Weights

Extent = tuple[float, tuple[float, ...], int]

WEIGHTS: Catalog[WeightSpec] = Catalog("napari_em_da.weights", "WEIGHT")


def weight_map(
    labels: Any,
    kind: str,
    *,
    floor: float | None = None,
    scale: str | None = None,
    ignore_index: int | None = 255,
    spacing: Sequence[float] | None = None,
    **params: Any,
) -> Any:
    """Compute the weight of every pixel in the loss from a label map.

    Parameters
    ----------
    labels : numpy or dask array (Z, Y, X) or (Y, X), integer or bool
        Classes, or object ids for ``kind="border"``. Give the whole volume and crop the result: a map of a crop has
        artefacts at its edges.
    kind : str
        Name in the catalog ``WEIGHTS``: border, diffusion, distance, entropy, frequency or ratio.
    floor : float, optional
        Smallest weight; the kind's default if absent.
    scale : {"none", "max1", "mean1"}, optional
        Divide by the maximum, or by the mean over annotated pixels of the volume; the kind's default if absent.
    ignore_index : int or None
        Label of pixels that are not annotated; their weight is 0.
    spacing : (z, y, x), optional
        Voxel size in nm. With it, ``distance`` measures in nm and in 3D; the other kinds work section by section in
        pixels and do not use it.
    **params
        Options of the kind; see ``WEIGHTS[kind].options_type``.

    Returns
    -------
    numpy or dask array, float32, of the shape of ``labels``
        Lazy if ``labels`` is lazy; its reductions run over the whole volume, never per chunk.

    Raises
    ------
    ConfigError
        Unknown kind, parameter, scale or an impossible value.
    DataError
        Labels that are not integers, not 2D or 3D, or empty.

    Notes
    -----
    Order: raw map, scale, floor, ignored pixels. The floor is affine, ``floor + (1 - floor) * w``, after ``max1`` and
    for distance/decay; it is added for diffusion; everywhere else it is ``max(w, floor)``.
    """
    spec = WEIGHTS[kind]
    options = spec.options(params)
    finish = _finish(spec.finish(options), floor, scale)
    array, section = _checked(labels)
    stack = LabelStack(array, ignore_index, None if spacing is None else check_voxel_size(spacing))
    weights = _finished(spec, options, stack, finish)
    return weights[0] if section else weights


def weight_section(
    labels: Any,
    kind: str,
    z: int,
    memory: MutableMapping[object, Any],
    *,
    floor: float | None = None,
    scale: str | None = None,
    ignore_index: int | None = 255,
    **params: Any,
) -> Weights:
    """Return section ``z`` (Y, X) float32 of ``weight_map(labels, kind, …)``, the same to the last bit.

    Only the section and its neighbourhood are computed; what a kind counts over the volume is kept in ``memory``.

    Parameters
    ----------
    labels : numpy or dask array (Z, Y, X), integer
    kind, floor, scale, ignore_index, **params
        As in `weight_map`.
    z : int
    memory : mapping
        Empty at first; one for each state of the labels.
    """
    options: dict[str, Any] = {"floor": floor, "scale": scale, "ignore_index": ignore_index, **params}
    *_, (weights, _) = section_steps(labels, kind, z, memory, **options)
    return cast(Weights, weights)


def section_steps(
    labels: Any,
    kind: str,
    z: int,
    memory: MutableMapping[object, Any],
    *,
    floor: float | None = None,
    scale: str | None = None,
    ignore_index: int | None = 255,
    **params: Any,
) -> Iterator[tuple[Weights | None, float]]:
    """Compute a section as `weight_section` does, and yield at every step (weights, share of the work that is done).

    Where the map is scaled by a number over the volume that is not known yet, the first step is the section scaled by
    its own, at once; steps without weights follow while the sections are counted. The last step, of share 1, is the
    section of the whole map. Stop asking and nothing more is computed.
    """
    spec = WEIGHTS[kind]
    options = spec.options(params)
    finish = _finish(spec.finish(options), floor, scale)
    array, _ = _checked(labels)
    missing: list[Count] = []
    z = min(max(z, 0), array.shape[0] - 1)
    stack = OneSection(array, ignore_index, z=z, memory=memory, missing=missing)
    weights: Weights = _finished(spec, options, stack, finish)[0]
    if missing:
        yield weights, 0.0
        for index, count in enumerate(missing):  # in this order: a later number may rest on those before
            for done in stack.counting(count):
                yield None, (index + done / array.shape[0]) / (len(missing) + 1)
        weights = _finished(spec, options, replace(stack, missing=None), finish)[0]
    yield weights, 1.0


def _checked(labels: Any) -> tuple[Any, bool]:
    """Return labels as (Z, Y, X) integers, and whether they were one section."""
    lazy = hasattr(labels, "dask")
    array = labels if lazy else np.asarray(labels)
    if array.dtype.kind not in "biu":
        raise DataError(
            f"Labels are {array.dtype}; a weight map needs integer class ids. Threshold probabilities or convert with "
            "labels.astype('uint8')."
        )
    if array.ndim not in (2, 3):
        raise DataError(f"Labels have {array.ndim} axes {tuple(array.shape)}; give (Z, Y, X) or one section (Y, X).")
    if 0 in array.shape:
        raise DataError(f"Labels are empty: their shape is {tuple(array.shape)}; give at least one pixel per axis.")
    if array.dtype == bool:
        array = array.astype(np.uint8) if lazy else array.view(np.uint8)
    return (array[None], True) if array.ndim == 2 else (array, False)


def _finish(default: Finish, floor: float | None, scale: str | None) -> Finish:
    """Return the kind's defaults with what the caller set."""
    if scale is not None and scale not in SCALES:
        raise ConfigError(unknown("scale", scale, SCALES))
    chosen: Any = default.scale if scale is None else scale
    low = default.floor if floor is None else float(floor)
    rule = "affine" if chosen == "max1" else default.rule
    if not math.isfinite(low) or low < 0:
        raise ConfigError(f"floor {low:g} is not a weight; use 0 or more.")
    if rule == "affine" and low > 1:
        raise ConfigError(f"floor {low:g} exceeds the largest weight, 1; use a value from 0 to 1.")
    return Finish(low, chosen, "max" if rule == "affine" and chosen == "mean1" else rule)


def _finished(spec: WeightSpec, options: Any, stack: LabelStack, finish: Finish) -> Any:
    """Compute the raw map and apply scale, floor and ignored pixels to it."""
    raw = spec.raw(stack, options)
    if stack.lazy:
        import dask.array as da

        factor: Any = 1.0
        if finish.scale != "none":
            factor = _factor_lazy(spec.raw(stack.again("scale"), options), stack, finish.scale)
        return da.map_blocks(
            lambda w, labels, f: _finish_block(w.copy(), labels, f, finish, stack.ignore_index),
            *(raw, stack.array, factor),
            dtype=np.float32,
            meta=np.empty((0, 0, 0), np.float32),
        )
    from napari_em_da.weights._compiled import in_threads

    factor = 1.0
    if finish.scale != "none":
        key = ("scale", finish.scale, repr(options))
        factor = _factor(
            stack.over_volume(
                key, lambda part: _extent(spec.raw(part, options), part), _both, lambda: _extent(raw, stack)
            ),
            finish.scale,
        )
    sections = zip(raw, stack.covered, strict=True)
    in_threads(lambda pair: _finish_block(*pair, factor, finish, stack.ignore_index), sections)
    return raw


def _finish_block(weights: Weights, labels: Any, factor: float, finish: Finish, ignore_index: int | None) -> Weights:
    floor = np.float32(finish.floor)
    scale = float(factor) * (1 - finish.floor if finish.rule == "affine" else 1)
    if scale != 1:
        np.multiply(weights, np.float32(scale), out=weights)
    if floor > 0:
        (np.maximum if finish.rule == "max" else np.add)(weights, floor, out=weights)
    if ignore_index is not None and _can_hold(labels.dtype, ignore_index):
        ignored = labels == ignore_index
        if ignored.any():  # mostly not, and a masked copy costs more than all of the above
            np.copyto(weights, 0, where=ignored)
    return weights


def _can_hold(dtype: np.dtype[Any], value: int) -> bool:
    """Whether a label of this type can have the value; comparing it is an error otherwise."""
    info = np.iinfo(dtype)
    return bool(info.min <= value <= info.max)


def _extent(raw: Weights, stack: LabelStack) -> Extent:
    """Return the largest raw weight of annotated pixels, the sum of each section's, and how many they are."""
    from napari_em_da.weights._compiled import in_threads

    def part(pair: tuple[Weights, Any]) -> tuple[float, float, int]:
        weights, labels = pair
        if stack.ignore_index is None or not _can_hold(labels.dtype, stack.ignore_index):
            return float(weights.max()), float(weights.sum(dtype=np.float64)), weights.size
        valid = labels != stack.ignore_index
        total = float(weights.sum(dtype=np.float64, where=valid))
        return float(weights.max(where=valid, initial=0)), total, int(np.count_nonzero(valid))

    peaks, totals, counts = zip(*in_threads(part, zip(raw, stack.covered, strict=True)), strict=True)
    return max(peaks), totals, sum(counts)


def _both(one: Extent, other: Extent) -> Extent:
    return max(one[0], other[0]), one[1] + other[1], one[2] + other[2]


def _factor(extent: Extent, scale: str) -> float:
    peak, totals, count = extent
    top, bottom = (1.0, peak) if scale == "max1" else (float(count), sum(totals))
    return top / bottom if bottom > 0 else 0.0


def _factor_lazy(weights: Any, stack: LabelStack, scale: str) -> Any:
    import dask.array as da

    count = weights.size
    if stack.ignore_index is not None and _can_hold(stack.array.dtype, stack.ignore_index):
        valid = stack.array != stack.ignore_index
        weights, count = da.where(valid, weights, np.float32(0)), valid.sum()
    top, bottom = (1.0, weights.max()) if scale == "max1" else (count, weights.sum(dtype=np.float64))
    return once(da.where(bottom > 0, top / da.where(bottom > 0, bottom, 1), 0.0), np.float64)
