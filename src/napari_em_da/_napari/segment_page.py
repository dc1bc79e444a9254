"""Segment the section in view, then a region, then the volume; the result grows in one labels layer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QSpinBox, QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import PathLine
from napari_em_da._napari.form import Form, add_row, form_layout
from napari_em_da._napari.growing import GrowingLayer
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.looks import add
from napari_em_da._napari.message import Message
from napari_em_da._napari.page import Page, collapsible
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.session import Session
from napari_em_da._napari.turns import Turns
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import SegmentConfig, parse
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.events import Finished, Progress
from napari_em_da.io import working_store
from napari_em_da.jobs import Job

MAIN = ("tta", "precision", "checkpoint")
MORE = ("smooth_z", "tile_px", "batch", "device", "overwrite")
FOLLOW_MS = 150
REFRESH_MS = 500
REGION = 16  # sections


class SegmentPage(Page):
    """Choose an image and a run, look at a section, then let the volume run.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages.
    """

    name, title = "segment", "Segment"
    purpose = "Segment the section in view, then the volume, with a trained or adapted network."
    next_step = "Refine the segmentation, or score it."

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(napari_viewer, session)
        self.image = RoleChoice(self.session, "target", Image, suggest=True)
        self.run = PathLine("Run folder", "folder that a training made")
        self.output = PathLine("Label volume to write", "in the run folder", folder=False)
        self.scores = QCheckBox("Also show probabilities and uncertainty")
        self.scores.setToolTip("Written beside the labels, and shown as image layers once the volume is finished")
        self.probabilities = PathLine("Probability volume to write", "beside the labels", folder=False)
        nowhere = SegmentConfig(image=Path("layer"), run=Path("run"), output=Path("labels.tif"))
        self.options = Form(nowhere, only=MAIN, titles={"tta": "Average over 8 symmetries (slower)"})
        self.more = Form(nowhere, only=MORE, titles={"smooth_z": "Average along z"})
        self.sections = QSpinBox()
        self.sections.setRange(1, 9999)
        self.sections.setValue(REGION)
        self.sections.setToolTip("A region is what is in view, through so many sections around the one in view")
        self.result, self.turns = GrowingLayer(self.session), Turns(self)
        self.section_button = QPushButton("This section")
        self.section_button.setToolTip(
            "Segment the section in view now, by itself; the whole volume is averaged along z afterwards (More options)"
        )
        self.section_button.clicked.connect(lambda _=False: self.look())
        self.following = QCheckBox("Follow the section in view")
        self.following.setToolTip("Segment each section as you come to it")
        self.state, self.kept = Message(), Message()
        self.looker = JobRunner(lambda _event: None, self._seen)
        self.counter = JobRunner(lambda _event: None, self._counted)
        cancelled = "Cancelled. Finished blocks are kept; Whole volume goes on from there."
        actions = {"This region": self._region, "Whole volume": self._whole}
        self.panel = JobPanel(actions, self._show, self._progress, cancelled=cancelled)
        self.panel.buttons["This region"].setToolTip("Segment what is in view, through the sections around it")
        self.panel.buttons["Whole volume"].setToolTip("Write the whole segmentation; it appears block by block")
        self._given: Path | None = None
        self._asked: tuple[layers.Snapshot, object] | None = None
        self._wait, self._tick = QTimer(self), QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(FOLLOW_MS)
        self._wait.timeout.connect(self._follow_view)
        self._tick.setSingleShot(True)
        self._tick.setInterval(REFRESH_MS)
        self._tick.timeout.connect(lambda: self.result.show(again=False))
        self._build()
        self.keep(image=self.image, run=self.run, output=self.output, options=self.options, more=self.more)
        self.keep(scores=self.scores, probabilities=self.probabilities, sections=self.sections)
        self.cancel_with_me(self.panel, self.looker, self.counter)
        for widget in (self.run, self.output):
            widget.changed.connect(self.refresh)
        for signal in (self.run.changed, self.output.changed, self.options.changed, self.more.changed):
            signal.connect(self.edited)
        self.image.chosen.connect(self.refresh)
        self.following.toggled.connect(lambda _on: self._moved())
        napari_viewer.dims.events.current_step.connect(self._moved)
        camera = getattr(napari_viewer, "scene", napari_viewer).camera  # moved there in napari 0.9
        camera.events.center.connect(self._moved)
        camera.events.zoom.connect(self._moved)

    def _build(self) -> None:
        top, files = QWidget(), QWidget()
        rows = form_layout(top)
        add_row(rows, "Image", self.image)
        add_row(rows, "Run folder", self.run)
        rows.addRow(self.scores)
        rows = form_layout(files)
        add_row(rows, "Labels file", self.output)
        add_row(rows, "Probabilities", self.probabilities)
        add_row(rows, "Region sections", self.sections)
        looking = QWidget()
        row = QHBoxLayout(looking)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.section_button)
        row.addWidget(self.following, 1)
        more = collapsible("More", files, self.more)
        self.lay_out([top, self.options, more], [looking, self.state, self.panel, self.kept], copies=True)

    def missing(self) -> str | None:
        """Return what to choose first."""
        if self.image.layer is None:
            return "Choose the image to segment; open one on the Data page or drop it into the viewer."
        if self.run.path is None:
            return "Choose the run folder of a trained or adapted network."
        return None

    def refresh(self) -> None:
        """Take the session's best run, say what is missing, and how much of the volume is there already."""
        best = self.session.best_run
        if best is not None and best != self._given and self.run.path in (None, self._given):
            self._given = best
            self.run.path = best
        super().refresh()
        self.kept.clear()
        output = self._output()
        if output is not None and not self.panel.running and working_store(output).is_dir():
            self.counter.start(share_job(output), silent=True)

    def call(self) -> tuple[str, SegmentConfig]:
        """Return the segmentation of the whole volume.

        Raises
        ------
        ConfigError, DataError
            Where the image has no file, the run has no network, or an option is wrong.
        """
        taken, run, options = self._request()
        if taken.path is None:
            raise ConfigError(f"The image {taken.volume.name!r} is in no file; save it and open the file.")
        output = self.output.path or layers.segmentation_file(taken, run)
        if self.output.path is None:
            output.parent.mkdir(exist_ok=True)  # within the run; a script would have to make it
        values = {"image": taken.path, "run": run, "output": output, "voxel_nm": taken.volume.voxel_nm, **options}
        return "segment", parse(SegmentConfig, {**values, "probabilities": self._probabilities(output)})

    def look(self) -> None:
        """Segment the section in view in the background."""
        try:
            taken, run, options = self._request()
            box = self._box(taken, 1)
            self._begin(taken, run, options)
        except EmDaError as error:
            self.state.error(str(error))
            return
        self.state.info(f"Section {box[0].start}: segmenting …")
        self.looker.start(self._view(taken, run, box, options), silent=True)

    def close_jobs(self) -> None:
        """Cancel every job, and wait for nothing more."""
        for timer in (self._wait, self._tick):
            timer.stop()
        super().close_jobs()

    def _moved(self, event: Any = None) -> None:
        if self.following.isChecked():
            self._wait.start()

    def _follow_view(self) -> None:
        if not self.following.isChecked() or self.missing() or self.panel.running:
            return
        try:
            taken, run, options = self._request()
            known = self.result.knows(made_of(taken, run, options), self._box(taken, 1))
        except EmDaError as error:
            self.state.error(str(error))
            return
        if not known:
            self.look()

    def _seen(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.state.error(str(error))
        elif result is not None:
            self.result.put(result.box, result.labels)
            self.state.info(f"Section {result.box[0].start}: {shares(result)}, in {result.seconds:.1f} s.")

    def _region(self) -> Job:
        taken, run, options = self._request()
        box = self._box(taken, self.sections.value())
        self._begin(taken, run, options)
        return self._view(taken, run, box, options)

    def _whole(self) -> Job:
        taken, run, options = self._request()
        output = self.output.path or layers.segmentation_file(taken, run)
        self._begin(taken, run, options)
        self.result.follow(output)
        self.kept.clear()
        options = {**options, "probabilities": self._probabilities(output)}
        job = layers.segment(taken, run, output, **options)
        return layers.then(job, lambda result: (result, taken, layers.result_layers(result, taken)))

    def _progress(self, event: Any) -> None:
        if isinstance(event, Progress) and event.unit == "blocks" and not self._tick.isActive():
            self.result.show()
            self._tick.start()  # and once more after the last block

    def _show(self, outcome: Any) -> None:
        if not isinstance(outcome, tuple):
            self.result.put(outcome.box, outcome.labels)
            box = outcome.box[0]
            where = f"Sections {box.start} to {box.stop - 1}"
            self.panel.message.info(f"{where}: {shares(outcome)}, in {outcome.seconds:.0f} s.")
            return
        result, taken, found = outcome
        self.following.setChecked(False)
        look = layers.class_look(result.classes)
        labels = self.result.finish((found[0][0], {**found[0][1], **look}, "labels"))
        more = [*found[1:], layers.uncertainty_layer(result, taken)] if result.probabilities is not None else []
        self.session.assign("prediction", labels)
        hidden = [(data, {**about, "visible": False}, kind) for data, about, kind in more]
        self.turns.later(*(partial(add, self.viewer, *layer) for layer in hidden))
        text = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result.foreground.items())
        self.panel.message.info(f"{text} of the voxels, in {result.seconds:.0f} s. Saved as {result.output}.")

    def _begin(self, taken: layers.Snapshot, run: Path, options: dict[str, Any]) -> None:
        self.result.begin(taken, layers.run_classes(run), made_of(taken, run, options))

    def _view(self, taken: layers.Snapshot, run: Path, box: Any, options: dict[str, Any]) -> Job:
        wanted = {name: options[name] for name in (*MAIN, "device", "voxel_nm") if name in options}
        return layers.segment_view(taken, run, box[0], box[1:], **wanted)

    def _request(self) -> tuple[layers.Snapshot, Path, dict[str, Any]]:
        image, run = self.image.layer, self.run.path
        text = self.missing()
        if image is None or run is None or text:
            raise ConfigError(text or "Choose an image and a run folder.")
        layers.run_classes(run)
        self.options.read()
        self.more.read()
        options = {**self.options.values(), **self.more.values()}
        size = self.session.voxel.get("target")
        if size is not None:
            options["voxel_nm"] = size
        return layers.snapshot(image), run, options

    def _box(self, taken: layers.Snapshot, depth: int) -> tuple[slice, slice, slice]:
        image, dims = self.image.layer, self.viewer.dims
        if image is None:
            raise ConfigError("Choose an image to segment.")
        if dims.ndisplay != 2 or tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
            raise ConfigError("Show the image section by section along z (2D view, axes not rolled) to segment a view.")
        point = image.world_to_data(dims.point)
        section = 0 if taken.flat else min(max(round(float(point[0])), 0), taken.volume.shape[0] - 1)
        corners = np.asarray(image.corner_pixels)[:, -2:].astype(float)
        if getattr(image, "multiscale", False):
            corners *= np.asarray(image.downsample_factors[image.data_level])[-2:]
        return layers.view_box(taken.volume.shape, section, corners, depth=depth)

    def _output(self) -> Path | None:
        if self.output.path is not None or self.image.layer is None or self.run.path is None:
            return self.output.path
        try:
            return layers.segmentation_file(layers.snapshot(self.image.layer), self.run.path)
        except EmDaError:  # a colour picture: said when somebody presses a button
            return None

    def _probabilities(self, output: Path) -> Path | None:
        if not self.scores.isChecked():
            return None
        return self.probabilities.path or output.with_name(f"{output.stem}-probabilities.zarr")

    def _counted(self, share: Any, error: Exception | None) -> None:
        if error is None and share is not None and not self.panel.running:
            self.kept.info(f"{100 * share:.0f} % of the volume is finished already; Whole volume goes on from there.")


def made_of(taken: layers.Snapshot, run: Path, options: dict[str, Any]) -> object:
    """Return what a result depends on, to tell results apart."""
    chosen = {name: options.get(name) for name in (*MAIN, "voxel_nm")}
    return taken.volume.name, id(taken.volume.source), run, repr(chosen)


def shares(result: Any) -> str:
    """Say how much of a view each class covers."""
    found = {name: float((result.labels == values[0]).mean()) for name, values in result.classes.items()}
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.items())


def share_job(output: Path) -> Job:
    """Read how much of a cancelled segmentation is there; Finished carries the share."""
    yield Progress(0, 1, "stores", "reading")
    yield Finished(layers.finished_share(output))
