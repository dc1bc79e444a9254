"""Weight maps of a labels layer: a live preview of the section in view, then the whole volume."""

from __future__ import annotations

from typing import Any, Literal

from napari.layers import Image, Labels, Layer
from pydantic import Field
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import LayerChoice
from napari_em_da._napari.dock import Dock
from napari_em_da._napari.entry import TOOL_TIP_ROLE
from napari_em_da._napari.form import Form, add_row, combo, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.message import Message
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import Config, NonNegative
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.events import Event, Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.weights import WEIGHTS

PREVIEW = "weights preview"
DEBOUNCE_MS = 150


class MapOptions(Config):
    """What all kinds of weight maps share."""

    scale: Literal["none", "max1", "mean1"] | None = Field(None, description="Scaling of the raw map")
    floor: NonNegative | None = Field(None, description="Smallest weight; the kind's default if empty")
    ignore_label: int | None = Field(255, description="Label value that is not annotated: weight 0")


class WeightMapsDock(Dock):
    """Choose labels and a kind of map, watch the weights, compute them all.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.labels = LayerChoice(napari_viewer, Labels)
        self.kind = combo(WEIGHTS.names())
        self.kind.setCurrentIndex(max(0, self.kind.findData("entropy")))
        for index, name in enumerate(WEIGHTS.names()):
            self.kind.setItemData(index, WEIGHTS.summary(name), TOOL_TIP_ROLE)
        self.live = QCheckBox("Live preview of this section")
        self.live.setChecked(True)
        self.common = Form(MapOptions())
        self.options: Form[Any] = Form(MapOptions(), only=())
        self._place = QWidget()
        QVBoxLayout(self._place).setContentsMargins(0, 0, 0, 0)
        self.state = Message()
        self.panel = JobPanel("Weight map", {"Compute whole volume": self._whole}, self._show_whole)
        self.previewer = JobRunner(lambda _event: None, self._show_preview)
        self._preview: Image | None = None
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(DEBOUNCE_MS)
        self._wait.timeout.connect(self.preview)

        top = QWidget()
        rows = form_layout(top)
        add_row(rows, "Labels", self.labels)
        add_row(rows, "Kind", self.kind)
        self.lay_out([top, self._place, self.common, self.live, self.state], [self.panel])
        self.cancel_with_me(self.panel, self.previewer)

        self._watched: Labels | None = None
        self.kind.currentIndexChanged.connect(lambda _: self._show_options())
        self.labels.chosen.connect(self._watch)
        self.common.changed.connect(self._changed)
        self.live.toggled.connect(self._toggle)
        napari_viewer.dims.events.current_step.connect(self._changed)
        self._show_options()
        self._watch()

    def _show_options(self) -> None:
        """Put the form of the chosen kind in place of the old one."""
        old = self.options
        self.options = Form(WEIGHTS[self.kind.currentData()].options_type())
        self.options.changed.connect(self._changed)
        column = self._place.layout()
        if column is not None:
            column.addWidget(self.options)
        old.setParent(None)
        old.deleteLater()
        self._changed()

    def _watch(self) -> None:
        """Follow what is painted into the chosen layer."""
        if self._watched is not None:
            self._watched.events.paint.disconnect(self._changed)
            self._watched.events.data.disconnect(self._changed)
        self._watched = self.labels.layer
        if self._watched is not None:
            self._watched.events.paint.connect(self._changed)
            self._watched.events.data.connect(self._changed)
        self._changed()

    def _changed(self, event: Any = None) -> None:
        if self.live.isChecked():
            self._wait.start()

    def _toggle(self, on: bool) -> None:
        if on:
            self._changed()
            return
        self._wait.stop()
        self.previewer.cancel()
        if self._preview is not None and self._preview in self.viewer.layers:
            self.viewer.layers.remove(self._preview)
        self._preview = None

    def request(self) -> tuple[layers.Snapshot, str, dict[str, Any]]:
        """Return the labels, the kind and its parameters; one of our errors says what is wrong.

        Raises
        ------
        ConfigError
            If there is no labels layer, or an option is out of bounds.
        """
        layer = self.labels.layer
        if layer is None:
            raise ConfigError("There is no labels layer; add one or open a sample.")
        common, options = self.common.read(), self.options.read()
        params = {name: getattr(options, name) for name in self.options.editors}
        params |= {"floor": common.floor, "scale": common.scale, "ignore_index": common.ignore_label}
        return layers.snapshot(layer), self.kind.currentData(), params

    def preview(self) -> None:
        """Compute the weights of the section in view in the background."""
        if self.labels.layer is None:
            return
        try:
            taken, kind, params = self.request()
        except EmDaError as error:
            self.state.error(str(error))
            return
        point = self.labels.layer.world_to_data(self.viewer.dims.point)
        z = 0 if taken.flat else min(max(round(float(point[0])), 0), taken.volume.shape[0] - 1)
        self.state.info(f"Section {z}: computing …")
        self.previewer.start(section_job(taken, kind, z, params), "Weights preview", silent=True)

    def _show_preview(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.state.error(str(error))
        elif result is not None and self.live.isChecked():
            z, section, place, kind, params = result
            low, mean, high = section.min(), section.mean(), section.max()
            self.state.info(f"Section {z}: weights {low:.3g} to {high:.3g}, mean {mean:.3g}")
            flat = {k: tuple(place[k])[-2:] for k in ("scale", "translate", "units", "axis_labels") if k in place}
            data, look, _ = layers.weight_layer(section, PREVIEW, float(high), flat, kind, params)
            if self._preview is None or self._preview not in self.viewer.layers:
                active = self.viewer.layers.selection.active
                look["metadata"]["preview"] = True
                self._preview = self.viewer.add_image(data, **look)
                self.viewer.layers.selection.active = active  # the user goes on painting
            else:
                self._preview.data = data
                self._preview.contrast_limits = look["contrast_limits"]
                for name, value in flat.items():
                    setattr(self._preview, name, value)

    def _whole(self) -> Job:
        taken, kind, params = self.request()
        return volume_job(taken, kind, params)

    def _show_whole(self, layer: layers.LayerData) -> None:
        self.live.setChecked(False)
        self.viewer.add_layer(Layer.create(*layer))


def section_job(taken: layers.Snapshot, kind: str, z: int, params: dict[str, Any]) -> Job:
    """Compute one section; Finished carries it with what is needed to show it."""
    yield Progress(0, 1, "sections", "weights")
    section = layers.weight_section(taken, kind, z, **params)
    yield Finished((z, section, taken.place, kind, params))


def volume_job(taken: layers.Snapshot, kind: str, params: dict[str, Any]) -> Job:
    """Compute the whole map; Finished carries the layer."""
    event: Event = Progress(0, 1, "volumes", "weights")
    yield event
    yield Finished(layers.weight_map_layer(taken, kind, **params))
