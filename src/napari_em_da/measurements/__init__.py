"""Measure every object of an instance volume: size, surface, shape, place, intensity and contacts, in nm or µm.

One pass over blocks of the volume, with memory for one block and one row per object. All sums are integers (up to
16-bit intensities), so the result does not depend on the blocks.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.catalog import unknown
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Progress
from napari_em_da.io import replacing
from napari_em_da.measurements._blocks import blocks, check_labels
from napari_em_da.measurements._columns import GROUPS, NEED_EDGES, Objects
from napari_em_da.measurements._tally import Tally

Unit = Literal["nm", "um", "px"]
Table = dict[str, npt.NDArray[Any]]
Steps = Generator[Progress, None, Table]
_NM = {"nm": 1.0, "um": 1000.0}


def groups() -> dict[str, str]:
    """Return the names of all groups of columns, each with one line of help."""
    return {name: (function.__doc__ or "").splitlines()[0] for name, function in GROUPS.items()}


def measure(
    labels: Any,
    *,
    spacing: Sequence[float] | None = None,
    image: Any = None,
    columns: Sequence[str] | None = None,
    unit: Unit = "nm",
) -> Table:
    """Measure every object.

    Parameters
    ----------
    labels : integer numpy, dask or zarr array (Z, Y, X)
        Instance ids from 1 to 2^63 − 1; 0 is background, and so is 2^64 − 1 (not labelled).
    spacing : (z, y, x), optional
        Voxel size in nm; without it, everything is in voxels and ``unit`` is "px".
    image : array of the same shape, optional
        Whose intensities are measured; not complex.
    columns : sequence of str, optional
        Out of `groups`; all by default, ``intensity`` only with an image.
    unit : {"nm", "um", "px"}
        Of lengths, areas and volumes.

    Returns
    -------
    dict of str to array
        One entry per object in each, sorted by ``id``; units are part of the names, as in ``volume_nm3``.

    Raises
    ------
    ConfigError
        If a group is unknown, ``intensity`` lacks its image, or the spacing is not positive.
    DataError
        If the labels are not integer or hold negative ids, or the image has another shape or is not finite.

    Notes
    -----
    Where scikit-image's `regionprops_table` differs: centroids and lengths are in units; principal axes include the
    extent of a voxel itself (size²/12 in the covariance), without which flat objects have a thickness of 0.
    """
    steps = measure_steps(labels, spacing=spacing, image=image, columns=columns, unit=unit)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            table: Table = end.value
            return table


def measure_steps(
    labels: Any,
    *,
    spacing: Sequence[float] | None = None,
    image: Any = None,
    columns: Sequence[str] | None = None,
    unit: Unit = "nm",
) -> Steps:
    """Yield progress after each block, and return what `measure` does."""
    wanted = _wanted(columns, image)
    size, unit = _size(spacing, unit)
    check_labels(labels)
    if "intensity" not in wanted:
        image = None
    elif tuple(image.shape) != tuple(labels.shape):
        raise DataError(
            f"The image has shape {tuple(image.shape)} but the labels {tuple(labels.shape)}; crop or resample one."
        )
    elif np.dtype(image.dtype).kind not in "iubf":
        raise DataError(f"The image has type {image.dtype}; intensities are integers or floats.")
    objects = yield from _count(labels, size, unit, bool(NEED_EDGES & set(wanted)), image)
    table: Table = {"id": objects.ids}
    for name in wanted:
        table |= GROUPS[name](objects)
    return table


def contact_table(labels: Any, spacing: Sequence[float] | None = None, unit: Unit = "nm") -> Table:
    """Return every pair of objects that share a face.

    Returns
    -------
    dict of str to array
        ``id_a`` < ``id_b``, and the shared ``area_nm2``, sorted by both ids; arguments and errors as for `measure`.
    """
    size, unit = _size(spacing, unit)
    check_labels(labels)
    steps = _count(labels, size, unit, True, None)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            first, second, _faces = end.value.pairs
            return {"id_a": first, "id_b": second, f"area_{unit}2": end.value.contact_areas()}


def write_csv(table: Mapping[str, npt.NDArray[Any]], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a table with its header; the file is complete or absent.

    Raises
    ------
    DataError
        If the path exists and ``overwrite`` is false, or its folder is missing or read-only.
    """
    path = Path(path).expanduser()
    with (
        replacing(path, overwrite=overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    return path


def features(table: Mapping[str, npt.NDArray[Any]]) -> Table:
    """Return a table as the features of a napari Labels layer, which finds an object by the column ``index``."""
    return {"index": table["id"], **{name: column for name, column in table.items() if name != "id"}}


def _count(
    labels: Any, size: npt.NDArray[np.float64], unit: str, edges: bool, image: Any
) -> Generator[Progress, None, Objects]:
    tally, parts = Tally(labels.shape, edges, image), blocks(labels)
    for done, region in enumerate(parts, start=1):
        tally.add(labels, region)
        yield Progress(done, len(parts), "blocks", "measure")
    return Objects.of(tally, size, unit)


def _wanted(columns: Sequence[str] | None, image: Any) -> tuple[str, ...]:
    if columns is None:
        return tuple(name for name in GROUPS if name != "intensity" or image is not None)
    for name in columns:
        if name not in GROUPS:
            raise ConfigError(unknown("group of measurements", name, tuple(GROUPS)))
    if "intensity" in columns and image is None:
        raise ConfigError("The group 'intensity' needs an image; pass image=…, or leave the group out.")
    return tuple(dict.fromkeys(columns))


def _size(spacing: Sequence[float] | None, unit: Unit) -> tuple[npt.NDArray[np.float64], Unit]:
    """Return the voxel size in the unit of the table, and that unit."""
    if unit not in ("px", *_NM):
        raise ConfigError(unknown("unit", unit, ("nm", "um", "px")))
    if spacing is None or unit == "px":
        return np.ones(3), "px"
    size = np.asarray(spacing, np.float64)
    if size.shape != (3,) or not (np.isfinite(size) & (size > 0)).all():
        raise ConfigError(f"spacing={tuple(spacing)} must be three positive numbers, the voxel size z, y, x in nm.")
    return size / _NM[unit], unit


__all__ = ["Table", "contact_table", "features", "groups", "measure", "measure_steps", "write_csv"]
