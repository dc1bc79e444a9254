"""DeepEM3D's watershed: one flood in 3D, then membranes go to objects by majority (Zeng et al. 2017)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Count, Fraction, NonNegative
from napari_em_da.config import Options as Base
from napari_em_da.postprocess._affinities import boundary_of
from napari_em_da.postprocess._base import Stack, Step, Work
from napari_em_da.postprocess._flood import deep_minima, flood
from napari_em_da.weights._compiled import compiled

Ids = npt.NDArray[np.uint32]


class Options(Base):
    """Options of DeepEM3D's watershed."""

    kind: Literal["membrane", "object"] = Field("membrane", description="What the class is: membranes, or objects")
    channel: str | None = Field(None, description="Name of that class; the second one of two if absent")
    sigma_px: NonNegative = Field(0.105, description="Gaussian sigma of the membrane map, in voxels")
    depth: Fraction = Field(0.19, description="Minima shallower than this make no basin of their own")
    membrane_level: Fraction = Field(0.8, description="From this probability on, voxels are emptied and filled anew")
    halo_px: Count = Field(32, description="Context around blocks of a lazy stack, in pixels of the plane")
    halo_sections: Count = Field(4, description="Context around blocks of a lazy stack, in sections")


def deepem3d_watershed(
    membrane: npt.NDArray[Any], *, sigma_px: float = 0.105, depth: float = 0.19, membrane_level: float = 0.8
) -> Ids:
    """Segment a membrane map in 3D.

    1. Smooth by a Gaussian of ``sigma_px`` voxels (at 0.105 nearly nothing). 2. Flood it from its minima of at least
    ``depth`` (h-minima), 6 neighbours. 3. Set voxels with p >= ``membrane_level`` to 0. 4. In each section fill zeros
    by `fill_by_majority`.

    Parameters
    ----------
    membrane : (Z, Y, X) float, 0 to 1

    Returns
    -------
    (Z, Y, X) uint32
        Ids 1, 2, …; 0 only in sections that are membrane everywhere.

    Notes
    -----
    Floods leave no line between them; lines would be filled in step 4, too.

    References
    ----------
    Zeng, Wu & Ji (2017), DeepEM3D: approaching human-level performance on 3D anisotropic EM image segmentation.
    """
    from scipy import ndimage

    p = np.asarray(membrane, np.float32)
    height = ndimage.gaussian_filter(p, sigma_px, truncate=4.0) if sigma_px else p
    markers, _ = ndimage.label(deep_minima(height, depth))
    ids = flood(height, markers)
    ids[p >= membrane_level] = 0
    return fill_by_majority(ids)


def fill_by_majority(ids: npt.NDArray[np.integer]) -> Ids:
    """Fill the zeros of each section by iterative majority of the 8 neighbours.

    In one round every zero with a neighbour that is not 0 takes the most frequent id among them, the smallest one of
    equally frequent ones; rounds go on until nothing changes.

    Parameters
    ----------
    ids : (Z, Y, X) integer
        Ids below 2^32.

    Returns
    -------
    (Z, Y, X) uint32
        0 only in sections of nothing else.

    References
    ----------
    Zeng, Wu & Ji (2017), DeepEM3D: approaching human-level performance on 3D anisotropic EM image segmentation.
    """
    out = np.ascontiguousarray(np.pad(ids.astype(np.uint32), ((0, 0), (1, 1), (1, 1))))
    for section in out:
        _fill(section)
    return np.ascontiguousarray(out[:, 1:-1, 1:-1])


@compiled
def _fill(section):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Fill one section with a frame of zeros in place; each round looks at the zeros that are left beside ids."""
    height, width = section.shape
    todo = np.empty((height * width, 2), np.int32)
    count = 0
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if not section[y, x]:
                todo[count, 0], todo[count, 1] = y, x
                count += 1
    votes = np.empty(count, np.uint32)
    found = True
    while found:
        found = False
        for i in range(count):
            votes[i] = _majority(section, todo[i, 0], todo[i, 1])
        left = 0
        for i in range(count):
            y, x = todo[i]
            if votes[i]:
                section[y, x] = votes[i]
                found = True
            else:
                todo[left, 0], todo[left, 1] = y, x
                left += 1
        count = left


@compiled
def _majority(section, y, x):  # type: ignore[no-untyped-def]  # pragma: no cover
    winner, most = np.uint32(0), 0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            mine = section[y + dy, x + dx]
            if not mine:
                continue
            votes = 0
            for ey in range(-1, 2):
                for ex in range(-1, 2):
                    votes += section[y + ey, x + ex] == mine
            if votes > most or (votes == most and mine < winner):
                winner, most = mine, votes
    return winner


def apply(stack: Stack, options: Options) -> Stack | Work:
    """Segment a stack; a lazy one block by block, with a halo."""
    boundary_of(stack, options.kind, options.channel)  # a class that does not exist is told before any work

    def function(block: Stack) -> Ids:
        return deepem3d_watershed(
            boundary_of(block, options.kind, options.channel),
            sigma_px=options.sigma_px,
            depth=options.depth,
            membrane_level=options.membrane_level,
        )

    if not stack.lazy:
        return stack.with_data(function(stack), "instances")
    from napari_em_da.postprocess._blocks import instances_by_block

    depth = (options.halo_sections, options.halo_px, options.halo_px)
    return instances_by_block(stack, function, depth, repr((options, stack.classes)))


STEP = Step(Options, ("probabilities",), "instances", apply)
