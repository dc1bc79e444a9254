"""Segment what is in view, at once: a box of a volume, exactly as the segmentation of the whole volume will show it."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.device import choose_device, choose_precision
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Notice, Progress
from napari_em_da.inference.look import Piece, look
from napari_em_da.inference.predict import Ready
from napari_em_da.jobs import Job
from napari_em_da.lazy import computed
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Intensity, Volume
from napari_em_da.workflows.segment import resample, resize_sections, scale_factor, spacing_step

Box = tuple[slice, slice, slice]
KEPT = 2  # networks that stay loaded
MARGIN = 8  # px around a box that resampling can look at


@dataclass(frozen=True, eq=False)
class ViewResult:
    """A segmented box.

    Attributes
    ----------
    box : (z, y, x) slices
    labels : (Z, Y, X)
        Label values, as the whole segmentation has them.
    probabilities : (classes, Z, Y, X) float32, or None
        Background first.
    classes : {name: label values}
    seconds : float
    """

    box: Box
    labels: npt.NDArray[Any] = field(repr=False)
    probabilities: npt.NDArray[np.float32] | None = field(repr=False)
    classes: dict[str, tuple[int, ...]]
    seconds: float


def view(
    volume: Volume,
    run: Path,
    box: Box,
    *,
    checkpoint: Literal["best", "last"] = "best",
    tta: bool = False,
    precision: str = "auto",
    device: str = "auto",
    probabilities: bool = False,
) -> Job:
    """Segment a box of a volume with a run and yield Progress in blocks; Finished carries a ViewResult.

    Parameters
    ----------
    volume : Volume
        The whole volume (Z, Y, X), with its voxel size.
    run : Path
        Run folder.
    box : (z, y, x) slices
        Cut to the volume.
    checkpoint, tta, precision, device
        As in ``SegmentConfig``.
    probabilities : bool
        Also return the probabilities.

    Raises
    ------
    ConfigError
        If the box lies outside the volume.
    DataError
        If the run cannot be used.
    ResourceError
        If a device is missing, or memory does not suffice.

    Notes
    -----
    The network stays loaded between calls, and the intensities of a volume are sampled once: after the first call only
    the blocks themselves cost time. Intensities, blocks and resampling are those of the whole volume, so that the
    labels equal the same box of the whole segmentation.
    """
    started = time.perf_counter()
    folder = RunFolder.open(run)
    info = run_info(folder)
    box = inside(box, volume.shape)
    yield Progress(0, 1, "networks", "loading")
    ready = loaded(folder, checkpoint, tta, precision, device)
    yield Progress(0, 1, "volumes", "reading")
    intensity = intensity_of(volume)
    step, notice = spacing_step(volume, info.get("section_nm"))
    if notice:
        yield Notice(notice.text, notice.level)
    classes = {str(name): tuple(members) for name, members in info["classes"].items()}
    values = [0, *(members[0] for members in classes.values())]
    table = np.array(values, np.min_scalar_type(max(values)))
    factor = scale_factor(volume, info["pixel_nm"])
    at_scale = volume if factor is None else resample(volume, factor)
    size, full = sizes(box), at_scale.shape[1:3]
    seen = box if factor is None else scaled(box, factor, full)
    kept = (size[1], size[2]) if factor is None else (int(full[0]), int(full[1]))
    corner = (box[1].start, box[2].start) if factor is None else (0, 0)
    scores = np.zeros((len(values), size[0], *kept), np.float32) if probabilities or factor is not None else None
    indices = np.zeros((size[0], *kept), np.uint8)
    found = look(ready, at_scale, intensity, seen, section_step=step, probabilities=scores is not None)
    for done, total, pieces in found:
        for piece in pieces:
            put(piece, box[0].start, corner, indices, scores)
        yield Progress(done, total, "blocks", "segment")
    if factor is not None and scores is not None:
        scores = back(scores, volume.shape[1:3], box)
        indices = scores.argmax(0).astype(np.uint8)
    seconds = round(time.perf_counter() - started, 2)
    yield Finished(ViewResult(box, table[indices], scores if probabilities else None, classes, seconds))


def put(
    piece: Piece, first: int, corner: tuple[int, int], indices: npt.NDArray[Any], scores: npt.NDArray[Any] | None
) -> None:
    """Copy what a piece and the arrays have in common; ``first`` section and ``corner`` are the arrays' origin."""
    low = [max(s.start, c) for s, c in zip((piece.rows, piece.columns), corner, strict=True)]
    ends = [c + n for c, n in zip(corner, indices.shape[1:], strict=True)]
    high = [min(s.stop, e) for s, e in zip((piece.rows, piece.columns), ends, strict=True)]
    if low[0] >= high[0] or low[1] >= high[1]:
        return
    rows, columns = (slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
    starts = (piece.rows.start, piece.columns.start)
    own_rows, own_columns = (slice(a - s, b - s) for a, b, s in zip(low, high, starts, strict=True))
    indices[piece.z - first, rows, columns] = piece.labels[own_rows, own_columns]
    if scores is not None and piece.scores is not None:
        scores[:, piece.z - first, rows, columns] = piece.scores[:, own_rows, own_columns]


def back(scores: npt.NDArray[np.float32], size: tuple[int, ...], box: Box) -> npt.NDArray[np.float32]:
    """Resize whole sections (C, Z, Y, X) to the volume's own pixels, as the whole segmentation is, and cut the box."""
    import dask.array as da

    whole = resize_sections(da.from_array(np.moveaxis(scores, 0, -1), chunks=(1, -1, -1, -1)), size)
    cut: npt.NDArray[np.float32] = computed(whole[:, box[1], box[2]])
    return np.ascontiguousarray(np.moveaxis(cut, -1, 0))


def scaled(box: Box, factor: float, full: tuple[int, ...]) -> Box:
    """Return the network's pixels that a box of the volume is made of."""
    margin = math.ceil(MARGIN * max(1.0, factor))
    plane = [
        slice(max(0, math.floor(s.start * factor) - margin), min(n, math.ceil(s.stop * factor) + margin))
        for s, n in zip(box[1:], full, strict=True)
    ]
    return box[0], plane[0], plane[1]


def inside(box: Box, shape: tuple[int, ...]) -> Box:
    """Cut a box to the volume; a ConfigError if nothing is left."""
    cut = [slice(*part.indices(n)[:2]) for part, n in zip(box, shape, strict=False)]
    if any(part.start >= part.stop for part in cut):
        raise ConfigError(f"The region in view lies outside the image of {shape[:3]} voxels; move the view onto it.")
    return cut[0], cut[1], cut[2]


def sizes(box: Box) -> tuple[int, int, int]:
    """Return the number of voxels per axis."""
    z, y, x = (part.stop - part.start for part in box)
    return z, y, x


def run_info(folder: RunFolder) -> dict[str, Any]:
    """Return what a run found out; a DataError where the folder is damaged or of another version."""
    info = folder.info()
    absent = [name for name in ("classes", "network", "pixel_nm") if name not in info]
    if absent:
        raise DataError(
            f"{folder.path} was made by another version of this package: its run.json lacks {', '.join(absent)}. "
            "Train it again."
        )
    return info


_ready: OrderedDict[tuple[Any, ...], Ready] = OrderedDict()
_intensities: dict[int, tuple[weakref.ref[Any], Intensity]] = {}
_lock = threading.Lock()


def loaded(folder: RunFolder, checkpoint: Literal["best", "last"], tta: bool, precision: str, device: str) -> Ready:
    """Return the run's network on its device; the last two stay loaded until their checkpoint changes."""
    weights = folder.last if checkpoint == "last" or not folder.best.is_file() else folder.best
    target = choose_device(device)
    changed = weights.stat().st_mtime_ns if weights.is_file() else 0
    key = (weights.resolve(), changed, tta, str(choose_precision(precision, target)), str(target))
    with _lock:
        if key not in _ready:
            _ready[key] = Ready(folder.network(checkpoint), tta=tta, precision=precision, device=device)
        _ready.move_to_end(key)
        while len(_ready) > KEPT:
            _ready.popitem(last=False)
        return _ready[key]


def intensity_of(volume: Volume) -> Intensity:
    """Return the intensities of a volume, sampled once as long as its voxels are held by the same object."""
    key = id(volume.source)
    kept = _intensities.get(key)
    if kept is not None and kept[0]() is volume.source:
        return kept[1]
    found = volume.intensity
    with suppress(TypeError):  # an array that nobody can watch is sampled each time
        _intensities[key] = weakref.ref(volume.source, lambda _gone: _intensities.pop(key, None)), found
    return found
