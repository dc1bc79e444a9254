"""Affinities: for each voxel and offset, how likely the voxel and the one at the offset belong to one object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError
from napari_em_da.postprocess._base import Stack

Affinities = npt.NDArray[np.float32]
Offsets = Sequence[Sequence[int]]


def affinity_targets(labels: npt.NDArray[Any], offsets: Offsets) -> Affinities:
    """Return the affinities of an annotation: a_o(x) = [lab(x) = lab(x + o) ≠ 0].

    Parameters
    ----------
    labels : (Z, Y, X) or (Y, X) instance ids, 0 is background
    offsets : K offsets with one step per axis

    Returns
    -------
    (K, *shape) float32
        0 or 1; 0 where x + o lies outside.

    References
    ----------
    Turaga et al. (2010), Convolutional networks can learn to generate affinity graphs for image segmentation.
    """
    out = np.zeros((len(offsets), *labels.shape), np.float32)
    for channel, offset in zip(out, _checked(offsets, labels.ndim), strict=True):
        here, there = _sides(labels.shape, offset)
        channel[here] = (labels[here] == labels[there]) & (labels[here] != 0)
    return out


def membrane_affinities(membrane: npt.NDArray[Any], offsets: Offsets) -> Affinities:
    """Return affinities derived from a membrane probability: a_o(x) = 1 − max of p on the way from x to x + o.

    The way is the straight line in steps of at most one voxel per axis, rounded to voxels, both ends included; for
    nearest neighbours this is 1 − max(p(x), p(x + o)). A pair with a membrane between them so repels however thin the
    membrane is.

    Parameters
    ----------
    membrane : (Z, Y, X) or (Y, X) float from 0 to 1
    offsets : K offsets with one step per axis

    Returns
    -------
    (K, *shape) float32
        From 0 to 1, high for one object in every channel; 0 where x + o lies outside.

    References
    ----------
    Wolf et al. (2020), The mutex watershed and its objective; Funke et al. (2019), Large scale image segmentation with
    structured loss based deep learning (affinities as minima over a path).
    """
    out = np.zeros((len(offsets), *membrane.shape), np.float32)
    for channel, offset in zip(out, _checked(offsets, membrane.ndim), strict=True):
        here, _ = _sides(membrane.shape, offset)
        steps = max(map(abs, offset))
        highest = membrane[here].astype(np.float32)
        for step in range(1, steps + 1):
            passed = _shifted(here, [_rounded(step * o, steps) for o in offset])
            np.maximum(highest, membrane[passed], out=highest)
        channel[here] = 1 - highest
    return out


def boundary_of(stack: Stack, kind: Literal["membrane", "object"], channel: str | None) -> Any:
    """Return the boundary probability (Z, Y, X) of a stack: that of its membrane, or 1 minus that of its objects.

    Parameters
    ----------
    channel : name of the class; None for the foreground of two classes

    Raises
    ------
    ConfigError
        If there is no such class, or more than two and none is named.
    """
    if channel is None and len(stack.classes) > 2:
        raise ConfigError(
            f"There are {len(stack.classes)} classes; name the one that is {kind}, for example "
            f"channel={stack.classes[1]!r}. Known: {', '.join(stack.classes)}."
        )
    number = min(1, len(stack.classes) - 1) if channel is None else stack.channel(channel)
    if number >= stack.data.shape[-1]:
        raise ConfigError(
            f"Class {stack.classes[number]!r} is channel {number}, but the probabilities have "
            f"{stack.data.shape[-1]} channels; give one channel per class, background first."
        )
    chosen = stack.data[..., number]
    return chosen if kind == "membrane" else 1 - chosen


def _rounded(part: int, whole: int) -> int:
    """Return part/whole to the nearest integer, halves away from 0."""
    return (2 * abs(part) + whole) // (2 * whole) * (1 if part > 0 else -1)


def _sides(shape: tuple[int, ...], offset: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the voxels whose partner lies inside, and their partners; both empty if none does."""
    here = tuple(slice(min(n, max(0, -o)), max(0, min(n, n - o))) for n, o in zip(shape, offset, strict=True))
    if any(s.start >= s.stop for s in here):
        return ((slice(0, 0),) * len(shape),) * 2
    return here, _shifted(here, offset)


def _shifted(box: tuple[slice, ...], offset: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(s.start + o, s.stop + o) for s, o in zip(box, offset, strict=True))


def _checked(offsets: Offsets, ndim: int) -> list[tuple[int, ...]]:
    checked = [tuple(int(o) for o in offset) for offset in offsets]
    for offset in checked:
        if len(offset) != ndim or not any(offset):
            raise ConfigError(f"Offset {offset} needs {ndim} steps, not all 0, for an array with {ndim} axes.")
    return checked
