"""Score a segmentation against an annotated layer, see where it is wrong, and export it all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from napari.layers import Image, Labels, Layer
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import LayerChoice
from napari_em_da._napari.form import Form, add_row, combo, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.looks import add, renew
from napari_em_da._napari.message import Message
from napari_em_da._napari.metric_choice import MetricChoice, look_up
from napari_em_da._napari.page import Page, collapsible
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.score_table import ScoreTable
from napari_em_da._napari.session import Session
from napari_em_da._napari.slice_curve import SliceCurve
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import Config, EvaluateConfig, ScoringConfig
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.events import Notice
from napari_em_da.jobs import Job
from napari_em_da.layers.scores import METRICS, agreement, config_of, splits_and_merges

KINDS = {
    "Classes": None,
    "Objects (each has a number)": "instances",
    "Membranes (1 is membrane)": "membrane",
    "Boundaries (1 is inside of objects)": "object",
}
NOWHERE = EvaluateConfig(prediction=Path("a.tif"), labels=Path("b.tif"))
IGNORED = 255


class EvaluatePage(Page):
    """Scores, maps of what is right and wrong, and a curve over the sections.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages.
    """

    name, title = "evaluate", "Evaluate"
    purpose = "Score the segmentation against an annotation that it was not trained on."
    next_step = "Go to the worst sections, and put them right on Correct."

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(napari_viewer, session)
        both = cast("type[Layer]", (Labels, Image))  # probabilities of a boundary are images
        self.prediction = RoleChoice(self.session, "prediction", both)
        self.truth = RoleChoice(self.session, "truth", Labels)
        self.image = LayerChoice(napari_viewer, Image, optional=True)
        self.image.setToolTip("Shown below the pictures that are exported")
        self.kind = _kinds()
        self.about = Form(NOWHERE.model_copy(update={"ignore_label": IGNORED}), only=("classes", "ignore_label"))
        self.about.editors["classes"].widget.setToolTip("Class = its label value; every value that occurs if empty")
        self.scoring = Form(ScoringConfig())
        self.metrics = MetricChoice()
        self.metrics.tick(METRICS[None])
        self.runner = JobRunner(lambda _event: None, self._families)
        self.table = ScoreTable()
        self.curve = SliceCurve("Sections")
        self.state = Message()
        self.warnings = Message()
        actions = {"Score": self._score}
        self.panel = JobPanel(actions, self._show, self._event)
        self.mapper = JobRunner(lambda _event: None, self._show_map)
        self._compared: layers.Comparison | None = None
        self._scored: layers.Scored | None = None
        self._truth: Layer | None = None
        self._maps: dict[str, Layer] = {}
        self._filled: Any = None  # the classes that were filled in, not typed

        top = QWidget()
        rows = form_layout(top)
        add_row(rows, "Segmentation", self.prediction)
        add_row(rows, "Ground truth", self.truth)
        add_row(rows, "Compare", self.kind)
        maps = self._map_row()
        upper = [top, self.about, collapsible("Scores to compute", self.metrics)]
        upper += [collapsible("How scores are computed", self.scoring), self.table, self.curve, self.state]
        pictures = QWidget()
        add_row(form_layout(pictures), "Image in export", self.image)
        self.lay_out([*upper, maps, pictures, self.warnings], [self.panel], copies=True)
        self.cancel_with_me(self.panel, self.runner, self.mapper)
        self.keep(prediction=self.prediction, truth=self.truth, image=self.image, kind=self.kind)
        self.keep(about=self.about, scoring=self.scoring, metrics=self.metrics)

        self.kind.currentIndexChanged.connect(lambda _: self._kind_chosen())
        for choice in (self.prediction, self.truth):
            choice.chosen.connect(self._layers_chosen)
        for signal in (self.about.changed, self.scoring.changed, self.metrics.changed, self.image.chosen):
            signal.connect(self.edited)
        self.table.chosen.connect(self._show_curve)
        self.curve.picked.connect(self.go_to)
        napari_viewer.dims.events.current_step.connect(self._mark)
        self.destroyed.connect(lambda *_: napari_viewer.dims.events.current_step.disconnect(self._mark))
        self.runner.start(look_up(), silent=True)
        self._kind_chosen(tick=False)
        self._fill_classes()

    def missing(self) -> str | None:
        """Return what is still needed."""
        if self.prediction.layer is None:
            return "Choose a segmentation: Segment makes one."
        if self.truth.layer is None:
            return "Choose the ground truth: labels painted by hand, on the same image."
        if self.truth.layer is self.prediction.layer:
            return "The segmentation and the ground truth are the same layer; choose another one."
        return None

    def call(self) -> tuple[str, Config]:
        """Return the scores as a call on files."""
        what = self.request()
        return "evaluate", config_of(what, self.prediction.layer, self.truth.layer, self._names())

    def request(self) -> layers.Comparison:
        """Return what is compared and how.

        Raises
        ------
        ConfigError, DataError
            If a layer is missing, an option is wrong, or the layers do not lie on each other.
        """
        if text := self.missing():
            raise ConfigError(text)
        about, kind = self.about.read(), self.kind.currentData()
        classes = None if kind == "instances" else about.classes
        return layers.compare(
            self.prediction.layer,
            self.truth.layer,
            kind=kind,
            classes=classes,
            predicted=_classes_of(self.prediction.layer) if classes else {},
            ignore_label=about.ignore_label,
            scoring=self.scoring.read(),
        )

    def go_to(self, section: int) -> None:
        """Show a section of the ground truth."""
        layer = self._truth
        if layer is None or layer not in self.viewer.layers or layer.ndim < 3:
            return
        world = layer.data_to_world((section, 0, 0))
        self.viewer.dims.set_point(self.viewer.dims.ndim - 3, float(world[-3]))

    def export(self, folder: Path) -> None:
        """Write scores, curves and pictures into a new folder in this one."""
        if self._compared is None or self._scored is None:
            self.state.error("Press Score first: there is nothing to export yet.")
            return
        self.state.info("Exporting …")
        job = layers.export(self._compared, self._scored, folder, image=self.image.layer)
        self.mapper.start(job, silent=True)

    def _names(self) -> tuple[str, ...]:
        names = self.metrics.names()
        if not names:
            raise ConfigError("Tick at least one score.")
        return names

    def _score(self) -> Job:
        self._compared = None
        what = self.request()
        job = layers.score(what, self._names())
        self.warnings.clear()
        self._truth = self.truth.layer
        return layers.then(job, lambda scored: (what, scored))

    def _event(self, event: Any) -> None:
        if isinstance(event, Notice) and event.level == "warning":
            self.warnings.warn(event.text)

    def _show(self, outcome: Any) -> None:
        self._compared, self._scored = outcome
        scored: layers.Scored = self._scored
        self.table.show_scores(scored.scores, scored.undefined, self.metrics.docs)
        self.curve.setVisible(bool(scored.sections))
        self._show_curve(next(iter(scored.scores), ""))
        self._mark()
        if scored.warnings:
            self.warnings.warn(" ".join(scored.warnings))

    def _show_curve(self, name: str) -> None:
        values = () if self._scored is None else self._scored.sections.get(name, ())
        self.curve.show_values(name, values if len(values) > 1 else ())

    def _mark(self, event: Any = None) -> None:
        layer = self._truth
        if layer is not None and layer in self.viewer.layers and layer.ndim > 2:
            self.curve.mark(round(float(layer.world_to_data(self.viewer.dims.point)[-3])))

    def _map(self, make: Any) -> None:
        try:
            job = make(self.request())
        except EmDaError as error:
            self.state.error(str(error))
            return
        self.state.info("Computing …")
        self.mapper.start(job, silent=True)

    def _show_map(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.state.error(str(error))
        elif isinstance(result, Path):
            self.state.info(f"Exported to {result}.")
        elif result is not None:
            data, about, kind = result
            self.state.clear()
            old = self._maps.get(about["name"])
            if old is not None and old in self.viewer.layers and old.ndim == data.ndim:  # computed again, not one more
                renew(old, data, about)
                old.visible = True
            else:
                self._maps[about["name"]] = add(self.viewer, data, about, kind, select=True)

    def _ask_export(self) -> None:
        text = QFileDialog.getExistingDirectory(self, "Folder to export to", str(Path.home()))
        if text:
            self.export(Path(text))

    def _families(self, families: Any, error: Exception | None) -> None:
        if error is not None:
            self.state.error(str(error))
        elif families is not None:
            self.metrics.show_families(families)

    def _kind_chosen(self, *, tick: bool = True) -> None:
        kind = self.kind.currentData()
        if tick:
            self.metrics.tick(METRICS[kind])
            self.about.editors["ignore_label"].set(None if kind == "instances" else IGNORED)
        self.about.editors["classes"].widget.setEnabled(kind != "instances")
        button = self.buttons["Splits and merges"]
        button.setEnabled(kind is not None)
        self.edited.emit()

    def _layers_chosen(self) -> None:
        self._fill_classes()
        self.refresh()
        self.edited.emit()

    def _follow(self, what: str) -> None:
        super()._follow(what)
        if what == "classes":
            self._fill_classes()

    def _fill_classes(self) -> None:
        """Name the classes as the session or the segmentation does, unless the user named others."""
        editor = self.about.editors["classes"]
        if editor.get() == self._filled:
            known = self.session.classes or _classes_of(self.prediction.layer)
            editor.set({name: tuple(values) for name, values in known.items()} or None)
            self._filled = editor.get()

    def _map_row(self) -> QWidget:
        place = QWidget()
        row = QHBoxLayout(place)
        row.setContentsMargins(0, 0, 0, 0)
        actions = {
            "Hits and misses": ("Green: right; red: missed; blue: false alarm", lambda: self._map(agreement)),
            "Splits and merges": ("Where objects are split or merged", lambda: self._map(splits_and_merges)),
            "Export…": ("Scores as JSON and CSV, curves and pictures as PNG", self._ask_export),
        }
        self.buttons: dict[str, QPushButton] = {}
        for text, (tip, act) in actions.items():
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, act=act: act())
            self.buttons[text] = button
            row.addWidget(button)
        return place


def _classes_of(layer: Any) -> Mapping[str, tuple[int, ...]]:
    """Return {name: (label value,)} as a segmentation's own table says."""
    features = getattr(layer, "features", None)
    if not isinstance(layer, Labels) or features is None or not {"index", "class"} <= set(features.columns):
        return {}
    pairs = zip(features["class"], features["index"], strict=True)
    return {str(name): (int(value),) for name, value in pairs if int(value) != 0}


def _kinds() -> QComboBox:
    menu = combo(())
    for text, kind in KINDS.items():
        menu.addItem(text, kind)
    menu.setToolTip("What the values of both layers mean")
    return menu
