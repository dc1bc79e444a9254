"""Two segmentations of one section, side by side or on top of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_em_da import layers

BEFORE, AFTER, PICTURE = "before adaptation", "after adaptation", "section after adaptation"
GAP = 1.03  # of the width, from one picture to the next


class Pair:
    """The layers of a comparison: before on the image, after beside it on a copy of the section.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.apart = True
        self._shown: dict[str, Layer] = {}
        self._start = np.zeros(0)
        self._step = np.zeros(0)

    def show(
        self,
        image: Layer,
        box: tuple[slice, slice, slice],
        classes: Mapping[str, Sequence[int]],
        found: Mapping[str, Any],
    ) -> None:
        """Show the labels ``before`` and ``after`` (Y, X) of a box of one section of the image."""
        taken = layers.snapshot(image)
        corner = np.array([part.start for part in box][-image.ndim :], float)
        width = np.zeros(image.ndim)
        width[-1] = GAP * (box[2].stop - box[2].start)
        self._start = np.asarray(image.data_to_world(corner))
        self._step = np.asarray(image.data_to_world(corner + width)) - self._start
        place = {key: value for key, value in taken.place.items() if key not in ("translate", "affine")}
        picture = taken.volume.read(box)[0]
        contrast = {"contrast_limits": image.contrast_limits, "colormap": image.colormap.name}
        look = {"opacity": 0.5, **layers.class_look(classes)}
        active = self.viewer.layers.selection.active
        self._put(PICTURE, picture, "image", {**place, **contrast})
        self._put(BEFORE, np.asarray(found["before"], int), "labels", {**place, **look})
        self._put(AFTER, np.asarray(found["after"], int), "labels", {**place, **look})
        self.viewer.layers.selection.active = active
        self._arrange()

    def set_apart(self, apart: bool) -> None:
        """Put them side by side, or on top of each other."""
        self.apart = apart
        self._arrange()

    def _put(self, name: str, section: Any, kind: str, look: dict[str, Any]) -> None:
        data = section if len(self._start) == 2 else section[None]
        old = self._shown.get(name)
        if old is not None and old in self.viewer.layers:
            if old.data.shape == data.shape:
                old.data = data
                return
            self.viewer.layers.remove(old)
        about = {**look, "name": name, "translate": self._start, "metadata": {"preview": True}}
        self._shown[name] = self.viewer.add_layer(Layer.create(data, about, kind))

    def _arrange(self) -> None:
        """Move what is still there."""
        for name, layer in self._shown.items():
            if layer in self.viewer.layers:
                layer.translate = self._start if name == BEFORE or not self.apart else self._start + self._step
                if name == PICTURE:
                    layer.visible = self.apart
