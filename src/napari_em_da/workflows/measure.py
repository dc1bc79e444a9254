"""Measure every object of an instance volume and write a table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from napari_em_da.config import MeasureConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Notice, Saved
from napari_em_da.io import check_place
from napari_em_da.jobs import Job
from napari_em_da.measurements import measure_steps, write_csv
from napari_em_da.volume import Volume


@dataclass(frozen=True)
class MeasureResult:
    """The file written, the number of objects, its columns, and seconds."""

    output: Path
    objects: int
    columns: tuple[str, ...]
    seconds: float


def measure(config: MeasureConfig) -> Job:
    """Measure the objects of ``config.labels`` and yield events; Finished carries a MeasureResult.

    Raises
    ------
    ConfigError
        If lengths are asked for in nm or um and nobody said the voxel size, or a column is unknown.
    DataError
        If the labels are no integers, the image has another shape, or the output exists.
    """
    started = time.perf_counter()
    check_place(config.output, overwrite=config.overwrite)
    labels = Volume.open(config.labels, voxel_nm=config.voxel_nm)
    image = None if config.image is None else Volume.open(config.image)
    if image is not None and image.shape != labels.shape:
        raise DataError(f"{config.image} has shape {image.shape}, but {config.labels} has {labels.shape}.")
    if labels.voxel_nm is None and config.unit != "px":
        raise ConfigError(f"The voxel size of {config.labels} is unknown; give --voxel-nm, or measure with --unit px.")
    spacing = None if config.unit == "px" else labels.voxel_nm
    if spacing is not None:
        yield Notice(f"Voxel size {', '.join(f'{v:g}' for v in spacing)} nm; measuring in {config.unit}.")
    table = yield from measure_steps(
        labels.data,
        spacing=spacing,
        image=None if image is None else image.data,
        columns=config.columns,
        unit=config.unit,
    )
    write_csv(table, config.output, overwrite=config.overwrite)
    yield Saved(config.output, "measurements")
    objects = len(next(iter(table.values()), ()))
    if not objects:
        yield Notice("No object was found: every voxel is 0.", "warning")
    yield Finished(MeasureResult(config.output, objects, tuple(table), round(time.perf_counter() - started, 1)))
