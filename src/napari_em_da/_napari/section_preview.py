"""One layer of the viewer that shows a preview of one section."""

from __future__ import annotations

from typing import Any

from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap, label_colormap

from napari_em_da._napari.looks import add, renew
from napari_em_da.layers import LayerData, compact


class SectionPreview:
    """A layer that is made when it is first needed, then updated; removed by the user, it comes back.

    Parameters
    ----------
    viewer : napari.Viewer
    name : str
        Of the layer.
    """

    def __init__(self, viewer: Any, name: str) -> None:
        self.viewer = viewer
        self.name = name
        self.layer: Layer | None = None

    def show(self, shown: LayerData, like: Any = None) -> None:
        """Show a section; labels in the colours of the layer ``like``, if that has colours of its own."""
        data, about, kind = shown
        data = compact(data) if kind == "labels" else data
        layer = self.layer if self.layer in self.viewer.layers else None
        if layer is not None and type(layer).__name__.lower() != kind:
            self.remove()
            layer = None
        colours = getattr(like, "colormap", None)
        own = kind == "labels" and isinstance(colours, DirectLabelColormap)
        if layer is None:
            look = {**about, "name": self.name} | ({"colormap": colours} if own else {})
            self.layer = add(self.viewer, data, look, kind)
            return
        renew(layer, data, about)
        layer.metadata = {**layer.metadata, **about.get("metadata", {})}
        if own and layer.colormap is not colours:
            layer.colormap = colours
        elif isinstance(layer, Labels) and not own and isinstance(layer.colormap, DirectLabelColormap):
            layer.colormap = label_colormap()

    def remove(self) -> None:
        """Take the layer out of the viewer."""
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self.layer = None
