"""Removal of small objects: connected pieces below a size become background, or the class around them.

Of classes or of instances, in 3D or in each section, on volumes of any size; a size is counted over the whole volume
and not per block. Guay et al. (2021) found that it did not raise the mean IoU of their seven platelet classes, so look
at the scores before and after.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from napari_em_da.config import Options as Base
from napari_em_da.config import Positive
from napari_em_da.errors import ConfigError
from napari_em_da.events import Progress
from napari_em_da.jobs import finish
from napari_em_da.postprocess._base import Stack, Step, Work
from napari_em_da.postprocess._components import Components, scan_components

Fill = Literal["background", "neighbour_majority"]
UNANNOTATED = 255


class Options(Base):
    """Options of the removal of small objects; there is no size that fits all, so one must be given."""

    min_size_nm3: Positive | None = Field(None, description="Smaller objects are removed; volume in nm³")
    min_size_nm2: Positive | None = Field(None, description="The same with sections: area in nm²")
    sections: bool = Field(False, description="In each section for itself, by area")
    classes: tuple[str, ...] = Field((), description="Classes to remove from; all but the background if none")
    connectivity: Literal[1, 2, 3] = Field(
        1, description="Voxels are neighbours if they differ by one step on at most this many axes"
    )
    fill: Fill = Field(
        "background", description="What takes the place: background, or the label with most faces around the object"
    )

    @model_validator(mode="after")
    def _one_size(self) -> Options:
        if self.sections and (self.min_size_nm2 is None or self.min_size_nm3 is not None):
            raise ValueError("sections have areas; give min_size_nm2, for example 7500, and not min_size_nm3")
        if not self.sections and (self.min_size_nm3 is None or self.min_size_nm2 is not None):
            raise ValueError("objects have volumes; give min_size_nm3, for example 1e6, or sections with min_size_nm2")
        return self


def remove_small(
    labels: Any,
    min_size: float,
    *,
    spacing: tuple[float, float, float] = (1, 1, 1),
    sections: bool = False,
    values: Collection[int] | None = None,
    connectivity: int = 1,
    fill: Fill = "background",
    unannotated: int | None = None,
) -> Any:
    """Remove the connected pieces of equal labels that are smaller than a size.

    Parameters
    ----------
    labels : (Z, Y, X) integer or bool, numpy or dask; 0 is background
    min_size : float
        Pieces with size < min_size are removed. In nm³, or nm² with ``sections``; in voxels by default.
    spacing : (z, y, x)
        Voxel size in nm.
    sections : bool
        Look at each section for itself.
    values : collection of int, optional
        Labels that lose their small pieces; all but 0 by default.
    connectivity : 1, 2 or 3
        Voxels are neighbours if they differ by one step on at most this many axes.
    fill : {"background", "neighbour_majority"}
        What takes the place: 0, or the label (0 included) with which the piece shares most faces; of equal ones the
        smallest.
    unannotated : int, optional
        A label that is never removed and takes no place.

    Returns
    -------
    (Z, Y, X) of the same type, numpy or lazy dask

    Notes
    -----
    All small pieces go at once: a face to another piece that is removed, too, does not count, and a piece with no
    other neighbour becomes background.
    """
    work = _remove(labels, min_size, spacing, sections, values, connectivity, fill, unannotated)
    return finish(work)


def _remove(
    labels: Any,
    min_size: float,
    spacing: tuple[float, float, float],
    sections: bool,
    values: Collection[int] | None,
    connectivity: int,
    fill: Fill,
    unannotated: int | None,
) -> Generator[Progress, None, Any]:
    majority = fill == "neighbour_majority"
    found = yield from scan_components(labels, connectivity=connectivity, sections=sections, contacts=majority)
    small = found.sizes < voxels(min_size, spacing, sections)
    small[0] = False
    if values is not None:
        small &= np.isin(found.values, list(values))
    if unannotated is not None:
        small &= found.values != unannotated
    table = found.values.copy()
    table[small] = 0
    if majority:
        component, label = _majority(found, small, unannotated)
        table[component] = label
    return found.map(table)


def voxels(size: float, spacing: tuple[float, float, float], sections: bool) -> int:
    """Return how many voxels a size in nm³ (nm² of a section) is, rounded up; 1e-9 absorbs the division's error."""
    each = float(np.prod(spacing[1:] if sections else spacing))
    return int(np.ceil(size / each * (1 - 1e-9)))


def _majority(
    found: Components, small: npt.NDArray[np.bool_], unannotated: int | None
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the small components that have a neighbour that stays, and the label with most of their faces."""
    component, other, faces = np.zeros((3, 0), np.int64) if found.contacts is None else found.contacts.T
    use = small[component] & ~small[other]
    if unannotated is not None:
        use &= found.values[other] != unannotated
    names, rank = np.unique(found.values[other[use]], return_inverse=True)
    pairs, which = np.unique(component[use] * max(1, len(names)) + rank, return_inverse=True)
    total = np.bincount(which, faces[use], len(pairs))
    component, rank = np.divmod(pairs, max(1, len(names)))
    best = np.lexsort((rank, -total, component))
    first = best[np.flatnonzero(np.diff(component[best], prepend=-1))]
    return component[first], names[rank[first]]


def apply(stack: Stack, options: Options) -> Work:
    """Remove small pieces of the chosen classes, or of instances.

    255, not annotated, stays where it is among classes; so do the sections that hold ground truth.
    """
    size = options.min_size_nm2 if options.sections else options.min_size_nm3
    data = yield from _remove(
        stack.data,
        size or 0.0,
        stack.nm(),
        options.sections,
        class_values(stack, options.classes),
        options.connectivity,
        options.fill,
        None if stack.holds == "instances" else UNANNOTATED,
    )
    return stack.with_data(stack.outside_labelled(data))


def class_values(stack: Stack, classes: Collection[str]) -> list[int] | None:
    """Return the labels of the named classes, or None for all.

    Raises
    ------
    ConfigError
        If there is no such class, or the stack holds instances, which have none.
    """
    if classes and stack.holds == "instances":
        raise ConfigError(f"Instances have no classes; leave out classes={list(classes)}, or do this before instances.")
    return [stack.channel(name) for name in classes] or None


def reach(options: Options) -> int | None:
    """Return 0 where each section is looked at for itself."""
    return 0 if options.sections else None


STEP = Step(Options, ("labels", "instances"), None, apply, reach=reach)
