"""Adapt a trained network to an image without labels, and see what it changed and why it was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_em_da import layers
from napari_em_da._napari.adaptations import Adaptations, Budget
from napari_em_da._napari.choice import PathLine
from napari_em_da._napari.entry import EntryChoice
from napari_em_da._napari.form import Form, add_row, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.live import Live
from napari_em_da._napari.outcome import Outcome
from napari_em_da._napari.page import Page, collapsible, wrapped
from napari_em_da._napari.presets import PresetBox
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.session import Session
from napari_em_da._napari.worker import once_idle
from napari_em_da.config import AdaptConfig, AdaptTrainingConfig, AugmentConfig, Config, SamplingConfig, parse
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event, Notice, Progress
from napari_em_da.jobs import Job
from napari_em_da.layers.presets import ADAPT_PRESETS, AUTO, auto_options

MAIN_TRAINING = ("steps", "learning_rate")
AS_TRAINED = "What is not changed here stays as it was in training."


class AdaptPage(Page):
    """Start, pause, cancel and resume an adaptation; then compare before and after.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages; its own if the page stands alone.
    """

    name, title = "adapt", "Adapt"
    purpose = (
        "Adapt the trained network to the image to segment. No labels of that image are needed, and none are read."
    )
    next_step = "Compare before and after; then segment the image."

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(napari_viewer, session)
        self.source = PathLine("Run folder of the trained network", "folder that a training made")
        self.target = RoleChoice(self.session, "target", Image, suggest=session is None)
        self.run = PathLine("Run folder to create or to resume", "folder to create or to resume")
        self.show_previews = QCheckBox("Show predictions while it adapts")
        self.show_previews.setToolTip("At each validation, of the section in view")
        self.show_previews.setChecked(True)
        self.live = Live(napari_viewer, "adaptation")
        self.show_curves = QCheckBox("Show the curves")
        self.show_curves.setToolTip("Losses, scores and health of the adaptation, which make way for its result")
        self.show_curves.toggled.connect(self.live.setVisible)
        actions = {"Start": self._start, "Resume": self._resume}
        after = "Cancelled; Resume goes on from the last step. Finished adaptations are kept."
        self.panel = JobPanel(actions, self._finished, self._event, cancelled=after, pausable=True)
        self.preset = PresetBox(ADAPT_PRESETS, self._sketch, lambda: self.panel.running)
        self._make_forms()
        self.outcome = Outcome(napari_viewer)
        self.outcome.button.clicked.connect(lambda _: self.compare())
        self.lay_out(self._upper(), [self.live, self.panel], copies=True)
        runners = (self.outcome.runner, self.preset.runner, self.method.runner)
        self.cancel_with_me(self.panel, *runners)
        self._keep_all()
        self._follow("trained")

    def _make_forms(self) -> None:
        self.method = EntryChoice("Method", Adaptations(), AUTO)  # type: ignore[arg-type]  # all it needs of a catalog
        self.budget = Form(Budget(), titles={"minutes": "Minutes at most", "source_free": "Leave the source out"})
        self.training = Form(AdaptTrainingConfig(), only=MAIN_TRAINING)
        self.more_training = Form(AdaptTrainingConfig(), without=MAIN_TRAINING)
        self.sampling = Form(SamplingConfig())
        self.augment = Form(AugmentConfig())
        self.preset.fill((self.training, self.more_training), lambda preset: preset.values(self.method.name))
        self.method.menu.currentIndexChanged.connect(lambda _: self._method_changed())
        self.budget.changed.connect(self.preset.ask)
        self.sampling.changed.connect(self.preset.ask)
        self.source.changed.connect(self._source_changed)
        self.run.changed.connect(self.refresh)
        self.show_previews.toggled.connect(self._toggle_previews)

    def _upper(self) -> list[QWidget]:
        top = QWidget()
        rows = form_layout(top)
        add_row(rows, "Network", self.source)
        add_row(rows, "Image", self.target)
        end = QWidget()
        add_row(form_layout(end), "Run folder", self.run)
        return [
            self.outcome,
            self.show_curves,
            top,
            self.method,
            self.preset,
            self.budget,
            end,
            self.show_previews,
            collapsible("More: length", self.training),
            collapsible("More: training", self.more_training),
            collapsible("More: sampling", wrapped(AS_TRAINED), self.sampling),
            collapsible("More: augmentation", wrapped(AS_TRAINED), self.augment),
        ]

    def _keep_all(self) -> None:
        self.keep(source=self.source, target=self.target, run=self.run, method=self.method, preset=self.preset)
        self.keep(budget=self.budget, training=self.training, more_training=self.more_training)
        self.keep(sampling=self.sampling, augment=self.augment, previews=self.show_previews)
        for part in (self.source, self.run, self.budget, self.training, self.more_training, self.sampling):
            part.changed.connect(self.edited)
        self.augment.changed.connect(self.edited)
        self.preset.picked.connect(self.edited)

    def missing(self) -> str | None:
        """Return what is not chosen yet."""
        if self.source.path is None:
            return "Train a network first, or choose the run folder of a trained one."
        if self.target.layer is None:
            return "Choose the image to segment."
        if self.run.path is None and self.session.project is None:
            return "Choose a run folder: everything that the adaptation learns is kept there."
        return None

    def refresh(self) -> None:
        """Follow the session."""
        super().refresh()
        where = "a new one in the project" if self.session.project is not None else "folder to create or to resume"
        self.run.line.setPlaceholderText(where)
        self.outcome.setVisible(self._runs() is not None and self.target.layer is not None and not self.busy)
        self.show_curves.setVisible(bool(self.live.losses.series) and not self.busy)

    def _follow(self, what: str) -> None:
        if what == "trained" and self.session.trained is not None:
            self.source.path = self.session.trained
        super()._follow(what)

    def _source_changed(self) -> None:
        self.refresh()
        self.preset.ask()

    def _method_changed(self) -> None:
        auto = self.method.name == AUTO
        self.budget.editors["minutes"].widget.setEnabled(auto)
        self.preset.apply()

    def call(self) -> tuple[str, Config]:
        """Return the adaptation on the file that holds the target."""
        source, target, run = self._chosen(), self._taken(), self.run.path
        if run is None:
            raise ConfigError("Choose a run folder to create; the copy needs its name.")
        saved, free = layers.data_folder(run), layers.free_name(run)  # what was adapted already stays
        return "adapt", layers.adapt_config(source, target, free, saved=saved, **self.sections())

    def sections(self) -> dict[str, Any]:
        """Return the sections of the config that the forms hold; what nobody changed comes from the training."""
        budget = self.budget.read()
        options = self.method.options()
        if self.method.name == AUTO:
            options = auto_options(budget.minutes, options.get("entries"), options.get("criteria"))
        training = self.training.read(**self.more_training.values())
        return {
            "method": {"name": self.method.name, "options": options},
            "source_free": budget.source_free,
            "training": training.model_dump(exclude_defaults=True),
            "sampling": self.sampling.read().model_dump(exclude_defaults=True),
            "augment": self.augment.read().model_dump(exclude_defaults=True),
        }

    def _chosen(self) -> Path:
        if self.source.path is None:
            raise ConfigError("Choose the run folder of a trained network.")
        return self.source.path

    def _taken(self) -> layers.Snapshot:
        if self.target.layer is None:
            raise ConfigError("Choose the image to segment.")
        return layers.at_voxel_size(self.target.layer, self.session.voxel.get("target"))

    def _sketch(self) -> AdaptConfig:
        """Return a config of the same cost."""
        return parse(
            AdaptConfig, {"run": self._chosen(), "target": ({"image": "target"},), "out": "out", **self.sections()}
        )

    def _start(self) -> Job:
        source, taken, sections, run = self._chosen(), self._taken(), self.sections(), self.run.path
        if run is None or (run == self.session.adapted and self.session.project is not None):
            run = self.session.new_run("adapt")
        if run is None:
            raise ConfigError("Choose a run folder: everything that the adaptation learns is kept there.")
        self.run.path = Path(run)
        return self._begin(source, taken, Path(run), sections, resume=False)

    def _resume(self) -> Job:
        if self.run.path is None:
            raise ConfigError("Choose the run folder to resume.")
        return self._begin(self._chosen(), self._taken(), self.run.path, self.sections(), resume=True)

    def _begin(self, source: Path, taken: Any, run: Path, sections: dict[str, Any], *, resume: bool) -> Job:
        classes = layers.run_classes(source)
        self.preset.stop()
        self.outcome.forget()
        self.show_curves.hide()
        self.live.show()
        self.live.begin(self.target.layer, classes)
        job = layers.adapt(source, taken, run, resume=resume, look=self.live.look, **sections)
        return once_idle(self.preset.runner, layers.then(job, layers.adapted))

    def _event(self, event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "adaptations":
            self.panel.part = f"{event.stage} ({event.done + 1} of {event.total})" if event.done < event.total else ""
            if event.done < event.total:
                self.live.clear()
        elif isinstance(event, Notice) and event.level == "warning" and event.text.startswith("Stopped at step"):
            part = f"{self.panel.part}: " if self.panel.part else ""
            self.panel.message.warn(f"{part}{event.text} What it had learned before is kept as a candidate.")
        self.live.take(event)

    def _finished(self, found: Any) -> None:
        self.run.path = found.run
        self.panel.message.info(f"Finished in {found.seconds:.0f} s.")
        self.outcome.tell(found)
        self.live.hide_layers()
        self.show_curves.setChecked(False)
        self.live.hide()
        self.session.set_run("adapted", found.run)
        self.refresh()
        self.compare()

    def _runs(self) -> dict[str, Path] | None:
        after = self.session.adapted
        return None if self.source.path is None or after is None else {"before": self.source.path, "after": after}

    def compare(self) -> None:
        """Segment the section in view with both networks, in the background."""
        runs, layer = self._runs(), self.target.layer
        if runs is not None and layer is not None:
            self.outcome.compare(layer, runs, self.session.voxel.get("target"))

    def _toggle_previews(self, on: bool) -> None:
        self.live.on = on
        self.live.follow()
