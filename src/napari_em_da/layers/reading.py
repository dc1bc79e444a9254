"""What napari's File menu calls: open volumes lazily with their voxel size, and write layers whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from napari_em_da.errors import DataError
from napari_em_da.events import Finished
from napari_em_da.io import READERS
from napari_em_da.layers.opening import open_layer
from napari_em_da.layers.snapshot import LayerData, smallest, snapshot
from napari_em_da.volume import Volume

LABEL_WORDS = ("label", "segment", "mask", "truth", "instances")
Reader = Callable[[str | Sequence[str]], list[LayerData]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return the function that opens a file or folder, or None where no reader of ours knows it.

    Parameters
    ----------
    path : str
        A TIFF file, a folder of sections or a zarr array. Several paths that shall become one stack are left to other
        readers: a folder of sections is opened as a whole.
    """
    if not isinstance(path, str | Path) or not Path(path).expanduser().exists():
        return None
    if all(READERS[name].cannot_read(Path(path).expanduser()) is not None for name in READERS.names()):
        return None
    return read


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Open files or folders lazily as layers with scale, units and axis labels.

    Integers are labels where the name says so, or where they have 32 bits or more, as no microscope gives them.

    Raises
    ------
    DataError
        If a file is damaged; it names the file and what is wrong with it.
    """
    return [_read(Path(one).expanduser()) for one in ([path] if isinstance(path, str | Path) else path)]


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer with its voxel size to .tif or .zarr, and return the path.

    Raises
    ------
    DataError
        If the layer is no (Z, Y, X) or (Y, X), its units are no lengths, or the suffix is unknown.
    ResourceError
        If the disk has too little space; what was there before stays.
    """
    return _write(path, data, attributes, "labels")


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an image layer with its voxel size to .tif or .zarr, and return the path; see ``write_labels``."""
    return _write(path, data, attributes, "image")


def _read(path: Path) -> LayerData:
    kind: Literal["image", "labels"] = "labels" if _is_labels(Volume.open(path)) else "image"
    events = list(open_layer(path, kind))
    return cast(LayerData, cast(Finished, events[-1]).result)


def _is_labels(volume: Volume) -> bool:
    named = any(word in volume.name.lower() for word in LABEL_WORDS)
    return len(volume.shape) == 3 and volume.dtype.kind in "ui" and (named or volume.dtype.itemsize >= 4)


def _write(path: str, data: Any, attributes: dict[str, Any], kind: str) -> list[str]:
    taken = snapshot((data, attributes, kind))
    volume = taken.volume
    if volume.dtype.kind not in "buif":
        raise DataError(f"The layer {volume.name!r} holds {volume.dtype}; only numbers can be written.")
    if kind == "labels" and np.dtype(volume.dtype).itemsize > 1:
        volume = smallest(volume)
    return [str(volume.save(Path(path).expanduser(), overwrite=True))]
