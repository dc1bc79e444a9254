"""Continuity filter along z: what appears in one section only goes, what is missing in one section only comes back.

Structures that span several sections cannot come and go between neighbours. That holds where the section is thin
against the object: see `advice`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Options as Base
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess._base import Stack, Step, per_block

Labels = npt.NDArray[Any]
Mode = Literal["veto", "fill", "veto_fill", "median"]
UNANNOTATED = 255
THICK_NM = 30.0


class Options(Base):
    """Options of the continuity filter."""

    radius: int = Field(1, ge=1, le=64, description="Distance of the sections compared with")
    mode: Mode = Field(
        "veto_fill",
        description="veto: remove what neither section has; fill: add what both have; both in turn; or the majority",
    )
    classes: tuple[str, ...] = Field((), description="Classes that may change; all if none")


def z_filter(
    labels: Labels,
    radius: int = 1,
    mode: Mode = "veto_fill",
    *,
    values: Collection[int] | None = None,
    unannotated: int | None = None,
) -> Labels:
    """Make labels agree with those of the sections above and below.

    Parameters
    ----------
    labels : (Z, Y, X) integer or bool; 0 is background
        A mask, or classes.
    radius : int
        k, in sections.
    mode : {"veto", "fill", "veto_fill", "median"}
        ``veto``: for the mask M of each class, M_z ∧ (M_{z−k} ∨ M_{z+k}); ``fill``: M_z ∨ (M_{z−k} ∧ M_{z+k}), over
        background only; ``veto_fill``: one after the other. Sections without both neighbours stay as they are.
        ``median``: the label that most of the sections z−k … z+k have (fewer at the ends); without a single such label
        the voxel stays as it is.
    values : collection of int, optional
        Labels that may come and go; all by default. 0 always may.
    unannotated : int, optional
        A label that never changes, and that counts as none.

    Returns
    -------
    (Z, Y, X) of the same type

    Notes
    -----
    The operators of steps 4 to 7 of morphological post-processing (`napari_em_da.postprocess.mpp`), without its removal
    of small pieces. All sections change at once, from the labels before: unlike in the default order there, a block
    then needs a few sections around it and no more.

    Raises
    ------
    ConfigError
        If the radius is below 1.
    """
    if radius < 1:
        raise ConfigError(f"radius={radius} is a distance in sections; it is at least 1.")
    if mode == "median":
        return _majority(labels, radius, values, unannotated)
    if mode != "fill":
        labels = _veto(labels, radius, values, unannotated)
    if mode != "veto":
        labels = _fill(labels, radius, values, unannotated)
    return labels


def _moves(labels: Labels, values: Collection[int] | None, unannotated: int | None) -> npt.NDArray[np.bool_]:
    """Mark the voxels whose label may come and go."""
    moves = np.ones(labels.shape, np.bool_) if values is None else np.isin(labels, [0, *values])
    return moves if unannotated is None else moves & (labels != unannotated)


def _veto(labels: Labels, k: int, values: Collection[int] | None, unannotated: int | None) -> Labels:
    result, here = labels.copy(), labels[k:-k]
    lone = (labels[: -2 * k] != here) & (labels[2 * k :] != here)
    result[k:-k][lone & _moves(here, values, unannotated)] = 0
    return result


def _fill(labels: Labels, k: int, values: Collection[int] | None, unannotated: int | None) -> Labels:
    result, above = labels.copy(), labels[: -2 * k]
    gap = (labels[k:-k] == 0) & (above == labels[2 * k :])
    np.copyto(result[k:-k], above, where=gap & _moves(above, values, unannotated))
    return result


def _majority(labels: Labels, k: int, values: Collection[int] | None, unannotated: int | None) -> Labels:
    best, most = labels.copy(), np.zeros(labels.shape, np.int32)
    tied = np.zeros(labels.shape, np.bool_)
    for value in np.unique(labels):
        if value != unannotated:
            votes = _in_window(labels == value, k)
            better = votes > most
            tied = ~better & (tied | (votes == most))
            np.copyto(best, value, where=better)
            np.maximum(most, votes, out=most)
    change = ~tied & _moves(labels, values, unannotated) & _moves(best, values, unannotated)
    return np.where(change, best, labels)


def _in_window(mask: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.int32]:
    """Count the sections z−k … z+k that have a voxel."""
    counts, running = np.empty(mask.shape, np.int32), np.zeros(mask.shape[1:], np.int32)
    for z in range(-k, len(mask)):
        if z + k < len(mask):
            running += mask[z + k]
        if z > k:
            running -= mask[z - k - 1]
        if z >= 0:
            counts[z] = running
    return counts


def apply(stack: Stack, options: Options) -> Stack:
    """Filter the classes along z; 255, not annotated, and sections that hold ground truth stay as they are."""
    values = [stack.channel(name) for name in options.classes] or None
    modes: tuple[Mode, ...] = ("veto", "fill") if options.mode == "veto_fill" else (options.mode,)
    reach = min(options.radius, stack.shape[0] - 1)
    for mode in modes:  # one by one: what the second sees of a labelled section is the ground truth

        def filtered(block: Labels, mode: Mode = mode) -> Labels:
            return z_filter(block, options.radius, mode, values=values, unannotated=UNANNOTATED)

        stack = stack.with_data(stack.outside_labelled(per_block(stack, filtered, (reach, 0, 0))))
    return stack


def advice(stack: Stack) -> str | None:
    """Return a sentence for the user if the sections are too thick for continuity along z, or None."""
    if stack.voxel_nm is None or stack.voxel_nm[0] <= THICK_NM:
        return None
    return (
        f"Sections are {stack.voxel_nm[0]:g} nm thick. Above {THICK_NM:g} nm thin structures move or end between "
        "sections, and a filter along z removes them; compare the scores with and without it."
    )


def reach(options: Options) -> int | None:
    """Return the radius, twice where one pass follows the other."""
    return options.radius * (2 if options.mode == "veto_fill" else 1)


STEP = Step(Options, ("labels",), None, apply, advice, reach=reach)
