"""Weight maps of a labels layer: a live preview of the section in view, then the whole volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari.layers import Labels
from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.entry import TOOL_TIP_ROLE
from napari_em_da._napari.form import Form, add_row, combo, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.looks import add
from napari_em_da._napari.message import Message
from napari_em_da._napari.page import Page
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.section_preview import SectionPreview
from napari_em_da._napari.session import Session
from napari_em_da._napari.state import plain
from napari_em_da._napari.turns import Pace
from napari_em_da._napari.weight_jobs import section_job, volume_job
from napari_em_da._napari.weight_options import SLIDERS, TITLES, MapOptions
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import WeightConfig, parse
from napari_em_da.copying import WeightMapConfig
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.events import Event, Preview
from napari_em_da.jobs import Job
from napari_em_da.weights import WEIGHTS

PREVIEW = "weights preview"
DEBOUNCE_MS = 30
EARLY = "if this section were all; counting the others …"


class WeightsPage(Page):
    """Choose labels and a kind of map, watch the weights, use them in training.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages.
    """

    name, title = "weights", "Weights"
    purpose = "Choose how much each pixel counts in training, and see it on the section in view."
    next_step = "Train uses the map chosen here."

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(napari_viewer, session)
        self.labels = RoleChoice(self.session, "labels", Labels, suggest=True)
        self.kind = combo(WEIGHTS.names())
        self.kind.setCurrentIndex(max(0, self.kind.findData("entropy")))
        for index, name in enumerate(WEIGHTS.names()):
            self.kind.setItemData(index, WEIGHTS.summary(name), TOOL_TIP_ROLE)
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.live = QCheckBox("Live preview of this section")
        self.live.setChecked(True)
        self.common = Form(MapOptions(), sliders=SLIDERS)
        self.options: Form[Any] = Form(MapOptions(), only=())
        self._remembered: dict[str, dict[str, Any]] = {}
        self._place = QWidget()
        QVBoxLayout(self._place).setContentsMargins(0, 0, 0, 0)
        self.made_of, self.state, self.used = Message(), Message(), Message()
        self.use_button = QPushButton("Use this map in training")
        self.use_button.setToolTip("The Train page then trains with exactly this map")
        self.use_button.clicked.connect(lambda _=False: self.use())
        self.panel = JobPanel({"Compute whole volume": self._whole}, self._show_whole)
        self.previewer = JobRunner(self._show_early, self._show_preview)
        self._sections: layers.SectionWeights | None = None
        self.preview_layer = SectionPreview(napari_viewer, PREVIEW)
        self._wait = Pace(self, DEBOUNCE_MS)
        self._wait.timeout.connect(self.preview)

        top = QWidget()
        rows = form_layout(top)
        add_row(rows, "Labels", self.labels)
        rows.addRow(self.made_of)
        add_row(rows, "Kind", self.kind)
        rows.addRow(self.about)
        lower = [self.state, self.use_button, self.used, self.panel]
        self.lay_out([top, self._place, self.common, self.live], lower, copies=True)
        self.keep(labels=self.labels, kind=self.kind, common=self.common, live=self.live)
        self.cancel_with_me(self.panel, self.previewer)

        self._watched: Labels | None = None
        self.kind.currentIndexChanged.connect(lambda _: self._show_options())
        self.labels.chosen.connect(self._watch)
        self.common.changed.connect(self._edited)
        self.live.toggled.connect(self._toggle)
        napari_viewer.dims.events.current_step.connect(self._changed)
        self._show_options()
        self._watch()

    def missing(self) -> str | None:
        """Return what to choose first."""
        if self.labels.layer is None:
            return "Choose a labels layer; open one on the Data page, or a sample from the File menu."
        return None

    def refresh(self) -> None:
        """Say what the map is made of, and which map training uses."""
        super().refresh()
        names = ", ".join(self.session.classes)
        self.made_of.info(f"Made of the classes {names}." if names else "Made of the label values as they are.")
        self._tell_used()

    def call(self) -> tuple[str, WeightMapConfig]:
        """Return the whole map of the label file.

        Raises
        ------
        ConfigError
            Where the labels have no file, or their values are not the numbers of the classes.
        """
        taken, kind, params = self.request()
        classes = list(self.session.classes.values())
        if classes and classes != [(number,) for number in range(1, len(classes) + 1)]:
            raise ConfigError(
                "The map is made of the classes of the Data page, whose label values are not 1, 2, …; copy the "
                "training instead, which makes the same map."
            )
        if taken.path is None:
            raise ConfigError(f"The labels {taken.volume.name!r} are in no file; save them and open the file.")
        ignore = params["ignore_index"]
        known = {} if ignore is None else {"ignore_label": ignore}
        values = {"labels": taken.path, **self.weights().model_dump(), "kind": kind, **known}
        return "weight_map", parse(WeightMapConfig, values)

    def weights(self) -> WeightConfig:
        """Return the map as training takes it; a ConfigError says what is wrong with an option."""
        common, options = self.common.read(), self.options.read()
        params = options.model_dump(mode="json", exclude_defaults=True)
        return WeightConfig(kind=self.kind.currentData(), scale=common.scale, floor=common.floor, params=params)

    def use(self) -> None:
        """Train with this map."""
        try:
            self.session.set_weights(self.weights(), self.common.read().ignore_label)
        except EmDaError as error:
            self.used.error(str(error))
            return
        self.edited.emit()
        self._tell_used()

    def memo(self) -> dict[str, Any]:
        """Return the kept widgets, and the options of every kind that was looked at."""
        self._remembered[str(self.kind.currentData())] = self.options.memo()
        chosen = self.session.weights
        used = None if chosen is None else {**chosen.model_dump(mode="json"), "ignore": self.session.ignore_label}
        return {**super().memo(), "options": plain(self._remembered), "used": used}

    def restore(self, values: dict[str, Any]) -> None:
        """Show values that ``memo`` returned."""
        super().restore(values)
        self._remembered = dict(values.get("options") or {})
        self.options.restore(self._remembered.get(str(self.kind.currentData()), {}))
        used = dict(values.get("used") or {})
        if used:
            ignore = used.pop("ignore", None)
            self.session.set_weights(parse(WeightConfig, used), ignore)

    def close_jobs(self) -> None:
        """Cancel every job, and wait for nothing more."""
        self._wait.stop()
        super().close_jobs()

    def _tell_used(self) -> None:
        used = self.session.weights
        if used is None:
            self.used.clear()
            return
        try:
            same = used == self.weights() and self.session.ignore_label == self.common.read().ignore_label
        except EmDaError:
            same = False
        self.used.info("Training uses this map." if same else f"Training uses another {used.kind} map, chosen before.")

    def _follow(self, what: str) -> None:
        super()._follow(what)
        if what == "classes":
            self._renew()

    def _edited(self) -> None:
        self._tell_used()
        self.edited.emit()
        self._changed()

    def _show_options(self) -> None:
        """Put the form of the chosen kind in place of the old one."""
        old, kind = self.options, str(self.kind.currentData())
        self.options = Form(WEIGHTS[kind].options_type(), sliders=SLIDERS, titles=TITLES)
        self.options.restore(self._remembered.get(kind, {}))
        self.options.changed.connect(self._edited)
        self.about.setText(WEIGHTS.summary(kind))
        column = self._place.layout()
        if column is not None:
            column.addWidget(self.options)
        old.setParent(None)
        old.deleteLater()
        self._edited()

    def _watch(self) -> None:
        """Follow what is painted into the chosen layer."""
        if self._watched is not None:
            self._watched.events.paint.disconnect(self._renew)
            self._watched.events.data.disconnect(self._renew)
        self._watched = self.labels.layer
        if self._watched is not None:
            self._watched.events.paint.connect(self._renew)
            self._watched.events.data.connect(self._renew)
        self.refresh()
        self._renew()

    def _renew(self, event: Any = None) -> None:
        """Count anew: labels or classes are others now."""
        self._sections = None
        self._changed()

    def _changed(self, event: Any = None) -> None:
        if self.live.isChecked() and not self.left and not self._wait.isActive():  # else a moving slider would wait
            self._wait.start()

    def arrive(self) -> None:
        """Show the preview of the section that is in view now."""
        super().arrive()
        self._changed()

    def _toggle(self, on: bool) -> None:
        if on:
            self._changed()
            return
        self._wait.stop()
        self.previewer.cancel()
        self.state.clear()
        self.preview_layer.remove()

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
        ignore = params.pop("ignore_index")
        if self._sections is None or self._sections.ignore_label != ignore:
            self._sections = layers.SectionWeights(taken, self.session.classes, ignore)
        point = self.labels.layer.world_to_data(self.viewer.dims.point)
        z = 0 if taken.flat else min(max(round(float(point[0])), 0), taken.volume.shape[0] - 1)
        self.previewer.start(section_job(self._sections, kind, z, params), silent=True)

    def _show_preview(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.state.error(str(error))
        elif result is not None:
            self._show_section(*result)

    def _show_early(self, event: Event) -> None:
        """Show the section as far as it can be known before all sections are counted, and say so."""
        if isinstance(event, Preview) and event.origin is not None and self._sections is not None:
            place = self._sections.taken.place
            self._show_section(event.origin[0], event.data, place, event.name, {}, f" {EARLY}")

    def _show_section(
        self, z: int, section: Any, place: Mapping[str, Any], kind: str, params: dict[str, Any], note: str = ""
    ) -> None:
        if self.left or not self.live.isChecked():
            return
        self._wait.showing()
        low, mean, high = section.min(), section.mean(), section.max()
        self.state.info(f"Section {z}: weights {low:.3g} to {high:.3g}, mean {mean:.3g}{note}")
        flat = {k: tuple(place[k])[-2:] for k in ("scale", "translate", "units", "axis_labels") if k in place}
        data, look, _ = layers.weight_layer(section, PREVIEW, float(high), flat, kind, params)
        look["metadata"]["preview"] = True
        self.preview_layer.show((data, look, "image"))

    def _whole(self) -> Job:
        taken, kind, params = self.request()
        return volume_job(taken, kind, {**params, "classes": dict(self.session.classes)})

    def _show_whole(self, layer: layers.LayerData) -> None:
        self.live.setChecked(False)
        add(self.viewer, *layer, select=True)
