"""Train a network on an image and its labels, with live curves and the prediction of the section in view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Image, Labels
from pydantic import Field
from qtpy.QtWidgets import QCheckBox, QPushButton, QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import LayerChoice, PathLine
from napari_em_da._napari.class_table import ClassTable
from napari_em_da._napari.entry import EntryChoice
from napari_em_da._napari.form import Form, add_row, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.live import Live
from napari_em_da._napari.message import Message
from napari_em_da._napari.page import Page, collapsible, wrapped
from napari_em_da._napari.presets import PresetBox
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.session import Session
from napari_em_da._napari.worker import JobRunner, once_idle
from napari_em_da.config import (
    AugmentConfig,
    Config,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    SamplingConfig,
    TrainConfig,
    TrainingConfig,
    WeightConfig,
    parse,
)
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event
from napari_em_da.jobs import Job
from napari_em_da.layers.presets import TRAIN_PRESETS
from napari_em_da.methods import METHODS
from napari_em_da.models import MODELS
from napari_em_da.weights import WEIGHTS

MAIN_TRAINING = ("steps", "learning_rate")
MAIN_SAMPLING = ("patch_px", "batch")


class Annotation(Config):
    """What labels mean beside the classes."""

    ignore_label: int | None = Field(None, description="Label value that is not annotated; none if empty")


class TrainPage(Page):
    """Start, pause, cancel and resume a training.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages; its own if the page stands alone.
    """

    name, title = "train", "Train"
    purpose = "Train a network on the labelled image."
    next_step = "Adapt it to the image to segment, or segment an image like the labelled one."

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(napari_viewer, session)
        alone = session is None
        self.image = RoleChoice(self.session, "source", Image, suggest=alone)
        self.labels = RoleChoice(self.session, "labels", Labels, suggest=alone)
        self.target = LayerChoice(napari_viewer, Image, optional=True)
        self.init = PathLine("Run folder whose network to start from", "new network")
        self.run = PathLine("Run folder to create or to resume", "folder to create or to resume")
        self.table = ClassTable()
        self.read_button = QPushButton("Read label values")
        self.table_state = Message()
        self.classes_line = wrapped("")
        self.show_previews = QCheckBox("Show predictions while it trains")
        self.show_previews.setToolTip("At each validation, of the section in view")
        self.show_previews.setChecked(True)
        self.live = Live(napari_viewer, "training")
        actions = {"Start": self._start, "Resume": self._resume}
        after = "Cancelled; Resume goes on from the last step."
        self.panel = JobPanel(actions, self._finished, self._event, cancelled=after, pausable=True)
        self.preset = PresetBox(TRAIN_PRESETS, self._sketch, lambda: self.panel.running)
        self._make_forms()
        self.reader = JobRunner(lambda _event: None, self._values_read)
        self.read_button.clicked.connect(lambda _: self.read_values())
        self.labels.chosen.connect(self.read_values)
        self.show_previews.toggled.connect(self._toggle_previews)
        self.run.changed.connect(self.refresh)
        self.lay_out(self._upper(), [self.live, self.panel], copies=True)
        self.cancel_with_me(self.panel, self.reader, self.preset.runner, self.network.runner, self.method.runner)
        self._keep_all()
        self._take_weights()
        self.read_values()

    def _make_forms(self) -> None:
        self.annotation = Form(Annotation())
        self.network = EntryChoice("Network", MODELS, NetworkConfig().name)
        self.method = EntryChoice("Method", METHODS, MethodConfig().name)
        self.training = Form(TrainingConfig(), only=MAIN_TRAINING)
        self.sampling = Form(SamplingConfig(), only=MAIN_SAMPLING)
        self.more_training = Form(TrainingConfig(), without=MAIN_TRAINING)
        self.more_sampling = Form(SamplingConfig(), without=MAIN_SAMPLING)
        self.augment = Form(AugmentConfig())
        self.loss = Form(LossConfig())
        self.weights = Form(WeightConfig(), choices={"kind": (None, *WEIGHTS.names())})
        self.preset.picked.connect(self._prefer_size)
        self.network.menu.currentIndexChanged.connect(lambda _: self._prefer_size())
        self.method.menu.currentIndexChanged.connect(lambda _: self.preset.ask())
        self.preset.fill((self.training, self.more_training), lambda preset: preset.values())
        for form in (self.sampling, self.more_sampling):
            form.changed.connect(self.preset.ask)

    def _upper(self) -> list[QWidget]:
        data, start, method = QWidget(), QWidget(), QWidget()
        rows = form_layout(data)
        add_row(rows, "Image", self.image)
        add_row(rows, "Labels", self.labels)
        rows.addRow(self.classes_line)
        rows.addRow(self.read_button)
        rows.addRow(self.table)
        rows.addRow(self.table_state)
        rows = form_layout(start)
        add_row(rows, "Run folder", self.run)
        rows = form_layout(method)
        rows.addRow(self.method)
        self.target.setToolTip("Unlabelled image of another microscope, for a method that adapts while it trains")
        add_row(rows, "Adapt to", self.target)
        add_row(rows, "Start from", self.init)
        return [
            data,
            self.preset,
            start,
            self.show_previews,
            collapsible("More: length and windows", self.training, self.sampling),
            collapsible("More: network", self.network),
            collapsible("More: method and start", method),
            collapsible("More: training", self.more_training, self.annotation),
            collapsible("More: sampling", self.more_sampling),
            collapsible("More: augmentation", self.augment),
            collapsible("More: loss and weight map", self.loss, self.weights),
        ]

    def _keep_all(self) -> None:
        self.keep(preset=self.preset, image=self.image, labels=self.labels, table=self.table, target=self.target)
        self.keep(init=self.init, run=self.run, network=self.network, method=self.method, loss=self.loss)
        self.keep(training=self.training, sampling=self.sampling, more_training=self.more_training)
        self.keep(more_sampling=self.more_sampling, augment=self.augment, weights=self.weights)
        self.keep(annotation=self.annotation, previews=self.show_previews)
        for form in (self.training, self.sampling, self.more_training, self.more_sampling, self.augment, self.loss):
            form.changed.connect(self.edited)
        for part in (self.weights, self.run, self.init):
            part.changed.connect(self.edited)
        self.preset.picked.connect(self.edited)

    def missing(self) -> str | None:
        """Return what is not chosen yet."""
        if self.image.layer is None or self.labels.layer is None:
            return "Choose an image and a labels layer of the same shape."
        if self.run.path is None and self.session.project is None:
            return "Choose a run folder: everything that the training learns is kept there."
        return None

    def _follow(self, what: str) -> None:
        if what == "weights":
            self._take_weights()
        super()._follow(what)

    def _take_weights(self) -> None:
        """Show the map that was chosen on the Weights page, and what it leaves out."""
        if self.session.weights is not None:
            self.weights.restore(self.session.weights.model_dump())
            self.annotation.restore({"ignore_label": self.session.ignore_label})

    def refresh(self) -> None:
        """Follow the session: its classes take the place of the table."""
        super().refresh()
        known = self.session.classes
        text = ", ".join(f"{name} ({', '.join(map(str, values))})" for name, values in known.items())
        self.classes_line.setText(f"Classes: {text}")
        self.classes_line.setVisible(bool(known))
        for widget in (self.table, self.read_button):
            widget.setVisible(not known)
        if known:
            self.table_state.clear()
        where = "a new one in the project" if self.session.project is not None else "folder to create or to resume"
        self.run.line.setPlaceholderText(where)

    def classes(self) -> dict[str, tuple[int, ...]]:
        """Return the classes to learn; a ConfigError if there are none."""
        return dict(self.session.classes) or self.table.classes()

    def read_values(self) -> None:
        """Count the label values in the background and list them, where nobody has chosen classes yet."""
        layer = self.labels.layer
        if self.session.classes:
            return
        if layer is None:
            self.table.show_values({})
            self.table_state.info("Add a labels layer to choose classes.")
            return
        self.table_state.info("Reading the label values …")
        self.reader.start(layers.label_values(layer), silent=True)

    def _values_read(self, counts: dict[int, int] | None, error: Exception | None) -> None:
        self.table_state.clear()
        if error is not None:
            self.table_state.error(str(error))
        elif counts is not None:
            self.table.show_values(counts)
            if set(counts) <= {0}:
                self.table_state.info("Nothing is painted yet.")

    def call(self) -> tuple[str, Config]:
        """Return the training on the files that hold the layers."""
        run = self.run.path
        if run is None:
            raise ConfigError("Choose a run folder to create; the copy needs its name.")
        taken, classes, sections = self._taken(), self.classes(), self.sections()
        image, labels, aim, saved = taken["image"], taken["labels"], taken.get("target"), layers.data_folder(run)
        free = layers.free_name(run)  # what was trained already stays
        return "train", layers.train_config(image, labels, classes, free, target=aim, saved=saved, **sections)

    def sections(self) -> dict[str, Any]:
        """Return the sections of the config that the forms hold."""
        return {
            "ignore_label": self.annotation.read().ignore_label,
            "network": {"name": self.network.name, "options": self.network.options()},
            "method": {"name": self.method.name, "options": self.method.options()},
            "training": self.training.read(**self.more_training.values()),
            "sampling": self.sampling.read(**self.more_sampling.values()),
            "augment": self.augment.read().model_dump(exclude_defaults=True),  # what is left alone may adapt
            "loss": self.loss.read(),
            "weights": self.weights.read(),
            "init": self.init.path,
        }

    def _taken(self) -> dict[str, layers.Snapshot]:
        image, labels = self.image.layer, self.labels.layer
        if image is None or labels is None:
            raise ConfigError("Choose an image layer and a labels layer of the same shape.")
        taken = {
            "image": layers.at_voxel_size(image, self.session.voxel.get("source")),
            "labels": layers.snapshot(labels, copy=True),
        }
        if self.target.layer is not None:
            taken["target"] = layers.at_voxel_size(self.target.layer, self.session.voxel.get("target"))
        return taken

    def _sketch(self) -> TrainConfig:
        """Return a config of the same cost; no layer is needed for it."""
        classes = dict(self.session.classes) or {
            name: (value,) for value, ticked, name in self.table.rows() if ticked and name
        }
        image = {"image": "image", "labels": "labels"}
        target = ({"image": "target"},) if self.target.layer is not None else ()
        values = {"run": "run", "source": (image,), "target": target, "classes": classes or {"class": (1,)}}
        return parse(TrainConfig, {**values, **self.sections(), "init": None})

    def _start(self) -> Job:
        taken, sections, classes = self._taken(), self.sections(), self.classes()
        run = self.run.path
        if run is None or (run == self.session.trained and self.session.project is not None):
            run = self.session.new_run("train")
        if run is None:
            raise ConfigError("Choose a run folder: everything that the training learns is kept there.")
        self.run.path = Path(run)
        target = self.target.layer
        self._begin(self.image.layer if target is None else target, classes)
        image, labels, aim = taken["image"], taken["labels"], taken.get("target")
        job = layers.train(image, labels, classes, run, target=aim, look=self.live.look, **sections)
        return once_idle(self.preset.runner, job)

    def _resume(self) -> Job:
        if self.run.path is None:
            raise ConfigError("Choose the run folder to resume.")
        self.panel.note("The run goes on with its own settings, whatever stands above.")
        self._begin(self.image.layer, dict(self.session.classes) or {n: (v,) for v, t, n in self.table.rows() if t})
        return once_idle(self.preset.runner, layers.resume(self.run.path, look=self.live.look))

    def _begin(self, image: Any, classes: dict[str, tuple[int, ...]]) -> None:
        self.preset.stop()
        self.live.begin(image, classes)

    def _event(self, event: Event) -> None:
        self.live.take(event)

    def _finished(self, result: Any) -> None:
        self.panel.message.info(
            f"Finished {result.steps} steps in {result.seconds:.0f} s; best score {result.best_score:.3f} "
            f"at step {result.best_step}. The network is kept in {result.run}."
        )
        self.session.set_run("trained", result.run)

    def _prefer_size(self) -> None:
        """Give the network the size that the preset says."""
        if self.preset.preset is not None:
            self.network.prefer(self.preset.preset.network.get(self.network.name, {}))
        self.preset.ask()

    def _toggle_previews(self, on: bool) -> None:
        self.live.on = on
        self.live.follow()
