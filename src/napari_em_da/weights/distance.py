"""Distance to the boundary: pixels on and near the membrane weigh most."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Config, Positive
from napari_em_da.weights._base import Finish, WeightSpec
from napari_em_da.weights._classes import ClassIds, is_any
from napari_em_da.weights._compiled import compiled, in_bands
from napari_em_da.weights._edt import Squares, squared_distance
from napari_em_da.weights._gaussian import TRUNCATE, smooth
from napari_em_da.weights._stack import Block, LabelStack, Weights

Spacing = tuple[float, float, float] | None
REACH = 5.0  # halo of the decay in sigma; beyond it the weight is below 3.8e-6


class DistanceOptions(Config):
    """Distance transform of the boundary; lengths in pixels, or in nm where the voxel size is given."""

    mode: Literal["decay", "inside_edt", "inverted"] = Field("decay", description="Formula; see the documentation")
    sigma: Positive = Field(10.0, description="Width of the decay or of the smoothing")
    boundary: ClassIds = Field((1,), description="Class ids of the boundary")
    d_clip: Positive = Field(30.0, description="Distance beyond which inverted weights vanish")
    half_thickness: Positive = Field(32.0, description="Half-thickness of the thickest boundary (inside_edt)")


def raw(stack: LabelStack, options: DistanceOptions) -> Any:
    r"""Return one of three maps of the distance to the boundary.

    With ``d_out`` the distance to the nearest boundary pixel and ``d_in`` that to the nearest other pixel:

    * ``decay``: ``exp(-d_out^2 / (2 sigma^2))``, 1 on every boundary pixel and falling with distance;
    * ``inside_edt``: ``d_in`` smoothed by a Gaussian, which favours thick boundaries;
    * ``inverted``: ``1 - min(d_out, d_clip) / d_clip`` smoothed by a Gaussian.

    Notes
    -----
    A section without boundary has raw weight 0. A section that is all boundary has weight 1; its ``d_in`` is infinite
    and taken as ``half_thickness``. Lazy blocks see boundary pixels up to 5 sigma away (``decay``: error below
    3.8e-6), ``d_clip`` or ``half_thickness`` plus 4 sigma (the others: exact for boundaries that are not thicker).
    """
    reach = {
        "decay": math.ceil(REACH * options.sigma),
        "inside_edt": options.half_thickness + TRUNCATE * options.sigma,
        "inverted": options.d_clip + TRUNCATE * options.sigma,
    }[options.mode]
    if stack.spacing is None:
        depth = (0, math.ceil(reach), math.ceil(reach))
    else:
        z, y, x = (math.ceil(reach / size) + 1 for size in stack.spacing)
        depth = (z, y, x)
    tabulated = options.mode == "decay" and stack.spacing is None
    measured: partial[Any]
    if tabulated:
        measured = partial(_squares, boundary=options.boundary)
    else:
        inside = options.mode == "inside_edt"
        measured = partial(_distances, boundary=options.boundary, inside=inside, spacing=stack.spacing)
    block = partial(_block, options=options, spacing=stack.spacing, threads=stack.threads)
    return stack.map(block, depth=depth, prepare=measured)


def _block(
    labels: Block, out: Weights, distances: npt.NDArray[Any], options: DistanceOptions, spacing: Spacing, threads: int
) -> None:
    """Turn distances (squared ones for the decay in pixels) into weights."""
    if options.mode == "decay":
        _decay(distances, out, options.sigma, tabulated=spacing is None, threads=threads)
        return
    if options.mode == "inside_edt":
        np.copyto(out, distances)
        np.copyto(out, options.half_thickness, where=np.isinf(out))
    else:
        np.minimum(distances, options.d_clip, out=out)
        np.multiply(out, -1 / options.d_clip, out=out)
        np.add(out, 1, out=out)
    voxel = (math.inf, 1.0, 1.0) if spacing is None else spacing
    z, y, x = (options.sigma / size for size in voxel)
    smooth(out, (z, y, x), threads)


def _decay(distances: npt.NDArray[Any], out: Weights, sigma: float, *, tabulated: bool, threads: int) -> None:
    if not tabulated:
        np.square(distances, out=out)
        np.multiply(out, -0.5 / sigma**2, out=out)
        np.exp(out, out=out)
        return
    table = _decays(sigma, sum(n * n for n in out.shape[1:]))
    for squares, section in zip(distances, out, strict=True):

        def band(begin: int, end: int, squares: Squares = squares, section: Weights = section) -> None:
            _pick(squares[begin:end], table, section[begin:end])

        in_bands(band, len(section), threads)


def _squares(labels: Block, boundary: tuple[int, ...]) -> Squares:
    """Return the squared distance in pixels to the boundary, per section."""
    return np.stack([squared_distance(section) for section in is_any(labels, boundary)])


def _distances(labels: Block, boundary: tuple[int, ...], inside: bool, spacing: Spacing) -> Weights:
    """Return the distance to the boundary, or to the nearest voxel of no boundary if ``inside``.

    Per section in pixels, or in 3D in nm; infinite where there is none.
    """
    target = is_any(labels, boundary)
    if inside:
        np.logical_not(target, out=target)
    if spacing is not None and target.any():
        import edt

        found: Weights = edt.edt(np.logical_not(target, order="C"), anisotropy=spacing, black_border=False, parallel=1)
        return found
    out = np.full(labels.shape, np.inf, np.float32)
    if spacing is None:
        for one, section in zip(target, out, strict=True):
            if one.any():
                np.sqrt(squared_distance(one), out=section, casting="unsafe")
    return out


@lru_cache(maxsize=4)
def _decays(sigma: float, largest: int) -> Weights:
    """Tabulate ``exp(-n / (2 sigma^2))`` over squared distances; the last entry is 0, for pixels beyond."""
    length = min(largest, math.ceil(2 * sigma**2 * 104)) + 1  # exp(-104) vanishes in float32
    table: Weights = np.exp(np.arange(length + 1) * (-0.5 / sigma**2)).astype(np.float32)
    table[-1] = 0
    return table


@compiled
def _pick(squares: npt.NDArray[Any], table: Weights, out: Weights) -> None:
    last = table.size - 1
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = table[min(squares[y, x], last)]


def _finish(options: DistanceOptions) -> Finish:
    if options.mode == "decay":
        return Finish(floor=0.1, rule="affine")
    return Finish(scale="max1" if options.mode == "inside_edt" else "none")


WEIGHT = WeightSpec(raw, DistanceOptions, _finish)
