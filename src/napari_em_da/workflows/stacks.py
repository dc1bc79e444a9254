"""Open a stored volume as the stack that a post-processing chain starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.lazy import computed
from napari_em_da.postprocess import Holds, Stack
from napari_em_da.postprocess._base import check_probabilities
from napari_em_da.volume import Volume, VoxelSize
from napari_em_da.workflows.plan import class_indices
from napari_em_da.workflows.sidecar import Classes, Sidecar, read_sidecar

BLOCK = (64, 512, 512)
IGNORED = 255
MOST_CLASSES = 64  # more values than that are instances


def open_stack(
    path: Path,
    *,
    holds: Holds | None = None,
    voxel_nm: VoxelSize | None = None,
    labelled: tuple[int, ...] = (),
    in_memory_gib: float = 1.0,
) -> tuple[Stack, Classes]:
    """Open a volume lazily, or into memory if it is small; return the stack and its classes with their label values.

    Notes
    -----
    What the file holds: as given; else as ``segment`` recorded beside it; else floats are probabilities, 8-bit
    integers labels and wider ones instances. A float volume without channels is the probability of one class.

    Raises
    ------
    DataError
        If the volume cannot hold that, or probabilities lie outside 0 to 1.
    """
    stack, classes = stack_of(Volume.open(path, voxel_nm=voxel_nm), read_sidecar(path), holds=holds, labelled=labelled)
    data = stack.data
    if data.size * data.dtype.itemsize <= in_memory_gib * 2**30:
        data = computed(data)
    else:
        data = data.rechunk({axis: min(size, data.shape[axis]) for axis, size in enumerate(BLOCK)})
    return stack.with_data(data), classes


def stack_of(
    volume: Volume, recorded: Sidecar | None = None, *, holds: Holds | None = None, labelled: tuple[int, ...] = ()
) -> tuple[Stack, Classes]:
    """Return a volume as a lazy stack in the volume's own chunks, and its classes; as `open_stack`."""
    path = volume.path or volume.name
    holds = holds or _recorded(recorded.holds if recorded else None) or _guess(volume)
    data: Any = volume.data
    if holds == "probabilities":
        if volume.dtype.kind != "f":
            raise DataError(
                f"{path} holds {volume.dtype} values, not probabilities from 0 to 1; give the file that segment wrote "
                "with --probabilities, or say what it holds."
            )
        data = _channels(data)
        classes = recorded.classes if recorded else _numbered(data.shape[3] - 1)
        if len(classes) != data.shape[3] - 1:
            raise DataError(
                f"{path} has {data.shape[3]} channels, but the file beside it names {len(classes)} classes and the "
                "background; delete or repair that file."
            )
    elif data.ndim != 3 or volume.dtype.kind not in "iub":
        raise DataError(f"{path} has shape {volume.shape} and type {volume.dtype}; {holds} are integers (Z, Y, X).")
    elif holds == "labels":
        classes = recorded.classes if recorded else _found(volume)
        data = class_indices(volume, classes, IGNORED)
    else:
        classes = recorded.classes if recorded else {}
        data = data.astype(np.uint64 if volume.dtype.itemsize > 4 else np.uint32)
    names = ("background", *classes)
    return Stack(data, holds, volume.voxel_nm, names, labelled), classes


def values_of(stack: Stack, classes: Classes) -> Any:
    """Return the stack's voxels as they are written: label values for labels, everything else as it is."""
    if stack.holds != "labels":
        return stack.data
    members = [0, *(values[0] for values in classes.values())]
    table = np.arange(256, dtype=np.int64)
    table[: len(members)] = members
    table = table.astype(np.min_scalar_type(int(table.max())))

    def translate(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(table[block])

    return stack.data.map_blocks(translate, dtype=table.dtype) if stack.lazy else translate(stack.data)


def _recorded(text: str | None) -> Holds | None:
    known: dict[str | None, Holds] = {"probabilities": "probabilities", "labels": "labels", "instances": "instances"}
    return known.get(text)


def _guess(volume: Volume) -> Holds:
    if volume.dtype.kind == "f":
        return "probabilities"
    return "labels" if volume.dtype.itemsize == 1 else "instances"


def _channels(data: Any) -> Any:
    """Return (Z, Y, X, C); one map becomes background and foreground. The range is checked as it is read."""
    import dask.array as da

    def checked(block: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        check_probabilities(block)
        return np.asarray(np.clip(block, 0, 1), np.float32)

    data = data.map_blocks(checked, dtype=np.float32)
    return data if data.ndim == 4 else da.stack([1 - data, data], axis=-1)


def _numbered(count: int) -> Classes:
    return {"foreground": (1,)} if count == 1 else {f"class {i}": (i,) for i in range(1, count + 1)}


def _found(volume: Volume) -> Classes:
    values: set[int] = set()
    for z in range(volume.shape[0]):
        values |= {int(v) for v in np.unique(volume.read((slice(z, z + 1),)))} - {0, IGNORED}
        if len(values) > MOST_CLASSES or min(values, default=0) < 0:
            raise DataError(
                f"{volume.path or volume.name} holds {len(values)} values or more, as instances do rather than "
                "classes; say that it holds instances."
            )
    return {str(v): (v,) for v in sorted(values)}
