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
from napari_em_da.weights._compiled import compiled
from napari_em_da.weights._edt import squared_distance
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
    return stack.map(partial(_block, options=options, spacing=stack.spacing), depth=depth)


def _block(labels: Block, out: Weights, options: DistanceOptions, spacing: Spacing) -> None:
    boundary = is_any(labels, options.boundary)
    if options.mode == "decay":
        _decay(boundary, out, options.sigma, spacing)
        return
    if options.mode == "inside_edt":
        _distance(~boundary, out, spacing)
        np.copyto(out, options.half_thickness, where=np.isinf(out))
    else:
        _distance(boundary, out, spacing)
        np.minimum(out, options.d_clip, out=out)
        np.multiply(out, -1 / options.d_clip, out=out)
        np.add(out, 1, out=out)
    voxel = (math.inf, 1.0, 1.0) if spacing is None else spacing
    z, y, x = (options.sigma / size for size in voxel)
    smooth(out, (z, y, x))


def _decay(boundary: npt.NDArray[np.bool_], out: Weights, sigma: float, spacing: Spacing) -> None:
    if spacing is not None:
        _distance(boundary, out, spacing)
        np.square(out, out=out)
        np.multiply(out, -0.5 / sigma**2, out=out)
        np.exp(out, out=out)
        return
    table = _decays(sigma, sum(n * n for n in out.shape[1:]))
    for target, section in zip(boundary, out, strict=True):
        _pick(squared_distance(target), table, section)


def _distance(target: npt.NDArray[np.bool_], out: Weights, spacing: Spacing) -> None:
    """Write the distance to the nearest true voxel: per section in pixels, or in 3D in nm; infinite if none."""
    if spacing is not None:
        if not target.any():
            out[...] = np.inf
            return
        import edt

        out[...] = edt.edt(~np.ascontiguousarray(target), anisotropy=spacing, black_border=False, parallel=1)
        return
    for one, section in zip(target, out, strict=True):
        if one.any():
            np.sqrt(squared_distance(one), out=section, casting="unsafe")
        else:
            section[...] = np.inf


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
