"""Compute the pixel weight map of a label file and write it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_em_da.events import Finished, Progress, Saved
from napari_em_da.io import check_output, writing
from napari_em_da.jobs import Job
from napari_em_da.lazy import computed
from napari_em_da.volume import Volume
from napari_em_da.weights import weight_map


@dataclass(frozen=True)
class WeightsResult:
    """The file written, the smallest, mean and largest weight, and seconds."""

    output: Path
    minimum: float
    mean: float
    maximum: float
    seconds: float


def weights(
    labels: Path,
    kind: str,
    output: Path,
    floor: float | None = None,
    scale: str | None = None,
    ignore_label: int = 255,
    params: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Job:
    """Write the weight map of a label volume, lazily, and yield events; Finished carries a WeightsResult.

    Raises
    ------
    ConfigError, DataError
        Unknown kind or parameter; unreadable labels; an output that exists.
    """
    import dask.array as da

    started = time.perf_counter()
    check_output(output, overwrite=overwrite)
    volume = Volume.open(labels)
    yield Progress(0, 2, "passes", "weights")
    found = weight_map(volume.data, kind, floor=floor, scale=scale, ignore_index=ignore_label, **(params or {}))
    yield from writing(Volume(found, volume.voxel_nm, output.stem), output, overwrite=overwrite)
    yield Saved(output, "weight map")
    yield Progress(1, 2, "passes", "weights")
    data = Volume.open(output).data
    low, mean, high = map(float, computed(da.stack([data.min(), data.mean(), data.max()])))
    yield Progress(2, 2, "passes", "weights")
    yield Finished(WeightsResult(output, low, mean, high, round(time.perf_counter() - started, 1)))
