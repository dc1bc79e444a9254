"""Mutex watershed: objects grow along strong affinities and never join across a stronger repulsion (Wolf et al. 2020).

Affinities come from a membrane probability map; there is no threshold to choose and no number of objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Fraction, Options, Positive
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.postprocess._affinities import Affinities, Offsets, boundary_of, membrane_affinities
from napari_em_da.postprocess._base import Stack, Step, Work
from napari_em_da.postprocess._blocks import instances_by_block
from napari_em_da.postprocess._mutex import mutex_partition
from napari_em_da.volume import VoxelSize

Ids = npt.NDArray[np.uint32]


class MutexOptions(Options):
    """Options of the mutex watershed."""

    kind: Literal["membrane", "object"] = Field("membrane", description="What the class is: membranes, or objects")
    channel: str | None = Field(None, description="Name of that class; the second one of two if absent")
    reach_nm: Positive = Field(60.0, description="Length of the repulsive offsets: beyond a membrane's thickness")
    stride: Annotated[int, Field(ge=1)] = Field(
        4, description="Repulsive pairs start at every stride-th pixel of a section along y and x"
    )
    threshold: Fraction = Field(0.5, description="Boundary probability from which on a voxel is boundary")
    fill: bool = Field(True, description="Membranes go to the objects beside them; else, and for objects, they are 0")


def mutex_watershed(
    affinities: Affinities,
    offsets: Offsets,
    strides: Sequence[int] | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
) -> Ids:
    """Partition by attraction between nearest neighbours and repulsion between voxels further apart.

    Parameters
    ----------
    affinities : (K, Z, Y, X) or (K, Y, X) float from 0 to 1
        High means one object, in every channel; attractive and repulsive ones are told apart by their offsets.
    offsets : K offsets
        Attractive if the two voxels share a face (one step on one axis), repulsive otherwise.
    strides : one int per axis, optional
        Repulsive pairs start at voxels on this grid only.
    mask : bool array, optional
        False voxels become 0 and take part in no pair.

    Returns
    -------
    uint32 array of the shape of one channel
        Ids 1 to n; 0 outside the mask.

    Raises
    ------
    ConfigError
        If no offset is attractive, or offsets or strides do not have one step per axis.
    DataError
        If there is not one offset per channel, or the mask has another shape.
    ResourceError
        If there are 2^32 affinities or more.

    Notes
    -----
    Pairs are taken from strong to weak; of equal ones, the attractive first, then by channel and voxel, with the ids
    that bioimage-cpp 0.9 gives. The kernel wants repulsive channels high where voxels are to be apart and is given
    1 − affinity there. Affinities as they are would make everything one object, without an error.

    References
    ----------
    Wolf et al. (2018), The mutex watershed: efficient, parameter-free image partitioning; Wolf et al. (2020), The mutex
    watershed and its objective: efficient, parameter-free graph partitioning.
    """
    shape = affinities.shape[1:]
    if len(offsets) != len(affinities):
        raise DataError(f"{len(affinities)} channels of affinities need as many offsets, not {len(offsets)}.")
    if mask is not None and mask.shape != shape:
        raise DataError(f"The mask {mask.shape} and a channel of affinities {shape} differ in shape; crop them to one.")
    for steps in (*offsets, *([] if strides is None else [strides])):
        if len(steps) != len(shape):
            raise ConfigError(f"{tuple(steps)} needs {len(shape)} steps, one per axis of a channel.")
    attractive = [i for i, offset in enumerate(offsets) if sum(map(abs, offset)) == 1]
    repulsive = [i for i in range(len(offsets)) if i not in attractive]
    if not attractive:
        raise ConfigError(f"None of the offsets {list(offsets)} is a nearest neighbour, such as (0, 0, -1); add some.")
    ordered = np.concatenate([affinities[attractive], 1 - affinities[repulsive]]).astype(np.float32)
    moves = [tuple(int(o) for o in offsets[i]) for i in attractive + repulsive]
    grid = None if strides is None else [int(s) for s in strides]
    return mutex_partition(ordered, moves, len(attractive), grid, mask)


def offsets_for(voxel_nm: VoxelSize, reach_nm: float) -> list[tuple[int, int, int]]:
    """Return nearest neighbours, and repulsive offsets of ``reach_nm`` and half of it in eight directions.

    In a section along the axes and diagonals, and across sections; never shorter than two voxels.
    """
    z, y, x = (max(2, round(reach_nm / size)) for size in voxel_nm)
    found = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
    for dz, dy, dx in ((z, y, x), (max(2, z // 2), max(2, y // 2), max(2, x // 2))):
        found += [(-dz, 0, 0), (0, -dy, 0), (0, 0, -dx), (0, -dy, -dx), (0, -dy, dx)]
    return list(dict.fromkeys(found))


def from_boundary(
    boundary: npt.NDArray[Any],
    offsets: Offsets,
    *,
    stride: int = 4,
    threshold: float = 0.5,
    fill: bool = True,
) -> Ids:
    """Return the mutex watershed of a boundary map.

    Parameters
    ----------
    boundary : (Z, Y, X) float32 from 0 to 1
        Boundary voxels (at or above the threshold) take part in no pair: left in, they become specks of their own.
    fill : bool
        Flood boundary voxels from the objects, lowest probability first; otherwise they are 0.

    Returns
    -------
    (Z, Y, X) uint32
    """
    from napari_em_da.postprocess._flood import flood

    inside = boundary < threshold
    ids = mutex_watershed(membrane_affinities(boundary, offsets), offsets, (1, stride, stride), inside)
    return flood(boundary, ids) if fill else ids


def apply(stack: Stack, options: MutexOptions) -> Stack | Work:
    """Find instances in a probability map.

    Notes
    -----
    A lazy stack is worked through in blocks that see twice the reach around them, and objects are then joined where
    neighbouring blocks agree (see ``_blocks``); at the faces of blocks the partition can differ from that of the whole.
    """
    boundary_of(stack, options.kind, options.channel)  # a class that does not exist is told before any work
    offsets = offsets_for(stack.nm(), options.reach_nm)

    def find(block: Stack) -> Ids:
        return from_boundary(
            boundary_of(block, options.kind, options.channel),
            offsets,
            stride=options.stride,
            threshold=options.threshold,
            fill=options.fill and options.kind == "membrane",
        )

    if not stack.lazy:
        return stack.with_data(find(stack), "instances")
    z, y, x = (2 * max(abs(o) for o in steps) for steps in zip(*offsets, strict=True))
    return instances_by_block(stack, find, (z, y, x), repr((options, stack.classes, offsets)))


STEP = Step(MutexOptions, ("probabilities",), "instances", apply)
