"""The probabilities of a finished prediction, averaged along z: piece by piece, from the working store into itself."""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.config import VoxelSize
from napari_em_da.events import Progress
from napari_em_da.inference.store import Prediction, enough_disk
from napari_em_da.postprocess._along_z import LEAST_CORRELATION, Plan, Tally, looked_at, pieces

CACHE_BYTES = 256 << 20
LESS = "Without averaging along z (smooth_z 0) half of it or less is needed; blocks may then be made again."


def smooth(prediction: Prediction, voxel_nm: VoxelSize, share: float) -> Generator[Progress, None, Plan]:
    """Write ``smoothed`` beside the ``probabilities`` of a prediction, unless nothing would change.

    Parameters
    ----------
    prediction : Prediction
        Of a network that sees single sections.
    voxel_nm : (z, y, x)
        Of the prediction, which may be coarser than the image.
    share : float
        Standard deviation along z, as a share of the width that each class has in the prediction.

    Returns
    -------
    Plan
        Idle where the sections are too thick, or the objects too thin, for anything to change.

    Raises
    ------
    ResourceError
        If the disk is full.
    """
    import zarr

    group = zarr.open_group(str(prediction.store), mode="a")
    scores: Any = group["probabilities"]
    (classes, depth, *plane), parts_px = scores.shape, scores.chunks[2:]
    steps = zip(plane, parts_px, strict=True)
    parts = pieces([[min(step, n - i) for i in range(0, n, step)] for n, step in steps])
    tally, looks = Tally(classes, depth, voxel_nm), looked_at(depth)
    for number, z in enumerate(looks):
        yield Progress(number, len(looks), "sections", "measuring widths")
        tally.measure(_largest(scores, z))
    for number, part in enumerate(parts):
        for z in range(depth):
            yield Progress(number * depth + z, len(parts) * depth, "sections", "comparing sections")
            tally.compare(z, np.asarray(scores[(slice(None), z, *part)]))
    plan = Plan.of(tally, share, LEAST_CORRELATION)
    if plan.idle:
        return plan
    result: Any = group.require_array(
        "smoothed", shape=scores.shape, chunks=scores.chunks, dtype="float32", compressors=scores.compressors
    )
    for number, part in enumerate(parts):
        bytes_each = 4 * int(np.prod([p.stop - p.start for p in part]))

        @lru_cache(maxsize=max(2 * classes, CACHE_BYTES // bytes_each))
        def read(c: int, z: int, part: Any = part) -> npt.NDArray[np.float32]:
            return np.asarray(scores[(c, z, *part)])

        for z in range(depth):
            yield Progress(number * depth + z, len(parts) * depth, "sections", "averaging along z")
            with enough_disk(LESS):
                result[(slice(None), z, *part)] = plan.average(read, z)
    return plan


def _largest(scores: Any, z: int) -> npt.NDArray[np.uint8]:
    """Return the class of the largest score in a section, reading one class at a time."""
    best, labels = np.asarray(scores[0, z]), np.zeros(scores.shape[2:], np.uint8)
    for c in range(1, scores.shape[0]):
        found = np.asarray(scores[c, z])
        labels[found > best] = c
        best = np.maximum(best, found)
    return labels
