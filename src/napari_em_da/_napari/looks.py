"""How layers are shown anew, how the view is moved, and what napari's themes leave unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Layer

# in lists and tables of the dark theme, an empty box is as dark as what is behind it
TICKS = "QAbstractItemView::indicator:unchecked { border: 1px solid #808080; border-radius: 2px; }"


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
