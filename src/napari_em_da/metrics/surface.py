"""Surfaces of classes: boundary F-score with a tolerance, Hausdorff distances and mean surface distance.

The surface of a class are its voxels with a face neighbour outside of it (6 neighbours, 4 with ``per_section``); the
faces of the volume, and of what does not count, are no surface. ``name/class`` stands beside ``name``, which is the
mean over the foreground classes. With ``kind="instances"`` the surfaces are the borders of all objects together; for
the boundary scores of ``kind="membrane"`` the membrane itself.
"""

from __future__ import annotations

import inspect
from typing import Any

import edt
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from napari_em_da.errors import ConfigError
from napari_em_da.metrics._base import Family, Pair, Undefined
from napari_em_da.metrics._classes import Array, Mask, Part, named, parts, read, slabs, spacing_of, stacked

Points = npt.NDArray[np.int32]
Distances = npt.NDArray[np.floating[Any]]
Spacing = tuple[float, float, float]
Counts = npt.NDArray[np.int64]  # predicted boundary voxels, those of them near, annotated ones, those of them near
_GRID_VOXELS = 1 << 27  # above this bounding box, distances come from a tree of points: slower, but no grid
_ROUNDING = 1 + 1e-6  # distances are float32; one that equals the tolerance is within it


def boundary_f(counts: Counts) -> float:
    """Boundary F-score, the harmonic mean of boundary precision and recall: 2PR / (P + R); 0 if one side has none.

    Range 0 to 1, higher is better.

    Notes
    -----
    A boundary voxel counts as right within the tolerance of any boundary voxel of the other side; the Berkeley
    benchmark matches them one to one, so that a doubled contour costs precision there.

    References
    ----------
    Martin, Fowlkes & Malik (2004), Learning to detect natural image boundaries using local brightness, color, and
    texture cues.
    Csurka, Larlus & Perronnin (2013), What is a good evaluation measure for semantic segmentation?
    """
    if not counts[0] or not counts[2]:
        return 0.0
    precision, recall = boundary_precision(counts), boundary_recall(counts)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_precision(counts: Counts) -> float:
    """Share of predicted boundary voxels within the tolerance of an annotated one.

    |{a ∈ A: d(a, B) ≤ tolerance}| / |A|, for predicted A and annotated B. Range 0 to 1, higher is better.

    References
    ----------
    Csurka, Larlus & Perronnin (2013), What is a good evaluation measure for semantic segmentation?
    """
    return float(counts[1] / counts[0])


def boundary_recall(counts: Counts) -> float:
    """Share of annotated boundary voxels within the tolerance of a predicted one.

    |{b ∈ B: d(b, A) ≤ tolerance}| / |B|, for predicted A and annotated B. Range 0 to 1, higher is better.

    References
    ----------
    Csurka, Larlus & Perronnin (2013), What is a good evaluation measure for semantic segmentation?
    """
    return float(counts[3] / counts[2])


def hd(there: Distances, back: Distances) -> float:
    """Hausdorff distance in nm: max(max_a d(a, B), max_b d(b, A)) between the surfaces A and B.

    Range 0 to infinity, lower is better; a single stray voxel decides it.

    References
    ----------
    Huttenlocher, Klanderman & Rucklidge (1993), Comparing images using the Hausdorff distance.
    """
    return float(max(there.max(), back.max()))


def hd95(there: Distances, back: Distances) -> float:
    """Larger of the two directed 95th percentiles of surface distances, in nm: a Hausdorff distance without outliers.

    max(P95_a d(a, B), P95_b d(b, A)) with linear interpolation. Range 0 to infinity, lower is better.

    Notes
    -----
    Some programs take the percentile of both directions' distances together, which is a smaller number.

    References
    ----------
    Huttenlocher, Klanderman & Rucklidge (1993), Comparing images using the Hausdorff distance (ranked distances).
    """
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def assd(there: Distances, back: Distances) -> float:
    """Average symmetric surface distance in nm: (Σ_a d(a, B) + Σ_b d(b, A)) / (|A| + |B|).

    Range 0 to infinity, lower is better.

    References
    ----------
    Heimann et al. (2009), Comparison and evaluation of methods for liver segmentation from CT datasets.
    """
    return float((there.sum(dtype=np.float64) + back.sum(dtype=np.float64)) / (there.size + back.size))


_BOUNDARY = {f.__name__: f for f in (boundary_f, boundary_precision, boundary_recall)}
_DISTANCE = {f.__name__: f for f in (hd95, hd, assd)}


def borders(values: Array, counted: Mask | None = None, *, in_plane: bool = False) -> Mask:
    """Mark the voxels inside whose face neighbour has another value.

    Parameters
    ----------
    values : (Z, Y, X) bool or integer
        0 is outside.
    counted : bool array of the same shape, optional
        Other voxels are neither surface nor a neighbour.
    in_plane : bool
        Only neighbours in the same section.

    Returns
    -------
    (Z, Y, X) bool
    """
    edge = np.zeros(values.shape, np.bool_)
    for axis in range(int(in_plane), values.ndim):
        lower, upper = ((slice(None),) * axis + (s,) for s in (slice(None, -1), slice(1, None)))
        differ = values[lower] != values[upper]
        if counted is not None:
            differ &= counted[lower] & counted[upper]
        edge[lower] |= differ
        edge[upper] |= differ
    edge &= values != 0
    return edge


def surface_distances(points: Points, targets: Points, spacing: Spacing) -> Distances:
    """Measure the distance from each point to the nearest target.

    Parameters
    ----------
    points, targets : (N, 3), (M, 3) int32
        Voxel coordinates z, y, x; at least one of each.
    spacing : (z, y, x) voxel size in nm

    Returns
    -------
    (N,) float, in nm
    """
    low = np.minimum(points.min(0), targets.min(0))
    shape = np.maximum(points.max(0), targets.max(0)) - low + 1
    if np.prod(shape, dtype=np.float64) > _GRID_VOXELS:
        tree = cKDTree(targets * np.array(spacing))
        far: Distances = tree.query(points * np.array(spacing))[0]
        return far
    grid = np.ones(shape, np.bool_)
    grid[tuple((targets - low).T)] = False
    field: Distances = edt.edt(grid, anisotropy=spacing, black_border=False, parallel=1)
    near: Distances = field[tuple((points - low).T)]
    return near


def compute(pair: Pair, wanted: tuple[str, ...]) -> dict[str, float | Undefined]:
    """Compute the wanted scores of surfaces.

    Boundary scores are streamed with a halo of the tolerance. Distances keep the surface voxels of all classes in
    memory (12 bytes each), and per class a grid of at most 128 M voxels (5 bytes each). With ``per_section`` distances
    are within sections and all sections' distances are taken together.

    Raises
    ------
    ConfigError
        If the voxel size is not usable, or a tolerance in nm comes without one.
    DataError
        As the overlap scores do.
    """
    pair = stacked(pair)
    spacing = spacing_of(pair)
    chosen = parts(pair)
    result: dict[str, float | Undefined] = {}
    near = [name for name in wanted if name in _BOUNDARY]
    if near:
        counts = _boundary_counts(pair, chosen, spacing)
        for name in near:
            result |= _mean(name, {part: _share(name, part, counts[part], pair) for part in chosen})
    far = [name for name in wanted if name in _DISTANCE]
    if far:
        distances = {part: _distances(part, *points, pair, spacing) for part, points in _points(pair, chosen).items()}
        for name in far:
            values = {p: d if isinstance(d, Undefined) else _DISTANCE[name](*d) for p, d in distances.items()}
            result |= _mean(name, values)
    return {name: result[name] for name in sorted(result, key=lambda key: wanted.index(key.split("/")[0]))}


def _mean(name: str, values: dict[str, float | Undefined]) -> dict[str, float | Undefined]:
    """Return a score of every part, and its mean over those that have one."""
    defined = [value for value in values.values() if not isinstance(value, Undefined)]
    why = next(iter(values.values())) if len(values) == 1 else Undefined("no class but background has a value")
    mean = float(np.mean(defined)) if defined else why
    return {name: mean} | {named(name, part): value for part, value in values.items()}


def _tolerance(pair: Pair, spacing: Spacing) -> float:
    tolerance = pair.scoring.tolerance_nm
    if tolerance is not None and pair.spacing is None:
        raise ConfigError(f"tolerance_nm={tolerance} needs the voxel size; pass spacing=(z, y, x) in nm.")
    return 2 * max(spacing[1:]) if tolerance is None else tolerance


def _boundary_counts(pair: Pair, chosen: dict[str, Part], spacing: Spacing) -> dict[str, Counts]:
    """Count boundary voxels of both sides, and those near the other side's, slab by slab."""
    tolerance = _tolerance(pair, spacing)
    flat = pair.scoring.per_section
    # one section more than the tolerance: a boundary voxel is known by its neighbours
    halo = 0 if flat else int(tolerance * _ROUNDING / spacing[0]) + 1
    if flat:
        spacing = (2 * tolerance + 1, *spacing[1:])  # no other section is near
    counts = {part: np.zeros(4, np.int64) for part in chosen}
    for sections, core in slabs(pair.labels, halo):
        prediction, labels, counted = read(pair, sections)
        for part, pick in chosen.items():
            found, truth = (_boundary(pick(values), counted, pair) for values in (prediction, labels))
            counts[part] += _near(found, truth, core, spacing, tolerance) + _near(
                truth, found, core, spacing, tolerance
            )
    return counts


def _boundary(values: Array, counted: Mask, pair: Pair) -> Mask:
    if pair.kind == "membrane":
        return values & counted
    return borders(values, counted, in_plane=pair.scoring.per_section)


def _near(points: Mask, targets: Mask, core: slice, spacing: Spacing, tolerance: float) -> tuple[int, int]:
    """Count the points in the core sections, and those of them within the tolerance of a target."""
    total = int(np.count_nonzero(points[core]))
    if not total or not targets.any():
        return total, 0
    both = points | targets
    box = tuple(
        slice(*np.flatnonzero(both.any((*range(axis), *range(axis + 1, 3))))[[0, -1]] + [0, 1]) for axis in (1, 2)
    )
    field = edt.edt(~targets[:, *box], anisotropy=spacing, black_border=False, parallel=1)
    return total, int(np.count_nonzero(field[core][points[core][:, *box]] <= tolerance * _ROUNDING))


def _share(name: str, part: str, counts: Counts, pair: Pair) -> float | Undefined:
    needed = {"boundary_precision": counts[0], "boundary_recall": counts[2]}.get(name, counts[0] + counts[2])
    if needed:
        return _BOUNDARY[name](counts)
    if pair.empty != "nan":
        return float(pair.empty)
    where = {"boundary_precision": "the prediction", "boundary_recall": "the annotation"}.get(name, "either volume")
    return Undefined(f"{_title(part)} has no boundary in {where}")


def _title(part: str) -> str:
    return f"class {part!r}" if part else "what is marked"


def _points(pair: Pair, chosen: dict[str, Part]) -> dict[str, tuple[Points, Points]]:
    """Return the coordinates of the surface voxels of every part, in the prediction and in the annotation."""
    found: dict[str, tuple[list[Points], list[Points]]] = {part: ([], []) for part in chosen}
    for sections, core in slabs(pair.labels, int(not pair.scoring.per_section)):
        prediction, labels, counted = read(pair, sections)
        for part, pick in chosen.items():
            for side, values in zip(found[part], (prediction, labels), strict=True):
                edge = borders(pick(values), counted, in_plane=pair.scoring.per_section)[core]
                points = np.argwhere(edge).astype(np.int32)
                points[:, 0] += sections.start + core.start
                side.append(points)
    return {part: (np.concatenate(a), np.concatenate(b)) for part, (a, b) in found.items()}


def _distances(
    part: str, found: Points, truth: Points, pair: Pair, spacing: Spacing
) -> tuple[Distances, Distances] | Undefined:
    """Return the distances from the predicted surface to the annotated one, and back."""
    missing = " and ".join(n for n, points in (("prediction", found), ("annotation", truth)) if not len(points))
    if missing:
        return Undefined(f"{_title(part)} has no surface in the {missing}, so there is no distance to it")
    if not pair.scoring.per_section:
        return surface_distances(found, truth, spacing), surface_distances(truth, found, spacing)
    there, back, alone = [], [], 0
    for z in np.union1d(found[:, 0], truth[:, 0]):
        a, b = (points[slice(*np.searchsorted(points[:, 0], [z, z + 1]))] for points in (found, truth))
        if not len(a) or not len(b):
            alone += 1
            continue
        there.append(surface_distances(a, b, spacing))
        back.append(surface_distances(b, a, spacing))
    if not there:
        return Undefined(f"no section has a surface of {_title(part)} in both volumes")
    if alone:
        pair.warnings.append(
            f"{_title(part).capitalize()} has a surface in one volume only in {alone} sections; "
            "their distances are undefined and left out."
        )
    return np.concatenate(there), np.concatenate(back)


FAMILY = Family({name: inspect.getdoc(score) or "" for name, score in (_BOUNDARY | _DISTANCE).items()}, compute)
