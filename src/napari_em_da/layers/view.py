"""The section in view, segmented at once; labels that appear while a job writes them; and what a class looks like."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError
from napari_em_da.io import working_store
from napari_em_da.jobs import Job
from napari_em_da.layers.jobs import _file_name, free_name
from napari_em_da.layers.snapshot import LayerData, Snapshot, snapshot
from napari_em_da.volume import Volume

Box = tuple[slice, slice, slice]
WHOLE_PX = 2048  # sections up to this size are segmented whole
COLOURS = (  # colours that people with any colour vision tell apart: Okabe and Ito 2008, then Tol 2021 (muted)
    *("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"),
    *("#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499"),
)
KNOWN = {  # structures that many volumes have, each by a colour of its own
    "mitochondria": 0,
    "mitochondrion": 0,
    "mito": 0,
    "vesicle": 1,
    "vesicles": 1,
    "nucleus": 2,
    "nuclei": 2,
    "er": 3,
    "endoplasmic reticulum": 3,
    "membrane": 4,
    "membranes": 4,
    "boundary": 4,
    "synapse": 5,
    "synapses": 5,
    "golgi": 6,
}


def class_colours(classes: Mapping[str, Sequence[int]]) -> dict[int | None, str]:
    """Return {label value: colour} of classes; background, and values of no class, are transparent.

    Parameters
    ----------
    classes : {name: label values}

    Notes
    -----
    The colour comes from the name, so that a class looks the same wherever it is shown. Where two names of one list
    would share a colour, the later one in the alphabet takes the next free one.
    """
    taken: dict[str, int] = {}
    for name in sorted(classes, key=lambda n: (n.casefold() not in KNOWN, n.casefold())):
        place = KNOWN.get(name.casefold(), zlib.crc32(name.casefold().encode()) % len(COLOURS))
        while place in taken.values() and len(taken) < len(COLOURS):
            place = (place + 1) % len(COLOURS)
        taken[name] = place
    colours: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    return colours | {int(value): COLOURS[taken[name]] for name, values in classes.items() for value in values}


def class_look(classes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the colours and the table of names that a labels layer of these classes has."""
    names = {int(members[0]): name for name, members in classes.items()}
    features = {"index": [0, *names], "class": ["background", *names.values()]}
    return {"colormap": class_colours(classes), "features": features}


def run_classes(run: Path | str) -> dict[str, tuple[int, ...]]:
    """Return {name: label values} of a run folder; cheap, to be asked before a job starts.

    Raises
    ------
    DataError
        If the folder is no run, has no weights yet, or is of another version.
    """
    folder = Path(run).expanduser()
    path = folder / "run.json"
    if not (folder / "config.yaml").is_file():
        raise DataError(f"{folder} is no run folder: it has no config.yaml. Choose the folder that a training made.")
    if not any((folder / f"{which}.safetensors").is_file() for which in ("best", "last")) or not path.is_file():
        raise DataError(f"{folder} has no network yet: the training stopped before its first checkpoint. Resume it.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["classes"]
        return {str(name): tuple(int(v) for v in members) for name, members in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path} is damaged, or was made by another version of this package; train the run again."
        ) from None


def view_box(shape: Sequence[int], section: int, corners: Any, *, depth: int = 1) -> Box:
    """Return the box to segment for what is in view.

    Parameters
    ----------
    shape : (z, y, x)
    section : int
        In view; the middle of the box.
    corners : (2, 2) array of (y, x)
        First and last pixel in view.
    depth : int
        Sections.

    Returns
    -------
    (z, y, x) slices
        A single section is taken whole up to 2048 x 2048 pixels.
    """
    z, y, x = (int(n) for n in shape[:3])
    low = min(max(0, section - depth // 2), max(0, z - depth))
    planes = slice(low, min(z, low + depth))
    if depth == 1 and y <= WHOLE_PX and x <= WHOLE_PX:
        return planes, slice(0, y), slice(0, x)
    (y0, x0), (y1, x1) = np.asarray(corners, float)
    rows, columns = (max(0, int(y0)), min(y, int(y1) + 1)), (max(0, int(x0)), min(x, int(x1) + 1))
    return planes, slice(*rows), slice(*columns)


def segment_view(
    image: Any,
    run: Path | str,
    section: int | slice,
    box: tuple[slice, slice] | None = None,
    **options: Any,
) -> Job:
    """Segment a section, or a region, of a layer and yield events; Finished carries a ``ViewResult``.

    Parameters
    ----------
    image : layer
        Of a multiscale layer, the full resolution counts.
    run : Path
        Run folder; its network stays loaded for the next call.
    section : int or slice
    box : (rows, columns), optional
        All of the section if absent.
    **options
        ``checkpoint``, ``tta``, ``precision``, ``device``, ``probabilities`` and ``voxel_nm``, as in ``segment``.

    Notes
    -----
    The labels equal those of the whole segmentation: same intensities (of the whole volume), blocks and resampling.
    """
    taken = snapshot(image)
    planes = section if isinstance(section, slice) else slice(section, section + 1)
    rows, columns = box or (slice(None), slice(None))
    return _segment_view(taken, Path(run).expanduser(), (planes, rows, columns), options)


def _segment_view(taken: Snapshot, run: Path, box: Box, options: dict[str, Any]) -> Job:
    run_classes(run)
    from napari_em_da.workflows.view import view as job

    yield from job(_in_nm(taken, options.pop("voxel_nm", None)), run, box, **options)


def _in_nm(taken: Snapshot, voxel_nm: Any) -> Volume:
    """Return the volume with the voxel size that ``segment`` would use: given, the layer's, or its file's."""
    size = voxel_nm or taken.volume.voxel_nm
    if size is None and taken.path is not None:
        try:
            size = Volume.open(taken.path).voxel_nm
        except DataError:  # a format that another plugin has read
            size = None
    return replace(taken.volume, voxel_nm=size)


class GrowingLabels:
    """Labels (Z, Y, X) that appear while they are made: what was looked at, then what a job has written so far.

    Parameters
    ----------
    shape : (z, y, x)
    classes : {name: label values}
        Of the run.

    Notes
    -----
    An array to napari: ``shape``, ``dtype`` and slicing. Only what is asked for is read, so a volume may be larger
    than the memory. It is read-only.
    """

    def __init__(self, shape: Sequence[int], classes: Mapping[str, Sequence[int]]) -> None:
        self.classes = {name: tuple(members) for name, members in classes.items()}
        values = [0, *(int(members[0]) for members in classes.values())]
        self._table = np.array(values, np.min_scalar_type(max(values)))
        self.shape = tuple(int(n) for n in shape)
        self.ndim, self.dtype, self.size = len(self.shape), self._table.dtype, int(np.prod(self.shape, dtype=np.int64))
        self._seen: dict[int, npt.NDArray[Any]] = {}
        self._known: dict[int, npt.NDArray[np.bool_]] = {}
        self._store: Path | None = None
        self._arrays: dict[str, Any] = {}

    def put(self, box: Box, labels: npt.NDArray[Any]) -> None:
        """Show label values (Z, Y, X) in a box."""
        for z, section in zip(range(box[0].start, box[0].stop), labels, strict=True):
            if z not in self._seen:
                self._seen[z] = np.zeros(self.shape[1:], self.dtype)
                self._known[z] = np.zeros(self.shape[1:], bool)
            self._seen[z][box[1:]] = section
            self._known[z][box[1:]] = True

    def knows(self, box: Box) -> bool:
        """Return whether all of a box was put."""
        return all(z in self._known and bool(self._known[z][box[1:]].all()) for z in range(box[0].start, box[0].stop))

    def follow(self, output: Path) -> None:
        """Show the finished blocks of the segmentation that is being written to ``output``."""
        self._store, self._arrays = working_store(output), {}

    def section(self, z: int) -> npt.NDArray[Any]:
        """Return one section (Y, X)."""
        written = self._written(z)
        if written is None:
            written = np.zeros(self.shape[1:], self.dtype)
        if z in self._seen:
            return np.where(self._known[z], self._seen[z], written)
        return written

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        parts = key if isinstance(key, tuple) else (key,)
        first, rest = (parts[0], parts[1:]) if parts and parts[0] is not Ellipsis else (slice(None), parts)
        if isinstance(first, int | np.integer):
            return np.asarray(self.section(int(first) % self.shape[0])[rest or ...])
        numbers = range(self.shape[0])[first] if isinstance(first, slice) else [int(z) for z in np.asarray(first)]
        inner = rest or (slice(None),)
        empty = np.zeros(self.shape[1:], self.dtype)[inner][None][:0]
        return np.concatenate([empty, *(self.section(z)[inner][None] for z in numbers)])

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype)

    def _written(self, z: int) -> npt.NDArray[Any] | None:
        """Return what the working store holds of a section; None where there is no store."""
        if self._store is not None and not self._arrays and self._store.is_dir():
            from napari_em_da.inference.store import open_arrays

            self._arrays = open_arrays(self._store)
        if "labels" not in self._arrays:
            return None
        found = np.asarray(self._arrays["labels"][z])
        if found.shape != self.shape[1:]:  # at the pixel size of the network
            rows, columns = (_nearest(n, of) for n, of in zip(self.shape[1:], found.shape, strict=True))
            found = found[rows[:, None], columns]
        return np.asarray(self._table[found])


def _nearest(n: int, of: int) -> npt.NDArray[np.intp]:
    """Return which of so many pixels lies nearest to each of n pixels on the same length."""
    return ((np.arange(n) + 0.5) * of / n).astype(np.intp)


def growing_layer(labels: GrowingLabels, image: Snapshot, classes: Mapping[str, Sequence[int]]) -> LayerData:
    """Return growing labels as a labels layer at the image's place."""
    about = {"name": f"{image.volume.name} segmentation", **class_look(classes)}
    data: Any = labels.section(0) if image.flat else labels
    return data, {**image.place, **about}, "labels"


def uncertainty_layer(result: Any, like: Any) -> LayerData:
    """Return 1 - the largest probability of each voxel as a lazy image layer: 0 where the network is sure.

    Parameters
    ----------
    result : SegmentResult
        With probabilities.
    like : layer or Snapshot
        The image that was segmented.
    """
    if result.probabilities is None:
        raise DataError("No probabilities were written; segment again with them.")
    taken = snapshot(like)
    data = 1 - Volume.open(result.probabilities).data.max(axis=-1)
    look = {"name": f"{taken.volume.name} uncertainty", "colormap": "inferno", "blending": "additive"}
    most = 1 - 1 / (1 + len(result.classes))  # all classes equally likely
    return (data[0] if taken.flat else data), {**taken.place, **look, "contrast_limits": (0.0, most)}, "image"


def segmentation_file(image: Snapshot, run: Path) -> Path:
    """Return where ``segment`` writes the labels of a layer when it is not told."""
    return free_name(run / "segmentations" / f"{_file_name(image.volume.name)}.tif")


def finished_share(output: Path) -> float | None:
    """Return how much of a cancelled segmentation of ``output`` is kept, 0 to 1; None if nothing is."""
    store = working_store(Path(output))
    if not store.is_dir():
        return None
    from napari_em_da.inference.store import finished_share as share

    return share(store)
