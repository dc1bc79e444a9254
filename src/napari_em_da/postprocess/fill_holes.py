"""Filling of holes: background inside one object becomes that object.

A hole is a connected piece (by faces) of what is not the object, that does not touch the frame. In 3D the frame is that
of the volume, so a tunnel is no hole; with ``sections`` it is that of each section.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from napari_em_da.config import Options as Base
from napari_em_da.config import Positive
from napari_em_da.events import Progress
from napari_em_da.jobs import finish
from napari_em_da.postprocess._base import Stack, Step, Work
from napari_em_da.postprocess._components import Components, scan_components
from napari_em_da.postprocess.remove_small import class_values


class Options(Base):
    """Options of the filling of holes."""

    max_size_nm3: Positive | None = Field(None, description="Larger holes stay; volume in nm³, any size if absent")
    max_size_nm2: Positive | None = Field(None, description="The same with sections: area in nm²")
    sections: bool = Field(False, description="In each section for itself, by area")
    classes: tuple[str, ...] = Field((), description="Classes whose holes are filled; all but the background if none")
    over: tuple[str, ...] = Field(
        (), description="Classes that are filled over like background, for example organelles inside of a cell"
    )

    @model_validator(mode="after")
    def _one_size(self) -> Options:
        if self.sections and self.max_size_nm3 is not None:
            raise ValueError("sections have areas; give max_size_nm2 instead of max_size_nm3")
        if not self.sections and self.max_size_nm2 is not None:
            raise ValueError("holes have volumes; give max_size_nm3 instead of max_size_nm2, or set sections")
        return self


def fill_holes(
    labels: Any,
    max_size: float | None = None,
    *,
    spacing: tuple[float, float, float] = (1, 1, 1),
    sections: bool = False,
    values: Collection[int] | None = None,
    over: Collection[int] = (),
) -> Any:
    """Fill the holes of every object with its label.

    Parameters
    ----------
    labels : (Z, Y, X) integer or bool, numpy or dask; 0 is background
    max_size : float, optional
        Holes with size > max_size stay. In nm³, or nm² with ``sections``; in voxels by default.
    spacing : (z, y, x)
        Voxel size in nm.
    sections : bool
        Look at each section for itself.
    values : collection of int, optional
        Labels whose holes are filled; all but 0 by default.
    over : collection of int
        Labels that a hole may hold beside background, and that are filled over.

    Returns
    -------
    (Z, Y, X) of the same type, numpy or lazy dask

    Notes
    -----
    A hole that holds another object stays as it is, unless that object's label is in ``over``: a nucleus in a cell is
    no hole in the cell, and neither is the cytoplasm around it. For one object this is the usual filling of holes
    (`scipy.ndimage.binary_fill_holes`).
    """
    return finish(_fill(labels, max_size, spacing, sections, values, over))


def _fill(
    labels: Any,
    max_size: float | None,
    spacing: tuple[float, float, float],
    sections: bool,
    values: Collection[int] | None,
    over: Collection[int],
) -> Generator[Progress, None, Any]:
    plain = _without(labels, sorted(over)) if over else labels
    found = yield from scan_components(plain, sections=sections, background=True, contacts=True)
    holes = (found.values == 0) & ~found.frame
    holes[0] = False
    if max_size is not None:
        each = float(np.prod(spacing[1:] if sections else spacing))
        holes &= found.sizes * each <= max_size * (1 + 1e-9)
    component, label = _enclosed(found, holes)
    if values is not None:
        chosen = np.isin(label, list(values))
        component, label = component[chosen], label[chosen]
    table = found.values.copy()
    table[component] = label
    if not over:
        return found.map(table)
    keep = found.values == 0  # voxels of what may be filled over, where nothing fills them
    keep[component] = False
    return _where(found.map(keep), labels, found.map(table))


def _without(labels: Any, values: list[int]) -> Any:
    """Return the labels with 0 in place of some of them."""

    def cleared(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.where(np.isin(block, values), block.dtype.type(0), block)

    return labels.map_blocks(cleared, dtype=labels.dtype) if hasattr(labels, "dask") else cleared(labels)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    if not hasattr(condition, "dask"):
        return np.where(condition, yes, no)
    import dask.array as da

    return da.where(condition, yes, no)


def _enclosed(found: Components, holes: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the holes that have faces to one label only, and that label."""
    component, other, _ = np.zeros((3, 0), np.int64) if found.contacts is None else found.contacts.T
    component, label = component[holes[component]], found.values[other[holes[component]]]
    starts = np.flatnonzero(np.diff(component, prepend=-1))
    if not len(starts):
        return component, label
    one = np.minimum.reduceat(label, starts) == np.maximum.reduceat(label, starts)
    return component[starts[one]], label[starts[one]]


def apply(stack: Stack, options: Options) -> Work:
    """Fill the holes of the chosen classes, or of instances; sections that hold ground truth stay as they are.

    Among classes, 255 (not annotated) is like another object: a hole that holds or touches it stays.
    """
    size = options.max_size_nm2 if options.sections else options.max_size_nm3
    data = yield from _fill(
        stack.data,
        size,
        (1, 1, 1) if size is None else stack.nm(),
        options.sections,
        class_values(stack, options.classes) or _all_but(stack),
        class_values(stack, options.over) or (),
    )
    return stack.with_data(stack.outside_labelled(data))


def _all_but(stack: Stack) -> list[int] | None:
    return None if stack.holds == "instances" else list(range(1, 255))


def reach(options: Options) -> int | None:
    """Return 0 where each section is looked at for itself."""
    return 0 if options.sections else None


STEP = Step(Options, ("labels", "instances"), None, apply, reach=reach)
