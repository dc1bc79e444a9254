"""Region adjacency graph of superpixels: for each pair that touches, the mean boundary probability on its faces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.weights._compiled import compiled

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Graph:
    """Pairs of regions that share faces.

    Attributes
    ----------
    pairs : (E, 2) int64, ids u < v, sorted, each pair once
    mean : (E,) float64, mean boundary probability on the shared faces
    size : (E,) int64, number of shared faces
    """

    pairs: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    size: npt.NDArray[np.int64]


def adjacency(regions: npt.NDArray[Any], boundary: npt.NDArray[np.float32], core: Triple = (0, 0, 0)) -> Graph:
    """Return the graph of one block.

    Parameters
    ----------
    regions : (Z, Y, X) unsigned integers below 2^32
        0 has no faces.
    boundary : (Z, Y, X) float32
        Probability of a boundary. On a face it is the larger one of its two voxels, so that a membrane one voxel wide
        counts in full whichever side it was given to.
    core : (z, y, x)
        Where the block starts in what is given: faces count whose higher voxel lies at or beyond it. A volume cut in
        blocks, each with one voxel of its lower neighbours, so counts every face once.
    """
    ids = np.ascontiguousarray(regions, np.uint32)
    values = np.ascontiguousarray(boundary, np.float32)
    key, value = np.empty(0, np.uint64), np.empty(0, np.float32)
    count = _faces(ids, values, *core, key, value)
    key, value = np.empty(count, np.uint64), np.empty(count, np.float32)
    _faces(ids, values, *core, key, value)
    return _summed(key, value.astype(np.float64), np.ones(count, np.int64))


def merged(graphs: Iterable[Graph]) -> Graph:
    """Return the graph of several blocks: faces of the same pair are taken together."""
    parts = [_summed(np.empty(0, np.uint64), np.empty(0), np.empty(0, np.int64)), *graphs]
    pairs = np.concatenate([g.pairs for g in parts]).astype(np.uint64)
    key = (pairs[:, 0] << np.uint64(32)) | pairs[:, 1]
    return _summed(key, np.concatenate([g.mean * g.size for g in parts]), np.concatenate([g.size for g in parts]))


def _summed(key: npt.NDArray[np.uint64], value: npt.NDArray[np.float64], size: npt.NDArray[np.int64]) -> Graph:
    keys, edge = np.unique(key, return_inverse=True)
    total = np.bincount(edge, size, len(keys))
    pairs = np.stack([keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF)], 1).astype(np.int64)
    return Graph(pairs, np.bincount(edge, value, len(keys)) / total, total.astype(np.int64))


@compiled
def _faces(ids, values, z0, y0, x0, key, value):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the pair and the boundary of each face; only count them if the arrays are empty."""
    count = 0
    writing = key.shape[0] > 0
    depth, height, width = ids.shape
    for z in range(z0, depth):
        for y in range(y0, height):
            for x in range(x0, width):
                a = ids[z, y, x]
                if a == 0:
                    continue
                for axis in range(3):
                    pz, py, px = z - (axis == 0), y - (axis == 1), x - (axis == 2)
                    if pz < 0 or py < 0 or px < 0:
                        continue
                    b = ids[pz, py, px]
                    if b == 0 or b == a:
                        continue
                    if writing:
                        low, high = min(a, b), max(a, b)
                        key[count] = (np.uint64(low) << np.uint64(32)) | np.uint64(high)
                        value[count] = max(values[z, y, x], values[pz, py, px])
                    count += 1
    return count
