"""Boundary maps of a chosen thickness from instances."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Options as Base
from napari_em_da.config import Positive
from napari_em_da.errors import ConfigError
from napari_em_da.postprocess._base import Stack, Step, own_section, per_block
from napari_em_da.postprocess.threshold import IGNORED

NO_LABEL = np.uint64(2**64 - 1)  # CREMI's voxels without annotation


class Options(Base):
    """Which boundaries are drawn, and how thick."""

    thickness_nm: Positive | None = Field(
        None, description="Thickness in the plane; one voxel on either side of the boundary if absent"
    )
    mode: Literal["between", "around"] = Field(
        "between", description="Between touching objects only, or also between objects and background"
    )


def boundary_map(
    instances: npt.NDArray[np.integer],
    *,
    mode: Literal["between", "around"] = "between",
    thickness: float | None = None,
    pixel: tuple[float, float] = (1.0, 1.0),
) -> npt.NDArray[np.uint8]:
    """Draw the boundaries of instances in each section.

    Boundary are the voxels with a 4-neighbour of another id, one on either side; a thickness T adds those whose
    centre is no farther than (T - pixel) / 2 from one of them.

    Parameters
    ----------
    instances : (Z, Y, X) integer
        0 is background; 2^64 - 1 is not annotated.
    mode : {"between", "around"}
        Between two objects only, or also where an object meets the background.
    thickness : float, optional
        In the units of ``pixel``. Boundaries lie between voxels, so that thicknesses are even numbers of voxels, at
        least two, and an odd one is rounded up.
    pixel : (y, x)

    Returns
    -------
    (Z, Y, X) uint8
        1 is boundary, 255 not annotated.
    """
    result = np.empty(instances.shape, np.uint8)
    reach = ((thickness or 0) - max(pixel)) / 2
    for section, out in zip(instances, result, strict=True):
        edge = _edges(section, mode == "around")
        if reach > 0 and edge.any():
            import edt

            far = edt.edt(~edge, anisotropy=pixel, black_border=False, parallel=1)
            edge = far <= reach * (1 + 1e-6)
        out[...] = edge
        if section.dtype == np.uint64:
            out[section == NO_LABEL] = IGNORED
    return result


def _edges(section: npt.NDArray[Any], around: bool) -> npt.NDArray[np.bool_]:
    edge = np.zeros(section.shape, np.bool_)
    known = np.ones(section.shape, np.bool_) if around else section != 0
    if section.dtype == np.uint64:
        known &= section != NO_LABEL
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (section[a] != section[b]) & known[a] & known[b]
        edge[a] |= differ
        edge[b] |= differ
    return edge


def apply(stack: Stack, options: Options) -> Stack:
    """Turn instances into a membrane map: classes background and membrane.

    Raises
    ------
    ConfigError
        If a thickness is given and nobody said the voxel size, or it is thinner than two pixels.
    """
    pixel, reach = (1.0, 1.0), 1
    if options.thickness_nm is not None:
        pixel = stack.nm()[1:]
        if options.thickness_nm < 2 * max(pixel):
            raise ConfigError(
                f"A boundary of {options.thickness_nm:g} nm is thinner than two pixels of {max(pixel):g} nm; "
                f"give thickness_nm={2 * max(pixel):g} or more, or leave it out."
            )
        reach = 2 + math.ceil(options.thickness_nm / 2 / min(pixel))

    def function(block: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        return boundary_map(block, mode=options.mode, thickness=options.thickness_nm, pixel=pixel)

    data = per_block(stack, function, (0, reach, reach), np.uint8)
    return replace(stack.with_data(data, "labels"), classes=("background", "membrane"))


STEP = Step(Options, ("instances",), "labels", apply, reach=own_section)
