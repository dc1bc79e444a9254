"""Columns of measurements from the sums of a tally, and the units in their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.measurements._kernels import DIRECTIONS, FACES
from napari_em_da.measurements._tally import Tally

Column = npt.NDArray[Any]
Columns = dict[str, Column]
AXES = ("z", "y", "x")


@dataclass(frozen=True, eq=False)
class Objects:
    """A finished tally with the size of a voxel; ``order`` lists the rows by rising id."""

    tally: Tally
    spacing: npt.NDArray[np.float64]
    unit: str
    ids: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]

    @classmethod
    def of(cls, tally: Tally, spacing: npt.NDArray[np.float64], unit: str) -> Objects:
        ids = tally.ids.found()
        order = np.argsort(ids)
        return cls(tally, spacing, unit, ids[order], order + 1)

    def take(self, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the rows of a table by rising id."""
        return table[self.order] if self.ids.size else table[:0]

    @cached_property
    def voxels(self) -> npt.NDArray[np.int64]:
        return self.take(self.tally.sums)[:, 0]

    @cached_property
    def volume(self) -> npt.NDArray[np.float64]:
        return np.multiply(self.voxels, float(np.prod(self.spacing)), dtype=np.float64)

    @cached_property
    def about_centre(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the centroids (n, 3) in voxels, and the second central moments (n, 3, 3) in voxels squared.

        The sums move, in integers, to the voxel next to the centroid, where nothing is left to cancel.
        """
        sums, corner = self.take(self.tally.sums).copy(), self.take(self.tally.low)
        _move(sums, corner)
        inner = np.rint(sums[:, 1:4] / sums[:, :1]).astype(np.int64) if len(sums) else sums[:, 1:4]
        _move(sums, inner)
        rest = sums[:, 1:] / sums[:, :1]
        mean = rest[:, :3]
        second = rest[:, [3, 6, 7, 6, 4, 8, 7, 8, 5]].reshape(-1, 3, 3) - mean[:, :, None] * mean[:, None, :]
        return corner + inner + mean, second

    @cached_property
    def closed_area(self) -> npt.NDArray[np.float64]:
        """Return the smooth estimate of the surface with what the border of the volume cuts."""
        return _weighted(self.take(self.tally.crossings + self.tally.cut), crofton_weights(self.spacing))

    @cached_property
    def face_area(self) -> npt.NDArray[np.float64]:
        """Return the area of a voxel's face across z, y and x."""
        z, y, x = self.spacing.tolist()
        return np.array([y * x, z * x, z * y])

    @cached_property
    def pairs(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return both ids (the smaller first) of every contact, sorted, and its faces (n, 3) across z, y and x."""
        keys, known = self.tally.pairs.found(), self.tally.ids.found()
        both = np.stack([known[(keys >> 32) - 1], known[(keys & 0xFFFFFFFF) - 1]])
        first, second = both.min(0), both.max(0)
        order = np.lexsort((second, first))
        return first[order], second[order], self.tally.contacts[1 : 1 + keys.size][order]

    def contact_areas(self) -> npt.NDArray[np.float64]:
        """Return the area of every contact in the order of `pairs`."""
        return _weighted(self.pairs[2], self.face_area)


def _weighted(counts: npt.NDArray[Any], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return Σ counts · weights of each row; a matrix product would round by the row's place in the table."""
    total: npt.NDArray[np.float64] = (counts * weights).sum(1)
    return total


def _move(sums: npt.NDArray[np.int64], to: npt.NDArray[np.int64]) -> None:
    """Move sums about the origin to sums about ``to``, in place; integers that wrap around come out right."""
    n, first = sums[:, 0], sums[:, 1:4].copy()
    for column, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)), start=4):
        sums[:, column] += n * to[:, a] * to[:, b] - first[:, a] * to[:, b] - first[:, b] * to[:, a]
    sums[:, 1:4] -= n[:, None] * to


def crofton_weights(spacing: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the area that one crossing in each of the 13 directions stands for.

    By Cauchy and Crofton the area is twice the mean, over all directions, of what parallel lines cross. A direction
    stands for its Voronoi cell on the sphere, and each of its lines for the volume of a voxel over the step along it.

    References
    ----------
    Legland, Kiêu & Devaux (2007), Computation of Minkowski measures on 2D and 3D binary images.
    """
    from scipy.spatial import SphericalVoronoi

    steps = DIRECTIONS * spacing
    length = np.linalg.norm(steps, axis=1)
    unit = steps / length[:, None]
    share = SphericalVoronoi(np.concatenate([unit, -unit]), threshold=1e-12).calculate_areas()[:13] / (2 * np.pi)
    weights: npt.NDArray[np.float64] = 2 * share * np.prod(spacing) / length
    return weights


def size(o: Objects) -> Columns:
    """Number of voxels and volume."""
    return {"voxels": o.voxels, f"volume_{o.unit}3": o.volume}


def surface(o: Objects) -> Columns:
    """Area of the voxels' faces, a smoother estimate (Crofton), and the area cut off by the border of the volume.

    The first two leave the border out, where nobody knows whether the object ends. On a slanted or curved surface the
    steps of the voxels make the first one up to 3/2 too large; the second is right on average over all directions,
    hence good for round objects, and too small for faces along the axes, the more so the flatter the voxels.
    """
    faces = list(FACES)
    return {
        f"area_{o.unit}2": _weighted(o.take(o.tally.crossings)[:, faces], o.face_area),
        f"smooth_area_{o.unit}2": _weighted(o.take(o.tally.crossings), crofton_weights(o.spacing)),
        f"cut_area_{o.unit}2": _weighted(o.take(o.tally.cut)[:, faces], o.face_area),
    }


def shape(o: Objects) -> Columns:
    """Principal axes (of the ellipsoid with equal moments), equivalent diameter, elongation, sphericity, extent.

    Full axis lengths 2 √(5 λ) from the eigenvalues λ of the covariance, to which each voxel adds its own size²/12, so
    that a box has its exact moments and one section a thickness. Elongation is major/middle, flatness middle/minor
    axis. Sphericity is π^(1/3) (6 V)^(2/3) / A with the smooth area A closed at the border of the volume: 1 for a ball
    up to the estimate's error.
    """
    covariance = o.about_centre[1] * np.outer(o.spacing, o.spacing) + np.diag(o.spacing**2 / 12)
    minor, middle, major = 2 * np.sqrt(5 * np.maximum(np.linalg.eigvalsh(covariance), 0)).T
    ball = np.pi ** (1 / 3) * (6 * o.volume) ** (2 / 3)
    extent = (o.take(o.tally.high) - o.take(o.tally.low) + 1) * o.spacing
    return {
        f"major_axis_{o.unit}": major,
        f"middle_axis_{o.unit}": middle,
        f"minor_axis_{o.unit}": minor,
        f"equivalent_diameter_{o.unit}": np.cbrt(6 / np.pi * o.volume),
        "elongation": major / middle,
        "flatness": middle / minor,
        "sphericity": ball / o.closed_area,
        **{f"extent_{axis}_{o.unit}": extent[:, i] for i, axis in enumerate(AXES)},
    }


def centroid(o: Objects) -> Columns:
    """Mean position; the first voxel's centre is at 0, as in napari's world."""
    place = o.about_centre[0] * o.spacing
    return {f"centroid_{axis}_{o.unit}": place[:, i] for i, axis in enumerate(AXES)}


def bounding_box(o: Objects) -> Columns:
    """First voxel, and the one after the last, along each axis."""
    low, high = o.take(o.tally.low), o.take(o.tally.high) + 1
    return {f"{axis}_start": low[:, i] for i, axis in enumerate(AXES)} | {
        f"{axis}_stop": high[:, i] for i, axis in enumerate(AXES)
    }


def intensity(o: Objects) -> Columns:
    """Mean, standard deviation (of all voxels, not of a sample), smallest and largest intensity.

    Raises
    ------
    DataError
        If the image holds a value inside an object that is not finite.
    """
    if not o.ids.size:
        return {f"intensity_{name}": np.empty(0) for name in ("mean", "std", "min", "max")}
    total, squares = o.take(o.tally.total), o.take(o.tally.squares)
    if not np.isfinite(total).all():
        raise DataError(
            f"The image holds a value that is not finite inside object {o.ids[~np.isfinite(total)][0]}; "
            "replace it, for example with numpy.nan_to_num."
        )
    mean = total / o.voxels
    return {
        "intensity_mean": mean + float(o.tally.offset),
        "intensity_std": np.sqrt(np.maximum(squares / o.voxels - mean**2, 0)),
        "intensity_min": o.take(o.tally.dimmest),
        "intensity_max": o.take(o.tally.brightest),
    }


def contacts(o: Objects) -> Columns:
    """Number of other objects that share a face with it, the area shared, and whether it touches the border."""
    first, second, faces = o.pairs
    both = np.searchsorted(o.ids, np.concatenate([first, second]))
    shared = [np.bincount(both, np.tile(faces[:, axis], 2), minlength=o.ids.size) for axis in range(3)]
    return {
        "neighbours": np.bincount(both, minlength=o.ids.size),
        f"contact_area_{o.unit}2": _weighted(np.stack(shared, 1), o.face_area),
        "touches_border": o.take(o.tally.cut).sum(1) > 0,
    }


GROUPS: dict[str, Callable[[Objects], Columns]] = {
    f.__name__: f for f in (size, surface, shape, centroid, bounding_box, intensity, contacts)
}
NEED_EDGES = {"surface", "shape", "contacts"}
