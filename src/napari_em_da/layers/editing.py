"""Corrections copied from a prediction, operators on the objects of a labels layer, and accepted ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Progress
from napari_em_da.io import writing
from napari_em_da.jobs import Job
from napari_em_da.layers.analysis import apply_edit
from napari_em_da.layers.corrections import UNPAINTED, Window
from napari_em_da.layers.snapshot import Snapshot, snapshot
from napari_em_da.layers.view import GrowingLabels, class_look
from napari_em_da.volume import Volume

if TYPE_CHECKING:
    from napari_em_da.proofreading import Edit, History

Box = tuple[slice, slice, slice]
OPERATORS = ("merge", "split_by_seeds", "split_by_plane", "fill", "interpolate", "delete")


def window_box(window: Window, shape: Sequence[int]) -> Box:
    """Return a window as slices (z, y, x), cut to a volume of this shape."""
    z, y, x, height, width = window
    return (
        slice(max(0, z), min(z + 1, shape[0])),
        slice(max(0, y), min(y + height, shape[1])),
        slice(max(0, x), min(x + width, shape[2])),
    )


def require_known(prediction: Any, box: Box) -> None:
    """Raise a DataError where a segmentation in the making does not know a box yet."""
    data = prediction.data
    if isinstance(data, GrowingLabels) and not data.knows(box):
        raise DataError(
            f"Not all of this was segmented in {prediction.name!r} yet; segment it on the Segment page first."
        )


def take_prediction(corrections: Any, prediction: Any, window: Window, classes: Mapping[str, Sequence[int]]) -> int:
    """Copy what is predicted in a window into the corrections, for the user to repair; return the number of voxels.

    Parameters
    ----------
    corrections, prediction : labels layers of one shape
    window : (section, y, x, height, width)
    classes : {name: label values}
        Which values may be copied.

    Raises
    ------
    DataError
        If the shapes differ, the window is not segmented, or the layer holds objects rather than classes.
    """
    from napari_em_da.proofreading import Edit

    painted, predicted = snapshot(corrections), snapshot(prediction)
    if painted.volume.shape != predicted.volume.shape:
        raise DataError(
            f"The corrections are {painted.volume.shape}, the segmentation {predicted.volume.shape}; "
            "choose the segmentation of this image."
        )
    box = window_box(window, painted.volume.shape)
    require_known(prediction, box)
    after = np.asarray(predicted.volume.read(box))
    known = {0, *(int(v) for members in classes.values() for v in members)}
    if strange := sorted(set(np.unique(after).tolist()) - known):
        raise DataError(
            f"{prediction.name!r} holds {strange[0]}, which is no class of the run; choose its segmentation."
        )
    before = np.asarray(painted.volume.read(box))
    after = after.astype(before.dtype)
    flat = painted.flat
    where, old, new = (box[1:], before[0], after[0]) if flat else (box, before, after)
    apply_edit(corrections, Edit.between(where, old, new, "Take the prediction"))
    return int(after.size)


def edit_labels(operator: str, layer: Any, *arguments: Any, **options: Any) -> Job:
    """Prepare an operator of ``napari_em_da.proofreading`` on a labels layer; Finished carries the ``Edit``.

    Parameters
    ----------
    operator : one of ``OPERATORS``
    layer : labels layer (Z, Y, X) or (Y, X)
        In memory, or an array that is stored; not changed, see ``change_labels``.
    *arguments, **options
        Of the operator.

    Raises
    ------
    ConfigError, DataError
        If there is no such operator, or the layer cannot be changed.
    """
    if operator not in OPERATORS:
        raise ConfigError(f"There is no operator {operator!r}; there are {', '.join(OPERATORS)}.")
    from napari_em_da import proofreading

    return _edit_labels(getattr(proofreading, operator), editable(layer), arguments, options)


def _edit_labels(operator: Callable[..., Edit], data: Any, arguments: Any, options: dict[str, Any]) -> Job:
    yield Progress(0, 1, "edits", "preparing")
    edit = operator(data, *arguments, **options)
    yield Progress(1, 1, "edits", "preparing")
    yield Finished(edit)


def change_labels(layer: Any, history: History, edit: Edit | None = None, *, back: bool = False) -> Edit | None:
    """Apply an edit to a labels layer and remember it; without one redo the last one undone, or undo with ``back``.

    Returns
    -------
    Edit or None
        What was done, undone or redone; None if there is nothing to.

    Raises
    ------
    DataError
        If the layer cannot be changed, or was changed by something else there since.
    """
    data = editable(layer)
    if edit is not None:
        history.do(data, edit)
    else:
        edit = history.undo(data) if back else history.redo(data)
    if edit is not None and hasattr(layer, "refresh"):
        layer.refresh(extent=False)
        layer.events.data()  # others measure, compare and save what the layer holds
    return edit


def editable(layer: Any) -> Any:
    """Return the labels (Z, Y, X) of a layer, to be written into; of a section in memory a view of it.

    Raises
    ------
    DataError
        If they cannot be written into; it says why.
    """
    name, data = getattr(layer, "name", "layer"), layer.data
    if getattr(layer, "multiscale", False):
        raise DataError(f"{name!r} has several resolutions; open the finest one alone to change its objects.")
    if isinstance(data, GrowingLabels):
        raise DataError(f"{name!r} is still being made; segment the volume first, or duplicate the layer.")
    if getattr(layer, "editable", True) is False and not hasattr(data, "dask"):
        raise DataError(f"{name!r} is locked; unlock it on the Data page, or duplicate the layer.")
    if hasattr(data, "dask"):
        raise DataError(
            f"{name!r} is only read from its file; keep it in a project, or duplicate the layer, to edit it."
        )
    if len(data.shape) == 3:
        return data
    if len(data.shape) == 2 and isinstance(data, np.ndarray):
        return data[None]
    raise DataError(f"{name!r} has the shape {tuple(data.shape)}; objects are edited in labels (Z, Y, X).")


def accept(prediction: Any, corrections: Any, out: Path | str, *, box: Box | None = None, before: Any = None) -> Job:
    """Write a segmentation with its corrections as ground truth; Finished carries a locked labels LayerData.

    Parameters
    ----------
    prediction : labels layer of classes
    corrections : labels layer of its shape, or None
        What is painted there (not 255) counts more.
    out : Path
        New label volume.
    box : (z, y, x) slices, optional
        What is accepted; all by default. The rest is 255, not annotated.
    before : labels layer, optional
        Ground truth that was accepted earlier; it stays outside of the box.

    Raises
    ------
    ConfigError
        If the file exists.
    DataError
        If the shapes differ, not all of the box is segmented, or the segmentation uses the value 255.
    """
    out = Path(out).expanduser()
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another file.")
    taken = [snapshot(prediction, copy=True)]
    taken += [snapshot(layer, copy=True) for layer in (corrections, before) if layer is not None]
    if len({item.volume.shape for item in taken}) > 1:
        shapes = ", ".join(str(item.volume.shape) for item in taken)
        raise DataError(f"The segmentation, its corrections and ground truth differ in shape: {shapes}.")
    whole = (slice(0, n) for n in taken[0].volume.shape)
    chosen = tuple(whole) if box is None else box
    require_known(prediction, chosen)  # type: ignore[arg-type]  # three slices
    rest = iter(taken[1:])
    painted = None if corrections is None else next(rest)
    return _accept(taken[0], painted, None if before is None else next(rest), chosen, out)


def _accept(taken: Snapshot, painted: Snapshot | None, before: Snapshot | None, box: Any, out: Path) -> Job:
    import dask.array as da

    largest = 0
    for count, z in enumerate(range(box[0].start, box[0].stop), start=1):
        section = np.asarray(taken.volume.read((slice(z, z + 1), *box[1:])))
        largest = max(largest, int(section.max(initial=0)))
        if (section == UNPAINTED).any():
            raise DataError(f"The segmentation uses the value {UNPAINTED}, which means not annotated; accept classes.")
        yield Progress(count, box[0].stop - box[0].start, "sections", "accepting")
    kind = np.min_scalar_type(max(largest, UNPAINTED))
    if painted is not None:
        kind = np.result_type(kind, painted.volume.dtype)
    merged = taken.volume.data.astype(kind)
    if painted is not None:
        paint = painted.volume.data.astype(kind)
        merged = da.where(paint == UNPAINTED, merged, paint)
    inside = [np.isin(np.arange(n), np.arange(s.start, s.stop)) for n, s in zip(merged.shape, box, strict=True)]
    rest = np.asarray(UNPAINTED, kind) if before is None else before.volume.data
    where = da.from_array(inside[0], chunks=(merged.chunks[0],))[:, None, None] & (inside[1][:, None] & inside[2])
    whole = da.where(where, merged, rest)
    out.parent.mkdir(parents=True, exist_ok=True)
    yield from writing(Volume.from_array(whole, voxel_nm=taken.volume.voxel_nm), out)
    data = Volume.open(out).data
    about = {"name": "ground truth", "metadata": {"path": str(out), "ignore_label": UNPAINTED, "accepted": True}}
    yield Finished(((data[0] if taken.flat else data), {**taken.place, **about}, "labels"))


def truth_look(classes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the colours and names of ground truth of these classes; what is not annotated is transparent."""
    look = class_look(classes)
    return {"colormap": {**look["colormap"], UNPAINTED: "transparent"}, "features": look["features"]}
