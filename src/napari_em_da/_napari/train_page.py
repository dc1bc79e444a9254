"""Train on an image and a labels layer, or adapt to another image, with live curves and previews."""

from __future__ import annotations

from typing import Any

from napari.layers import Image, Labels, Layer
from pydantic import Field
from qtpy.QtWidgets import QCheckBox, QPushButton, QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import LayerChoice, PathLine
from napari_em_da._napari.class_table import ClassTable
from napari_em_da._napari.curve import Curve
from napari_em_da._napari.dock import Dock, collapsible
from napari_em_da._napari.entry import EntryChoice
from napari_em_da._napari.form import Form, add_row, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.message import Message
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import (
    AugmentConfig,
    Config,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    SamplingConfig,
    TrainingConfig,
    WeightConfig,
)
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event, Metric, Preview
from napari_em_da.jobs import Job
from napari_em_da.methods import METHODS
from napari_em_da.models import MODELS
from napari_em_da.weights import WEIGHTS

MAIN_TRAINING = ("steps", "learning_rate")
MAIN_SAMPLING = ("patch_px", "batch")
SCORES = ("score", "val/", "target/", "source/", "guards")


class Annotation(Config):
    """What labels mean beside the classes."""

    ignore_label: int | None = Field(None, description="Label value that is not annotated; none if empty")


class TrainDock(Dock):
    """Start, cancel and resume a training or an adaptation.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.image = LayerChoice(napari_viewer, Image)
        self.labels = LayerChoice(napari_viewer, Labels)
        self.target = LayerChoice(napari_viewer, Image, optional=True)
        self.init = PathLine("Run folder whose network to start from", "new network")
        self.run = PathLine("Run folder to create or to resume", "folder to create or to resume")
        self.table = ClassTable()
        self.read_button = QPushButton("Read label values")
        self.table_state = Message()
        self.show_previews = QCheckBox("Show previews as layers")
        self.show_previews.setChecked(True)
        self._make_forms()
        self.loss_curve, self.score_curve = Curve("Losses"), Curve("Validation")
        actions = {"Start": self._start, "Resume": self._resume}
        after = "Cancelled; Resume goes on from the last step."
        self.panel = JobPanel("Training", actions, self._finished, self._event, cancelled=after)
        self.reader = JobRunner(lambda _event: None, self._values_read)
        self.read_button.clicked.connect(lambda _: self.read_values())
        self.labels.chosen.connect(self.read_values)
        place = QWidget()
        add_row(form_layout(place), "Run folder", self.run)
        self.lay_out(self._upper(), [self.loss_curve, self.score_curve, place, self.panel])
        self.cancel_with_me(self.panel, self.reader, self.network.runner, self.method.runner)
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

    def _upper(self) -> list[QWidget]:
        data, start = QWidget(), QWidget()
        rows = form_layout(data)
        add_row(rows, "Image", self.image)
        add_row(rows, "Labels", self.labels)
        rows.addRow(self.read_button)
        rows.addRow(self.table)
        rows.addRow(self.table_state)
        rows.addRow(self.annotation)
        rows = form_layout(start)
        self.target.setToolTip("Unlabelled image of another microscope, for a method that adapts")
        add_row(rows, "Adapt to", self.target)
        add_row(rows, "Start from", self.init)
        return [
            data,
            start,
            self.network,
            self.method,
            self.training,
            self.sampling,
            self.show_previews,
            collapsible("More about training", self.more_training),
            collapsible("More about windows", self.more_sampling),
            collapsible("Augmentation", self.augment),
            collapsible("Loss", self.loss),
            collapsible("Weight map", self.weights),
        ]

    def read_values(self) -> None:
        """Count the label values in the background and list them."""
        layer = self.labels.layer
        if layer is None:
            self.table.show_values({})
            self.table_state.info("Add a labels layer to choose classes.")
            return
        self.table_state.info("Reading the label values …")
        self.reader.start(layers.label_values(layer), "Label values", silent=True)

    def _values_read(self, counts: dict[int, int] | None, error: Exception | None) -> None:
        self.table_state.clear()
        if error is not None:
            self.table_state.error(str(error))
        elif counts is not None:
            self.table.show_values(counts)
            if set(counts) <= {0}:
                self.table_state.info("Nothing is painted yet.")

    def _start(self) -> Job:
        image, labels, run = self.image.layer, self.labels.layer, self.run.path
        if image is None or labels is None:
            raise ConfigError("Choose an image layer and a labels layer of the same shape.")
        if run is None:
            raise ConfigError("Choose a run folder: everything that the training learns is kept there.")
        sections = {
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
        job = layers.train(image, labels, self.table.classes(), run, target=self.target.layer, **sections)
        self.loss_curve.clear()
        self.score_curve.clear()
        return job

    def _resume(self) -> Job:
        if self.run.path is None:
            raise ConfigError("Choose the run folder to resume.")
        self.panel.note("The run goes on with its own settings, whatever stands above.")
        return layers.resume(self.run.path)

    def _event(self, event: Event) -> None:
        if isinstance(event, Metric):
            for name, value in sorted(event.values.items(), key=lambda item: item[0].count("/")):  # means first
                curve = self.score_curve if name.startswith(SCORES) else self.loss_curve
                if name != "score":
                    curve.add(event.step, name.removeprefix("val/"), value)
        elif isinstance(event, Preview) and self.show_previews.isChecked():
            self._show_preview(event)

    def _show_preview(self, event: Preview) -> None:
        """Show a window of the validation to the right of the image."""
        name = f"training {event.name}"
        data = event.data.astype(int) if event.kind == "labels" else event.data
        if name in self.viewer.layers and self.viewer.layers[name].metadata.get("preview"):
            layer = self.viewer.layers[name]
            layer.data = data
            if event.kind == "image":
                layer.reset_contrast_limits()
            return
        if event.kind == "image":
            self.panel.note("The previews stand to the right of the image.")
        active = self.viewer.layers.selection.active
        place = beside(self.image.layer) if self.image.layer is not None else {}
        look = {**place, "name": name, "metadata": {"preview": True}}
        self.viewer.add_layer(Layer.create(data, look, event.kind))
        self.viewer.layers.selection.active = active

    def _finished(self, result: Any) -> None:
        self.panel.message.info(
            f"Finished {result.steps} steps in {result.seconds:.0f} s; best score {result.best_score:.3f} "
            f"at step {result.best_step}. Segment with {result.run}."
        )


def beside(layer: Layer) -> dict[str, Any]:
    """Return where a 2D layer stands to the right of another layer, at its scale."""
    taken = layers.snapshot(layer)
    scale = [float(s) for s in layer.scale[-2:]]
    left = [float(t) for t in layer.translate[-2:]]
    place: dict[str, Any] = {"scale": scale, "translate": [left[0], left[1] + 1.05 * scale[1] * taken.volume.shape[2]]}
    return place | {name: tuple(taken.place[name])[-2:] for name in ("units", "axis_labels") if name in taken.place}
