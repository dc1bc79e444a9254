"""Annotated and predicted objects and what they share, from ids or from the components of boundary maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
import psutil
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from napari_em_da.errors import DataError, ResourceError
from napari_em_da.metrics._base import Pair
from napari_em_da.metrics._classes import read, stacked
from napari_em_da.metrics._contingency import Contingency, contingency
from napari_em_da.metrics._sections import components, sections

Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
_COMPONENT_BYTES = 16  # per voxel: three masks, two volumes of components, and what labelling takes


@dataclass(frozen=True, eq=False)
class Objects:
    """Annotated and predicted objects, and the pairs of them that share voxels.

    Attributes
    ----------
    labels, found : (T,), (F,) uint64
        Ids, ascending.
    label_voxels, found_voxels : (T,), (F,) int64
        Sizes, of voxels that count.
    rows, columns : (P,) int64
        Positions in ``labels`` and ``found`` of each pair.
    shared : (P,) int64
        Voxels in common, at least 1.
    """

    labels: Ids
    found: Ids
    label_voxels: Counts
    found_voxels: Counts
    rows: Counts
    columns: Counts
    shared: Counts

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union of each pair, (P,)."""
        union = self.label_voxels[self.rows] + self.found_voxels[self.columns] - self.shared
        return self.shared / union

    @property
    def mean_count(self) -> float:
        """TP + FP/2 + FN/2, whatever matches."""
        return (self.labels.size + self.found.size) / 2

    def matches(self, overlap: float) -> int:
        """Return how many pairs with IoU of at least ``overlap`` can be matched one to one.

        Above 0.5 an object has one such partner at most; below, this is a maximum matching of the bipartite graph.
        """
        near = self.iou >= overlap
        if overlap > 0.5 or not near.any():
            return int(near.sum())
        graph = csr_array(
            (np.ones(int(near.sum()), np.int8), (self.rows[near], self.columns[near])),
            shape=(self.labels.size, self.found.size),
        )
        return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def tables(pair: Pair) -> Iterator[Contingency]:
    """Yield one table of the volume, or one of every section.

    Raises
    ------
    ConfigError, DataError
        If the volumes do not hold ids or boundary maps, or nothing is annotated.
    ResourceError
        If components of a boundary map do not fit in memory.
    """
    if pair.kind in ("membrane", "object"):
        yield from _of_sections(pair) if pair.scoring.per_section else [_of_components(pair)]
    elif not pair.scoring.per_section:
        yield contingency(pair.prediction, pair.labels, ignored=pair.ignored(ids=True), mask=pair.mask)
    else:
        yield from _of_planes(replace(stacked(pair), kind="instances"))


def _of_planes(pair: Pair) -> Iterator[Contingency]:
    empty = True
    for z in range(pair.labels.shape[0]):
        prediction, labels, counted = read(pair, slice(z, z + 1))
        if counted.any():
            empty = False
            yield contingency(prediction, labels, mask=counted)
    if empty:
        raise DataError("No voxel is annotated: each one is masked or ignored; check ignore_index and the mask.")


def _of_sections(pair: Pair) -> Iterator[Contingency]:
    for section in sections(pair):
        if section.counted.any():
            found, truth = components(section.probability > 0.5), components(section.truth)
            yield contingency(found, truth, mask=section.counted)


def _of_components(pair: Pair) -> Contingency:
    """Return the table of the 6-connected components of both volumes."""
    shape = (1, *pair.labels.shape)[-3:]
    needed, free = _COMPONENT_BYTES * int(np.prod(shape)), psutil.virtual_memory().available
    if needed > free:
        raise ResourceError(
            f"Components of {shape} voxels need {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} are free; "
            "pass per_section=True, crop, or label the components blockwise and pass kind='instances'."
        )
    truth, found, counted = (np.zeros(shape, np.bool_) for _ in range(3))
    for section in sections(pair):
        truth[section.z], counted[section.z] = section.truth, section.counted
        found[section.z] = section.probability > 0.5
    labels = cc3d.connected_components(truth, connectivity=6)
    return contingency(cc3d.connected_components(found, connectivity=6), labels, mask=counted)


def objects_of(tables: Iterable[Contingency]) -> Objects:
    """Return the objects of tables; the same id in two tables is two objects."""
    each = [_of_table(table) for table in tables]

    def joined(name: str, shift: str = "") -> npt.NDArray[Any]:
        starts = np.cumsum([0] + [getattr(one, shift).size if shift else 0 for one in each])
        parts = [getattr(one, name) for one in each]
        return np.concatenate([part + start if shift else part for part, start in zip(parts, starts, strict=False)])

    sides = joined("labels"), joined("found"), joined("label_voxels"), joined("found_voxels")
    return Objects(*sides, joined("rows", "labels"), joined("columns", "found"), joined("shared"))


def _of_table(table: Contingency) -> Objects:
    labels, label_voxels = _sizes(table.truth, table.counts)
    found, found_voxels = _sizes(table.found, table.counts)
    both = (table.truth > 0) & (table.found > 0)
    rows, columns = np.searchsorted(labels, table.truth[both]), np.searchsorted(found, table.found[both])
    return Objects(labels, found, label_voxels, found_voxels, rows, columns, table.counts[both])


def _sizes(ids: Ids, counts: Counts) -> tuple[Ids, Counts]:
    """Return the ids but 0, and how many voxels each has."""
    values, where = np.unique(ids, return_inverse=True)
    voxels = np.zeros(values.size, np.int64)
    np.add.at(voxels, where, counts)
    return values[values > 0], voxels[values > 0]
