"""How layers come into view and are shown anew, how the view is moved, and what napari's themes leave unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_em_da._napari.turns import after_turns

# in lists and tables of the dark theme, an empty box is as dark as what is behind it
TICKS = "QAbstractItemView::indicator:unchecked { border: 1px solid #808080; border-radius: 2px; }"


def add(viewer: Any, data: Any, about: Mapping[str, Any], kind: str, *, select: bool = False) -> Layer:
    """Add a layer made of LayerData; the user goes on with what was selected, unless that was nothing or ``select``.

    Napari needs more than a tenth of a second to add a layer, and half as much again each for its first picture and
    for its controls. So the layer comes hidden, is shown in the next turn of the event loop unless its visibility is
    set meanwhile, and selected in the one after.
    """
    visible, selection, before = about.get("visible", True), viewer.layers.selection, set(viewer.layers.selection)
    first = not viewer.layers  # it tells napari where to look
    layer = Layer.create(data, {**about, "visible": visible and first}, kind)
    with selection.events.blocker_all() if selection.active else nullcontext():  # spares showing two controls
        viewer.add_layer(layer)
        if before:
            selection.update(before)
            selection.discard(layer)
    if visible and not first:
        _show_next(viewer, layer)
    if before and select:
        after_turns(2, partial(_select, viewer, layer))
    return layer


def _select(viewer: Any, layer: Layer) -> None:
    if layer in viewer.layers:
        viewer.layers.selection.active = layer


def _show_next(viewer: Any, layer: Layer) -> None:
    waiting = True

    def decided() -> None:
        nonlocal waiting
        waiting = False
        layer.events.visible.disconnect(decided)

    def show() -> None:
        if waiting and layer in viewer.layers:
            layer.visible = True

    layer.events.visible.connect(decided)
    after_turns(1, show)


def renew(layer: Layer, data: Any, about: Mapping[str, Any]) -> None:
    """Give a layer new data, and of its place and contrast what is another now.

    Each of these setters slices and draws the layer again, also where nothing changes.
    """
    layer.data = data
    for name in ("scale", "translate", "units", "axis_labels", "contrast_limits"):
        if name in about and not np.array_equal(getattr(layer, name), about[name]):
            setattr(layer, name, about[name])


def centre(viewer: Any, layer: Layer, place: Sequence[float]) -> Any:
    """Show the section of a place, in data coordinates of ``layer``, with it in the middle; return the camera."""
    world = [float(value) for value in layer.data_to_world(place)]
    dims, first = viewer.dims, viewer.dims.ndim - layer.ndim
    dims.set_point(range(first, dims.ndim), world)  # all at once: each call slices and draws
    # not dims.point: it moves in whole steps, and a centre may lie between pixels
    shown = [world[axis - first] if axis >= first else dims.point[axis] for axis in dims.displayed]
    camera = getattr(viewer, "scene", viewer).camera  # moved there in napari 0.9
    camera.center = tuple([0.0] * (3 - len(shown)) + shown)
    return camera
