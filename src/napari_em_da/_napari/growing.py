"""The one labels layer that a segmentation appears in, whoever computes it: sections, regions, or the whole volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_em_da import layers
from napari_em_da._napari.looks import add
from napari_em_da._napari.session import Session


class GrowingLayer:
    """A labels layer that shows what is there so far; the next result of the same image and run goes into it too.

    Parameters
    ----------
    session : Session
        Whose role "prediction" the layer gets.

    Attributes
    ----------
    layer : Labels or None
        Until the whole volume is finished, or somebody removes it; a finished layer is never written into again.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._labels: layers.GrowingLabels | None = None
        self._made_of: object = None
        self._taken: layers.Snapshot | None = None
        self._layer: Labels | None = None

    @property
    def layer(self) -> Labels | None:
        if self._layer is not None and self._layer not in self._session.viewer.layers:
            self._layer = None
        return self._layer

    def begin(self, taken: layers.Snapshot, classes: Mapping[str, Sequence[int]], made_of: object) -> None:
        """Get ready for results; what was found with other settings, as ``made_of`` says, is forgotten."""
        if self._labels is not None and self._made_of == made_of and self._labels.shape == taken.volume.shape:
            return
        self._labels, self._made_of, self._taken = layers.GrowingLabels(taken.volume.shape, classes), made_of, taken
        data, look, _ = layers.growing_layer(self._labels, taken, classes)
        if self.layer is not None and self.layer.data.shape == data.shape:
            self._layer.data = data  # type: ignore[union-attr]  # the property above has just looked
            self._layer.colormap, self._layer.features = colours(look), look["features"]  # type: ignore[union-attr]
            self._layer.editable = False  # type: ignore[union-attr]
        else:
            self._layer = None

    def put(self, box: tuple[slice, slice, slice], labels: Any) -> None:
        """Show the labels of a box."""
        if self._labels is not None:
            self._labels.put(box, labels)
            self.show()

    def knows(self, made_of: object, box: tuple[slice, slice, slice]) -> bool:
        """Whether a box was found with the same settings already, and is shown."""
        same = self._labels is not None and self._made_of == made_of and self.layer is not None
        return same and self._labels is not None and self._labels.knows(box)

    def follow(self, output: Path) -> None:
        """Show the blocks of a segmentation as they are finished."""
        if self._labels is not None:
            self._labels.follow(output)

    def show(self, *, again: bool = True) -> None:
        """Draw what is there now; make the layer if there is none, unless ``again`` is false."""
        if self._labels is None or self._taken is None:
            return
        if self.layer is not None:
            if self._taken.flat:
                self.layer.data = self._labels.section(0)
            else:
                self.layer.refresh(extent=False, thumbnail=False)
        elif again:
            self._add(layers.growing_layer(self._labels, self._taken, self._labels.classes))
            if self._layer is not None:
                self._layer.editable = False

    def finish(self, found: layers.LayerData) -> Labels:
        """Put the finished labels in; the layer now belongs to the user."""
        data, look, _ = found
        layer = self.layer
        if layer is None or layer.data.shape != data.shape:
            layer = self._add(found)
        else:
            layer.data = data
            layer.colormap, layer.features = colours(look), look["features"]
            layer.metadata.update(look.get("metadata", {}))
            layer.editable = isinstance(data, np.ndarray)
        self.release()
        return layer

    def release(self) -> None:
        """Leave the layer to the user, and start a new one next time."""
        self._labels = self._made_of = self._taken = self._layer = None

    def _add(self, found: layers.LayerData) -> Labels:
        data, look, kind = found
        layer = add(self._session.viewer, data, {**look, "colormap": colours(look)}, kind)
        self._layer = layer
        self._session.assign("prediction", layer)
        return layer


def colours(look: Mapping[str, Any]) -> Any:
    """Return the colours of a look as napari takes them."""
    from napari.utils.colormaps import DirectLabelColormap

    return DirectLabelColormap(color_dict=look["colormap"])
