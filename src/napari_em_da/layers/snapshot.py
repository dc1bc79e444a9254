"""What a job needs of a layer, taken at once, and the file that holds it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.events import Event, Notice
from napari_em_da.io import writing
from napari_em_da.volume import Volume, VoxelSize

LayerData = tuple[Any, dict[str, Any], str]

NM_PER_UNIT = {
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "micrometer", "micrometre", "micrometers"), 1e3),
    **dict.fromkeys(("angstrom", "å", "Å"), 0.1),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
}
NO_LENGTH = ("", "pixel", "pixels", "px", "dimensionless")
PLACE = ("scale", "translate", "units", "axis_labels", "rotate", "shear", "affine")


@dataclass(frozen=True)
class Snapshot:
    """What a job needs of a layer, taken at once: the job never touches the layer again.

    Attributes
    ----------
    volume : Volume
        (Z, Y, X), of the voxel size that the layer's scale and units say, or None in pixel units.
    path : Path or None
        The file that the layer was opened from.
    place : dict
        ``scale``, ``translate``, … as the layer has them, for the layers that come out.
    flat : bool
        The layer is one section (Y, X); the volume has one all the same.
    """

    volume: Volume
    path: Path | None = None
    place: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False


def snapshot(layer: Any, *, copy: bool = False) -> Snapshot:
    """Take what a job needs of a layer, a LayerData tuple or an array.

    Parameters
    ----------
    layer : layer, (data, kwargs, type) tuple or array
        2D or 3D; of a multiscale layer the finest level counts.
    copy : bool
        Copy arrays that are in memory, so that editing the layer does not change the running job.

    Raises
    ------
    DataError
        If the layer is RGB, not 2D or 3D, or its units are no lengths.
    """
    if isinstance(layer, Snapshot):
        return layer
    if isinstance(layer, tuple):
        data, given = layer[0], dict(layer[1]) if len(layer) > 1 else {}
    elif hasattr(layer, "scale") or not hasattr(layer, "dtype"):
        names = (*PLACE, "name", "rgb", "multiscale", "metadata")
        data, given = layer.data, {k: getattr(layer, k) for k in names if hasattr(layer, k)}
    else:
        data, given = layer, {}
    name = str(given.get("name") or "layer")
    if given.get("multiscale"):
        data = data[0]
    if given.get("rgb"):
        raise DataError(f"The layer {name!r} is a colour picture; convert it to grey values (one channel) first.")
    if len(data.shape) not in (2, 3):
        raise DataError(
            f"The layer {name!r} has {len(data.shape)} axes {tuple(data.shape)}: a time series, or several channels. "
            "Choose one stack (Z, Y, X); the Data page can keep the one in view."
        )
    path = getattr(getattr(layer, "source", None), "path", None) or (given.get("metadata") or {}).get("path")
    volume = Volume.from_array(np.array(data) if copy and isinstance(data, np.ndarray) else data, name=name)
    size = voxel_size(given.get("scale"), given.get("units"), name)
    place = {k: given[k] for k in PLACE if given.get(k) is not None}
    path = None if path is None else Path(path)
    return Snapshot(Volume(volume.source, size, name), path, place, len(data.shape) == 2)


def voxel_size(scale: Any, units: Any, name: str = "layer") -> VoxelSize | None:
    """Return the voxel size (z, y, x) in nm of a layer's scale and units, or None where they are pixels.

    A 2D layer gets its y pixel size as z.

    Raises
    ------
    DataError
        If a unit is no length that is known here.
    """
    if scale is None or units is None:
        return None
    steps = [abs(float(s)) for s in scale][-3:]
    one = isinstance(units, str) or not hasattr(units, "__len__")
    names = [str(unit).lower() for unit in ([units] * len(steps) if one else units)][-len(steps) :]
    if any(unit in NO_LENGTH for unit in names):
        return None
    try:
        sizes = [s * NM_PER_UNIT[unit] for s, unit in zip(steps, names, strict=True)]
    except KeyError as unit:
        raise DataError(
            f"The layer {name!r} is scaled in {unit}; set its units to 'nm' or 'um' (lengths), or to 'pixel'."
        ) from None
    z, y, x = sizes if len(sizes) == 3 else (sizes[0], *sizes)
    return (z, y, x)


def as_file(taken: Snapshot, path: Path, *, exact: bool) -> Generator[Event, None, Path]:
    """Return a file with the layer's voxels: the one it came from if that still holds them, else ``path``, written now.

    ``exact`` compares every voxel; otherwise a fixed sample of whole sections.
    """
    if taken.path is not None and unchanged(taken, exact=exact):
        return taken.path
    yield Notice(f"No file holds the layer {taken.volume.name!r} as it is now; a copy is written to {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = taken.volume
    if exact and volume.dtype.kind in "ui":
        volume = smallest(volume)
    yield from writing(volume, path, overwrite=True)
    return path


def unchanged(taken: Snapshot, *, exact: bool) -> bool:
    """Return whether the file that a layer came from still holds the layer's voxels."""
    try:
        saved = Volume.open(taken.path or "")
    except DataError:  # gone, or in a format that another plugin has read
        return False
    own = taken.volume
    if saved.shape != own.shape:
        return False
    if not exact:
        return saved.fingerprint == own.fingerprint
    sections = ((slice(z, z + 1),) for z in range(own.shape[0]))
    return all(np.array_equal(saved.read(region), own.read(region)) for region in sections)


def smallest(labels: Volume) -> Volume:
    """Return labels in the smallest type that holds them: napari's int64 would be eight times the file."""
    ends = [(int(s.min()), int(s.max())) for s in (labels.read((slice(z, z + 1),)) for z in range(labels.shape[0]))]
    kind = np.result_type(np.min_scalar_type(min(e[0] for e in ends)), np.min_scalar_type(max(e[1] for e in ends)))
    if kind.itemsize >= labels.dtype.itemsize:
        return labels
    return Volume(labels.data.astype(kind), labels.voxel_nm, labels.name)


def compact(labels: Any) -> npt.NDArray[Any]:
    """Return labels (any shape, not negative) in the smallest type: napari colours 8 and 16 bits by a quick table."""
    wide: npt.NDArray[Any] = np.asarray(labels)
    return wide.astype(np.min_scalar_type(int(wide.max(initial=0))), copy=False)
