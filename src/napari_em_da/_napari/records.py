"""Layers as a project remembers them, and back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_em_da import layers
from napari_em_da._napari.session import Role, Session
from napari_em_da.errors import DataError, EmDaError
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.project import LabelClass, LayerRecord, Project, StrokeStore

RECORDED: dict[Role, str] = {
    "source": "source image",
    "labels": "source labels",
    "target": "target image",
    "truth": "ground truth",
    "prediction": "prediction",
    "corrections": "corrections",
}
JOIN = ", "  # between the roles of a layer that plays several
LOOK = ("opacity", "blending", "visible")
IMAGE_LOOK = ("contrast_limits", "gamma")


@dataclass
class Opened:
    """A remembered layer that was opened again: its record, its LayerData and its strokes, if it has any."""

    record: LayerRecord
    data: Any
    about: dict[str, Any]
    store: StrokeStore | None = None


@dataclass
class Reopened:
    """All that could be opened of a project, and a sentence for each layer that could not."""

    layers: list[Opened] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def can_be_kept(layer: Layer) -> bool:
    """Return whether a project can remember a layer: an image or labels, and no preview."""
    return isinstance(layer, Image | Labels) and not layer.metadata.get("preview")


def path_of(layer: Layer) -> Path | None:
    """Return the file or folder that a layer was opened from."""
    path = layer.source.path or layer.metadata.get("path")
    return None if path in (None, "", "None") else Path(path)


def record_of(layer: Layer, session: Session, path: Path | None) -> LayerRecord:
    """Return what a project remembers of a layer; its strokes are added by the project."""
    roles = [RECORDED[role] for role in RECORDED if session.layer(role) is layer]
    size = None
    with suppress(DataError):  # a unit that is no length: kept in units and scale
        size = layers.layer_voxel(layer)
    labels = isinstance(layer, Labels)
    return LayerRecord(
        name=layer.name,
        kind="labels" if labels else "image",
        role=JOIN.join(roles),
        path=path,
        voxel_nm=size,
        axis_labels=tuple(map(str, layer.axis_labels)),
        units=tuple(map(str, layer.units)),
        scale=tuple(map(float, layer.scale)),
        translate=tuple(map(float, layer.translate)),
        classes=_classes(layer, session) if labels else (),
        locked=labels and not layer.editable,
        display=_look(layer),
    )


def roles_of(record: LayerRecord) -> list[Role]:
    """Return the roles that a remembered layer plays."""
    said = record.role.split(JOIN)
    return [role for role, text in RECORDED.items() if text in said]


def reopening(project: Project) -> Job:
    """Open the layers of a project and yield events; Finished carries what was opened and what was not.

    What is missing or damaged is no error: the rest opens.
    """
    found = Reopened(problems=list(project.missing().values()))
    records = [record for record in project.layers() if record.missing() is None]
    for done, record in enumerate(records):
        yield Progress(done, len(records), "layers", f"opening {record.name}")
        try:
            opened = _opened(project, record)
        except (EmDaError, OSError) as error:
            found.problems.append(f"The layer {record.name!r} cannot be opened: {error}")
            continue
        if opened is None:
            found.problems += unkept(record)
        else:
            found.layers.append(opened)
    yield Finished(found)


def unkept(record: LayerRecord) -> list[str]:
    """Return what to say of a layer that the project has no voxels of.

    Of labels, those are only a segmentation that was never finished, or what a round of corrections has shown.
    """
    if record.kind == "labels" and record.role in ("", RECORDED["prediction"]):
        return [f"The segmentation {record.name!r} was not finished; segment the image again."] if record.role else []
    return [f"The layer {record.name!r} came from no file; add it again."]


def layer_of(opened: Opened) -> Layer:
    """Return the layer as it was left, lock and colours included."""
    record = opened.record
    layer = Layer.create(opened.data, opened.about, record.kind)
    if isinstance(layer, Labels):
        _colour(layer, record)
        layer.editable = not record.locked
    return layer


def _opened(project: Project, record: LayerRecord) -> Opened | None:
    about: dict[str, Any] = {}
    store = None
    if record.strokes is not None:
        store = project.strokes(record.name)
        data = store.load()
        if record.path is not None:
            about["metadata"] = {"path": str(record.path)}
    elif record.path is not None:
        events = list(layers.open_layer(record.path, record.kind, name=record.name))
        data, about, kind = cast(Finished, events[-1]).result
        if kind != record.kind:
            raise DataError(f"{record.path} holds no integers any more; choose the label file again.")
    else:
        return None
    axes = len(data.shape) - bool(about.get("rgb"))
    if len(record.scale) == axes - 1 and data.shape[0] == 1:  # a single section, as a file holds it
        data, axes = data[0], axes - 1
        about = {key: value for key, value in about.items() if key not in ("scale", "units", "axis_labels")}
    for key in ("scale", "translate", "units", "axis_labels"):
        values = getattr(record, key)
        if len(values) == axes:
            about[key] = values
    known = LOOK if record.kind == "labels" else (*LOOK, *IMAGE_LOOK, "colormap")
    about |= {key: value for key, value in record.display.items() if key in known}
    return Opened(record, data, {**about, "name": record.name}, store)


def _look(layer: Layer) -> dict[str, Any]:
    look = {key: getattr(layer, key) for key in LOOK} | {"blending": str(layer.blending)}
    if isinstance(layer, Image) and not layer.rgb:
        look |= {"contrast_limits": [float(v) for v in layer.contrast_limits], "gamma": float(layer.gamma)}
        if layer.colormap.name in ("gray", "red", "green", "blue", "cyan", "magenta", "yellow", "viridis", "magma"):
            look["colormap"] = layer.colormap.name
    return look


def _classes(layer: Labels, session: Session) -> tuple[LabelClass, ...]:
    """Return names and colours of label values: what the session calls them, and colours given one by one."""
    names: dict[int, str] = {}
    if session.layer("labels") is layer:
        names = {value: name for name, values in session.classes.items() for value in values}
    elif "class" in layer.features and "index" in layer.features:
        rows = zip(layer.features["index"], layer.features["class"], strict=True)
        names = {int(value): str(name) for value, name in rows}
    colours: dict[int, str] = {}
    if isinstance(layer.colormap, DirectLabelColormap):
        for value, colour in layer.colormap.color_dict.items():
            if value is not None and value != 0:
                channels = (np.asarray(colour)[:4] * 255).round().astype(int)
                colours[int(value)] = "#" + "".join(f"{c:02x}" for c in channels)
    values = sorted({*names, *colours})
    return tuple(LabelClass(value=v, name=names.get(v, ""), colour=colours.get(v)) for v in values)


def _colour(layer: Labels, record: LayerRecord) -> None:
    colours: dict[int | None, Any] = {c.value: c.colour for c in record.classes if c.colour is not None}
    if colours:
        layer.colormap = DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", **colours})
    names = {c.value: c.name for c in record.classes if c.name}
    if names:
        layer.features = {"index": list(names), "class": list(names.values())}
