"""What a running training shows: curves, and what its network finds in view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Layer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.curve import Curve
from napari_em_da._napari.looks import add, renew
from napari_em_da.events import Event, Metric, Preview

NO_LOSS = ("score", "val/", "val_matched/", "target/", "source/", "select/", "chosen_step", "collapsed", "guards")
SHOWN = {"target/entropy": "undecided on the target", "select/consistency": "consistent on the target"}
HEALTHY = (0.25, 1.0, 4.0)  # target over source: the bounds of the guards, and alike
Box = tuple[slice, slice, slice]


class Live(QWidget):
    """Curves of losses, scores and health, and layers with what the network predicts.

    The prediction of the section in view lies on the image, where it belongs. Without an image to lie on, a window of
    the validation is shown beside it.

    Parameters
    ----------
    viewer : napari.Viewer
    name : str
        First word of the layers' names.

    Attributes
    ----------
    look : Look
        What the job predicts at each validation; follows the viewer.
    on : bool
        Whether predictions are shown as layers.
    """

    def __init__(self, viewer: Any, name: str) -> None:
        super().__init__()
        self.viewer = viewer
        self.name = name
        self.on = True
        self.look = layers.Look()
        self.losses = Curve("Losses")
        self.scores = Curve("Validation")
        self.health = Curve("Target compared with source", log=True, lines=HEALTHY)
        self.health.setToolTip(
            "Share of each class and number of its regions on the target, as a multiple of those in the labelled "
            "image. 1: alike. Outside the dashed lines a network is refused."
        )
        self._image: Layer | None = None
        self._classes: dict[str, tuple[int, ...]] = {}
        self._shown: dict[str, Layer] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        for curve in (self.losses, self.scores, self.health):
            column.addWidget(curve)
        viewer.dims.events.current_step.connect(self.follow)
        (viewer.scene if hasattr(viewer, "scene") else viewer).camera.events.connect(self.follow)  # moved in napari 0.9

    def begin(self, image: Layer | None, classes: Mapping[str, Sequence[int]]) -> None:
        """Start anew, on this image; the classes give the prediction its colours."""
        self.clear()
        self._image = image
        self._classes = {name: tuple(values) for name, values in classes.items()}
        for layer in self._shown.values():
            layer.visible = True
        self.follow()

    def clear(self) -> None:
        """Empty the curves."""
        for curve in (self.losses, self.scores, self.health):
            curve.clear()

    def follow(self, event: Any = None) -> None:
        """Let the job look where the user looks."""
        self.look.region = None if self.image is None or not self.on else box_in_view(self.viewer, self.image)

    def hide_layers(self) -> None:
        """Make way for the result."""
        for layer in self._shown.values():
            layer.visible = False

    @property
    def image(self) -> Layer | None:
        """The image that is trained on, while it is in the viewer."""
        return self._image if self._image in self.viewer.layers else None

    def take(self, event: Event) -> None:
        """Show what an event brings."""
        if isinstance(event, Metric):
            self._add(event)
        elif isinstance(event, Preview) and self.on:
            if event.origin is not None:
                self._put(f"{self.name} prediction", event.data, "labels", self._place(event.origin))
            elif self.image is None or self.look.region is None:
                self._put(f"{self.name} {event.name}", event.data, event.kind, beside(self._image))

    def _add(self, event: Metric) -> None:
        for name, value in sorted(event.values.items(), key=lambda item: item[0].count("/")):  # means first
            if name in SHOWN:
                self.scores.add(event.step, SHOWN[name], value)
            elif name == "val_matched/iou":
                self.scores.add(event.step, "in the target's look", value)
            elif name.startswith("val/"):
                self.scores.add(event.step, name.removeprefix("val/").removeprefix("iou/"), value)
            elif not name.startswith(NO_LOSS):
                self.losses.add(event.step, name, value)
        for name, ratio in health(event.values).items():
            self.health.add(event.step, name, ratio)

    def _place(self, origin: tuple[int, int, int]) -> dict[str, Any]:
        """Return where a section of the image lies that starts at this voxel."""
        if self.image is None:
            return {}
        taken = layers.snapshot(self.image)
        start = np.array(origin[-self.image.ndim :], float)
        place = {key: value for key, value in taken.place.items() if key not in ("translate", "affine")}
        return {**place, "translate": self.image.data_to_world(start)}

    def _put(self, name: str, data: Any, kind: str, place: dict[str, Any]) -> None:
        if "rotate" in place or "shear" in place:
            place = {key: value for key, value in place.items() if key not in ("rotate", "shear")}
        flat = self.image is None or self.image.ndim == 2 or len(place.get("scale", ())) == 2
        data = layers.compact(data) if kind == "labels" else np.asarray(data, np.float32)
        data = data if flat else data[None]
        old = self._shown.get(name)
        if old is not None and old in self.viewer.layers:
            if old.ndim == data.ndim:
                renew(old, data, place)
                if kind == "image":
                    old.reset_contrast_limits()
                return
            self.viewer.layers.remove(old)
        look = {**place, "name": name, "metadata": {"preview": True}}
        if kind == "labels":
            look |= {"opacity": 0.5, **(layers.class_look(self._classes) if self.image is not None else {})}
        self._shown[name] = add(self.viewer, data, look, kind)


def health(values: Mapping[str, float]) -> dict[str, float]:
    """Return what a validation found on the target, as multiples of the source: {"share of mito": 0.9, …}."""
    found = {}
    for kind, title in (("foreground", "share"), ("regions", "regions")):
        for name in values:
            ours, theirs = values[name], values.get(f"source/{name.removeprefix('target/')}", 0.0)
            if name.startswith(f"target/{kind}/") and theirs > 0:
                found[f"{title} of {name.rsplit('/', 1)[1]}"] = ours / theirs
    return found


def box_in_view(viewer: Any, image: Layer) -> Box | None:
    """Return the section and the window of an image that are in view, in voxels; None where it has another shape."""
    shape = (image.data[0] if getattr(image, "multiscale", False) else image.data).shape
    if len(shape) not in (2, 3):
        return None
    point = image.world_to_data(viewer.dims.point)
    z = 0 if len(shape) == 2 else min(max(round(float(point[-3])), 0), shape[0] - 1)
    corners = np.asarray(image.corner_pixels)[:, -2:]
    whole = getattr(image, "multiscale", False) or bool((corners[1] <= corners[0]).any())
    (y0, x0), (y1, x1) = ((0, 0), shape[-2:]) if whole else (corners[0], corners[1] + 1)
    return slice(z, z + 1), slice(int(y0), int(y1)), slice(int(x0), int(x1))


def beside(layer: Layer | None) -> dict[str, Any]:
    """Return where a 2D layer stands to the right of another layer, at its scale."""
    if layer is None:
        return {}
    taken = layers.snapshot(layer)
    scale = [float(s) for s in layer.scale[-2:]]
    left = [float(t) for t in layer.translate[-2:]]
    place: dict[str, Any] = {"scale": scale, "translate": [left[0], left[1] + 1.05 * scale[1] * taken.volume.shape[2]]}
    return place | {name: tuple(taken.place[name])[-2:] for name in ("units", "axis_labels") if name in taken.place}


__all__ = ["Live", "beside", "box_in_view", "health"]
