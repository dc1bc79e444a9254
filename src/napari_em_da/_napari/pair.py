"""Two segmentations of one section, side by side or on top of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_em_da import layers
from napari_em_da._napari.looks import add
from napari_em_da._napari.turns import Turns

BEFORE, AFTER, PICTURE = "before adaptation", "after adaptation", "section after adaptation"
GAP = 1.03  # of the width, from one picture to the next


class Pair:
    """The layers of a comparison: before on the image, after beside it on a copy of the section.

    Parameters
    ----------
    viewer : napari.Viewer
    turns : Turns
        In which the layers are added, one by one.
    """

    def __init__(self, viewer: Any, turns: Turns) -> None:
        self.viewer = viewer
        self.turns = turns
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
        """Show the ``section`` of the image and the labels ``before`` and ``after``, all (Y, X), of a box of it."""
        taken = layers.snapshot(image)
        corner = np.array([part.start for part in box][-image.ndim :], float)
        width = np.zeros(image.ndim)
        width[-1] = GAP * (box[2].stop - box[2].start)
        self._start = np.asarray(image.data_to_world(corner))
        self._step = np.asarray(image.data_to_world(corner + width)) - self._start
        place = {key: value for key, value in taken.place.items() if key not in ("translate", "affine")}
        contrast = {"contrast_limits": image.contrast_limits, "colormap": image.colormap.name}
        look = {"opacity": 0.5, **layers.class_look(classes)}
        present = (lambda: self._present(image),) if not self._shown else ()  # later the user's own view stays
        self.turns.do(
            lambda: self._put(PICTURE, found["section"], "image", {**place, **contrast}),
            lambda: self._put(BEFORE, layers.compact(found["before"]), "labels", {**place, **look}),
            lambda: self._put(AFTER, layers.compact(found["after"]), "labels", {**place, **look}),
            self._arrange,
            *present,
        )

    def _present(self, image: Layer) -> None:
        """Hide what would cover the pictures, and bring both into view."""
        ours = {image.name, *self._shown}
        for layer in self.viewer.layers:
            if layer.name not in ours:
                layer.visible = False
        image.visible = True
        self.viewer.reset_view()

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
        about = {**look, "name": name, "translate": self._place(name), "metadata": {"preview": True}}
        self._shown[name] = add(self.viewer, data, about, kind)

    def _place(self, name: str) -> Any:
        return self._start if name == BEFORE or not self.apart else self._start + self._step

    def _arrange(self) -> None:
        """Move what is still there."""
        for name, layer in self._shown.items():
            if layer in self.viewer.layers:
                layer.translate = self._place(name)
                if name == PICTURE:
                    layer.visible = self.apart
