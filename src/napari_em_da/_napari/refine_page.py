"""Clean up a segmentation with a chain of steps, seen at once on the section in view, and look at its objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Labels, Layer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QFileDialog, QTabWidget, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.chain_editor import ChainEditor
from napari_em_da._napari.choice import PathLine
from napari_em_da._napari.form import Form, add_row, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.looks import add
from napari_em_da._napari.measure_tab import MeasureTab
from napari_em_da._napari.message import Message
from napari_em_da._napari.page import Page, collapsible
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.section_preview import SectionPreview
from napari_em_da._napari.session import Session
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import ChainConfig, Config, PostprocessConfig
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.layers.refine import path_of, postprocess_config, with_path

DEBOUNCE_MS = 200
CHAIN = "chain.yaml"
NOWHERE = PostprocessConfig(input=Path("in.tif"), chain=ChainConfig(steps=("threshold",)), output=Path("out.tif"))


class RefinePage(Page):
    """A chain editor with a live preview, and a table of the objects.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages.
    """

    name, title = "refine", "Refine"
    purpose = "Clean up the segmentation step by step, and measure its objects. Nothing is predicted again."
    next_step = "Score the result on Evaluate, or correct it by hand."

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(napari_viewer, session)
        self.labels = RoleChoice(self.session, "prediction", Labels, suggest=session is None)
        self.probabilities = VolumeLine("Stored probabilities", "not stored: the labels are refined")
        self.probabilities.setToolTip("What Segment wrote beside the labels; steps such as threshold start from it")
        self.output = PathLine("Volume to write", "in the project", folder=False)
        titles = {"holds": "The input holds", "labelled": "Sections to keep"}
        self.options = Form(NOWHERE, only=("holds", "labelled"), titles=titles)
        self.editor = ChainEditor()
        self.editor.folder = lambda: self.session.best_run
        self.live = QCheckBox("Live preview of this section")
        self.live.setChecked(True)
        self.state = Message()
        self.panel = JobPanel({"Apply to the volume": self._apply}, self._show_result)
        self.previewer = JobRunner(lambda _event: None, self._show_preview)
        self.preview_layer = SectionPreview(napari_viewer, "refined preview")
        self.objects = MeasureTab(napari_viewer)
        self._source: layers.Refinable | None = None
        self._watched: Labels | None = None
        self._found: str = ""  # the probabilities that were filled in, not typed
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(DEBOUNCE_MS)
        self._wait.timeout.connect(self.preview)

        top, clean = QWidget(), QWidget()
        rows = form_layout(top)
        add_row(rows, "Segmentation", self.labels)
        add_row(rows, "Probabilities", self.probabilities)
        below = QWidget()
        add_row(form_layout(below), "File to write", self.output)
        column = QVBoxLayout(clean)
        column.setContentsMargins(4, 6, 4, 4)
        for widget in (top, self.editor, self.live, self.state, collapsible("More", self.options), below):
            column.addWidget(widget)
        column.addStretch(1)
        self.tabs = QTabWidget()
        self.tabs.addTab(clean, "Clean up")
        self.tabs.addTab(self.objects, "Objects")
        self.keep(labels=self.labels, probabilities=self.probabilities, output=self.output, options=self.options)
        self.keep(chain=self.editor, live=self.live, **self.objects.kept())
        self.lay_out([self.tabs], [self.panel, self.objects.panel], copies=True)
        self.cancel_with_me(self.panel, self.previewer, self.editor.runner, self.objects.panel)

        self.labels.chosen.connect(self._watch)
        for signal in (self.probabilities.changed, self.options.changed):
            signal.connect(self._reopen)
        self.editor.changed.connect(self._edited)
        self.output.changed.connect(self.edited)
        self.live.toggled.connect(self._toggle)
        self.tabs.currentChanged.connect(lambda _: self._show_panel())
        napari_viewer.dims.events.current_step.connect(self._changed)
        self.destroyed.connect(lambda *_: self._forget())
        self._show_panel()
        self._watch()
        self._run_chain()

    def missing(self) -> str | None:
        """Return what is still needed."""
        if self.labels.layer is None:
            return "Choose a segmentation: Segment makes one, or open one as labels."
        return None

    def call(self) -> tuple[str, Config]:
        """Return the post-processing of the volume, or the measurements where their tab is shown."""
        if self.tabs.currentWidget() is self.objects:
            return "measure", self.objects.config()
        layer = self._layer()
        source = self._source or layers.refinable(with_path(layer), self.probabilities.path, **self._reading())
        return "postprocess", postprocess_config(source, self.editor.chain(), self._output(), holds=self._holds())

    def refresh(self) -> None:
        """Follow the segmentation of the session, and the chain of its run."""
        super().refresh()
        where = "choose a file" if self.session.project is None else "in the project"
        self.output.line.setPlaceholderText(where)
        self._run_chain()

    def preview(self) -> None:
        """Refine the section in view in the background."""
        layer = self.labels.layer
        if layer is None or not self.live.isChecked() or not self.editor.items():
            self.preview_layer.remove()
            self.state.clear()
            return
        try:
            chain = self.editor.chain()
            taken = self._source or with_path(layer)
            job = section_job(taken, self.probabilities.path, self._reading(), chain, self._section(layer))
        except EmDaError as error:
            self.state.error(str(error))
            return
        self.state.info("Computing …")
        self.previewer.start(job, silent=True)

    def _show_preview(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.preview_layer.remove()
            self.state.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
        elif result is not None and self.live.isChecked() and self.labels.layer is not None:
            self._source, shown = result
            classes = shown.layer[1]["metadata"]["holds"] == "labels"  # objects have numbers, and colours of their own
            self.preview_layer.show(shown.layer, self.labels.layer if classes else None)
            text = f"Section {shown.section}, as in the volume."
            if not shown.exact:
                text = (
                    f"Section {shown.section}, computed from sections {shown.first} to {shown.last}; objects that "
                    "reach further may differ in the volume."
                )
            if shown.advice:
                self.state.warn(" ".join((text, *shown.advice)))
            else:
                self.state.info(text)

    def _apply(self) -> Job:
        taken, chain, where = with_path(self._layer()), self.editor.chain(), self._output()
        return volume_job(taken, self.probabilities.path, self._reading(), chain, where)

    def _show_result(self, outcome: Any) -> None:
        result, found = outcome
        self.live.setChecked(False)
        added = [add(self.viewer, *data, select=True) for data in found]
        if isinstance(added[0], Labels):
            self.objects.labels.choose(added[0])
        self.panel.message.info(f"Saved as {result.output}, in {result.seconds:.0f} s.")

    def _layer(self) -> Labels:
        layer = self.labels.layer
        if not isinstance(layer, Labels):
            raise ConfigError("Choose a segmentation to refine.")
        return layer

    def _output(self) -> Path:
        if self.output.path is not None:
            return self.output.path
        folder = self.session.new_run("refine")
        if folder is None:
            raise ConfigError("Choose the file to write, for example refined.tif.")
        return folder / "refined.tif"

    def _holds(self) -> Any:
        return self.options.read().holds

    def _reading(self) -> dict[str, Any]:
        options = self.options.read()
        holds = options.holds
        if holds is None and self.probabilities.path is None:
            holds = self._layer().metadata.get("holds")
        return {"holds": holds, "labelled": options.labelled}

    def _section(self, layer: Layer) -> int:
        if layer.ndim < 3:
            return 0
        return round(float(layer.world_to_data(self.viewer.dims.point)[-3]))

    def _watch(self) -> None:
        """Follow what is painted into the segmentation, and find its stored probabilities."""
        self._forget()
        layer = self.labels.layer
        if isinstance(layer, Labels):
            self._watched = layer
            for name in ("paint", "data"):
                getattr(layer.events, name).connect(self._reopen)
            stored = path_of(layer, "probabilities")
            if self.probabilities.memo() == self._found:  # typed paths stay
                self._found = "" if stored is None else str(stored)
                self.probabilities.restore(self._found)
        self.refresh()
        self._reopen()

    def _forget(self) -> None:
        if self._watched is not None:
            for name in ("paint", "data"):
                getattr(self._watched.events, name).disconnect(self._reopen)
            self._watched = None

    def _run_chain(self) -> None:
        """Begin with the chain that belongs to the run, where nobody has begun another."""
        run = self.session.best_run
        if run is not None and (run / CHAIN).is_file() and not self.editor.memo():
            self.editor.load(run)

    def _reopen(self, event: Any = None) -> None:
        self._source = None
        self._edited()

    def _edited(self) -> None:
        self.edited.emit()
        self._changed()

    def _changed(self, event: Any = None) -> None:
        if self.live.isChecked() and not self.left:
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
        self.preview_layer.remove()
        self.state.clear()

    def _show_panel(self) -> None:
        measuring = self.tabs.currentWidget() is self.objects
        self.panel.setVisible(not measuring)
        self.objects.panel.setVisible(measuring)


class VolumeLine(PathLine):
    """The path of a volume that is there."""

    def _browse(self) -> None:
        start = str(self.path or Path.home())
        text, _ = QFileDialog.getOpenFileName(self, self._title, start, "Volumes (*.tif *.tiff *.h5 *.json);;All (*)")
        if text:  # a zarr array is a folder: choosing a file in it means the folder
            path = Path(text)
            self.path = path.parent if path.parent.suffix == ".zarr" else path


def opened(taken: Any, probabilities: Path | None, reading: dict[str, Any]) -> layers.Refinable:
    """Open what is refined, unless that was done."""
    return taken if isinstance(taken, layers.Refinable) else layers.refinable(taken, probabilities, **reading)


def section_job(
    taken: Any, probabilities: Path | None, reading: dict[str, Any], chain: ChainConfig, section: int
) -> Job:
    """Refine a section; Finished carries what was opened, for the next section, and the preview."""
    yield Progress(0, 2, "parts", "reading")
    source = opened(taken, probabilities, reading)
    yield Progress(1, 2, "parts", "refining")
    yield Finished((source, layers.postprocess_section(source, chain, section)))


def volume_job(
    taken: Any, probabilities: Path | None, reading: dict[str, Any], chain: ChainConfig, output: Path
) -> Job:
    """Refine the volume into a file; Finished carries the result and its layers."""
    yield Progress(0, 1, "volumes", "reading")
    source = opened(taken, probabilities, reading)
    output.parent.mkdir(parents=True, exist_ok=True)
    job = layers.postprocess(source, chain, output, holds=reading["holds"])
    yield from layers.then(job, lambda result: (result, layers.refined_layers(result, source)))
