"""Look where it matters, paint what is wrong, learn from it in seconds, and accept what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Image, Labels, Layer
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import PathLine
from napari_em_da._napari.corrections_accept import AcceptBox
from napari_em_da._napari.corrections_keys import KEYS, PageKeys
from napari_em_da._napari.corrections_paint import PaintBox
from napari_em_da._napari.corrections_places import PlaceList, Window
from napari_em_da._napari.corrections_rounds import RoundList, tell
from napari_em_da._napari.corrections_view import RoundView, section_box, window_in_view
from napari_em_da._napari.form import Form, add_row, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.operators import Operators
from napari_em_da._napari.page import Page, collapsible, wrapped
from napari_em_da._napari.refine_page import VolumeLine
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.session import Session
from napari_em_da._napari.turns import after_turns
from napari_em_da._napari.warm import warm_training
from napari_em_da.config import CorrectConfig
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.jobs import Job
from napari_em_da.layers.refine import path_of

MORE = ("steps", "replay", "forget", "keep", "batch", "learning_rate", "precision", "device")
SHOWN = 3  # turns of the event loop after the one that builds the page
NOWHERE = CorrectConfig(run=Path("run"), image=Path("image.tif"), corrections=Path("corrections.tif"))


class CorrectPage(Page):
    """Suggestions, paint, operators on objects, rounds of learning, and ground truth.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages.
    """

    name, title = "correct", "Correct"
    purpose = "Look where it matters, paint what is wrong, and let the network learn from it in seconds."
    next_step = "Learn again after more paint, segment the volume, or score it on Evaluate."

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__(napari_viewer, session)
        self.image = RoleChoice(self.session, "target", Image, suggest=session is None)
        self.labels = RoleChoice(self.session, "prediction", Labels, suggest=session is None)
        self.paint_layer = RoleChoice(self.session, "corrections", Labels, optional=True)
        self.run = PathLine("Run folder", "folder that a training made")
        self.probabilities = VolumeLine("Stored probabilities", "not stored: this section is predicted")
        self.probabilities.setToolTip("What Segment wrote beside the labels; places are found in all sections then")
        self.places = PlaceList(napari_viewer)
        self.paint = PaintBox(self.session)
        self.operators = Operators(napari_viewer)
        self.seconds = Form(NOWHERE, only=("seconds",), titles={"seconds": "Seconds to learn"})
        self.more = Form(NOWHERE, only=MORE)
        self.rounds = RoundList()
        self.accept = AcceptBox(self.session)
        self.view = RoundView(self.session)
        self.panel = JobPanel({"Learn from my corrections": self._learn}, self._learned)
        self.panel.buttons["Learn from my corrections"].setToolTip("A few seconds of training on what you painted (L)")
        self._given: Path | None = None
        self._stored = ""  # the probabilities that were filled in, not typed
        self._began: tuple[layers.Snapshot, Path] | None = None  # of the round that runs
        actions = (
            lambda: self.places.step(1),
            lambda: self.places.step(-1),
            self.paint.next_class,
            self.take,
            self.panel.buttons["Learn from my corrections"].click,
        )
        self._keys = PageKeys(self, dict(zip(KEYS, actions, strict=True)))
        self._build()
        self.keep(image=self.image, labels=self.labels, corrections=self.paint_layer, run=self.run)
        self.keep(probabilities=self.probabilities, seconds=self.seconds, more=self.more, scope=self.accept.scope)
        self.keep(seen=self.places, rounds=self.rounds)
        self.cancel_with_me(self.panel, self.places.runner, self.view.runner, self.operators.runner, self.accept.runner)
        self.run.changed.connect(self.refresh)
        for choice in (self.image, self.labels, self.paint_layer):
            choice.chosen.connect(self.refresh)
        for signal in (self.run.changed, self.probabilities.changed, self.seconds.changed, self.more.changed):
            signal.connect(self.edited)
        for signal in (self.places.edited, self.operators.changed):
            signal.connect(self.edited)
        self.places.find_button.clicked.connect(lambda _: self.find_places())
        self.paint.new_button.clicked.connect(lambda _: self.new_corrections())
        self.paint.take_button.clicked.connect(lambda _: self.take())
        self.accept.button.clicked.connect(lambda _: self.accept_truth())
        self.rounds.back.connect(self.back_to)
        after_turns(SHOWN, warm_training)

    def _build(self) -> None:
        top, painting = QWidget(), QWidget()
        rows = form_layout(top)
        add_row(rows, "Image", self.image)
        add_row(rows, "Segmentation", self.labels)
        add_row(rows, "Run folder", self.run)
        add_row(rows, "Probabilities", self.probabilities)
        rows = form_layout(painting)
        add_row(rows, "Corrections", self.paint_layer)
        looking = collapsible("1  Places to look at", self.places)
        paint = collapsible("2  Paint what is wrong", painting, self.paint)
        objects = collapsible("Objects: merge, split, fill", self.operators)
        learning = collapsible("3  Learn", self.seconds, collapsible("More", self.more), self.rounds)
        truth = collapsible("4  Accept as ground truth", self.accept)
        keys = collapsible("Shortcuts", wrapped("\n".join(f"{key}: {what}" for key, what in KEYS.items())))
        for section in (looking, paint, learning):
            section.expand(animate=False)
        objects.toggled.connect(lambda on: None if on else self.operators.release())
        self.lay_out(
            [top, looking, paint, objects, learning, truth, keys], [self.panel, self.view.message], copies=True
        )

    def missing(self) -> str | None:
        """Return what to choose first."""
        if self.image.layer is None:
            return "Choose the image to correct; open one on the Data page or drop it into the viewer."
        if self.run.path is None:
            return "Choose the run folder that segmented it: Train, Adapt and Learn make one."
        return None

    def refresh(self) -> None:
        """Follow the best run of the session, its classes, and the probabilities of the segmentation."""
        best = self.session.best_run
        if best is not None and best != self._given and self.run.path in (None, self._given):
            self._given = best
            self.run.path = best
        super().refresh()
        stored = path_of(self.labels.layer, "probabilities") if self.labels.layer is not None else None
        if stored is not None and self.probabilities.memo() == self._stored:  # typed paths stay
            self._stored = str(stored)
            self.probabilities.restore(self._stored)
        self.paint.show_classes(self.classes())
        self.paint.take_button.setEnabled(self.labels.layer is not None)

    def done(self) -> bool:
        """Return whether a round was learned."""
        return bool(self.rounds.rows)

    def classes(self) -> dict[str, tuple[int, ...]]:
        """Return the classes of the run; those of the session where it has none."""
        if self.run.path is not None:
            try:
                return layers.run_classes(self.run.path)
            except EmDaError:  # said when somebody presses a button
                pass
        return dict(self.session.classes)

    def call(self) -> tuple[str, CorrectConfig]:
        """Return the round that Learn would do.

        Paint that no file holds is saved beside the round's folder: a script could not read it from the window.

        Raises
        ------
        ConfigError, DataError
            Where nothing is painted, the image is in no file, or an option is wrong.
        """
        image, run = self._image_and_run()
        return "correct", layers.correct_config(image, self._painted(), run, **self._options(image))

    def find_places(self) -> None:
        """Look for places in the background."""
        try:
            image, run = self._image_and_run()
            stored = self.probabilities.path
            box = section_box(self.viewer, image)
            where: dict[str, Any] = {"section": box[0].start, "box": box[1:]} if stored is None else {}
            job = layers.find_places(image, run, probabilities=stored, seen=self.places.seen, **where)
        except EmDaError as error:
            self.places.message.error(str(error))
            return
        self.places.look(job, image)

    def new_corrections(self) -> None:
        """Add an empty layer to paint in."""
        try:
            image, _ = self._image_and_run()
            self.paint.new_layer(image)
        except EmDaError as error:
            self.paint.message.error(str(error))
            return
        self.paint.message.info("Paint a few strokes where the segmentation is wrong. Only paint counts.")

    def take(self) -> None:
        """Copy the prediction of the current place, or of the view, into the corrections."""
        try:
            image, _ = self._image_and_run()
            painted, predicted = self.paint.ensure(image), self.labels.layer
            if predicted is None:
                raise ConfigError("Choose the segmentation to take from.")
            count = layers.take_prediction(painted, predicted, self.place_in_view(image), self.classes())
        except EmDaError as error:
            self.paint.message.error(str(error))
            return
        self.paint.message.info(f"{count:,} voxels are in the corrections now: repair what is wrong in them.")

    def accept_truth(self) -> None:
        """Write what is chosen as ground truth."""
        try:
            image, _ = self._image_and_run()
            shape = layers.snapshot(image).volume.shape
            scope = self.accept.scope.currentData()
            box = None if scope == "volume" else layers.window_box(self.place_in_view(image), shape)
            if box is not None and scope == "section":
                box = (box[0], slice(0, shape[1]), slice(0, shape[2]))
        except EmDaError as error:
            self.accept.message.error(str(error))
            return
        self.accept.start(box, self.classes())

    def place_in_view(self, image: Layer) -> Window:
        """Return the current place where it is on the section in view, else what is in view, of 512 pixels at most."""
        section = section_box(self.viewer, image)[0].start
        place = self.places.current
        if place is not None and place[0] == section and self.places.image is image:
            return place
        return window_in_view(self.viewer, image)

    def back_to(self, run: Path) -> None:
        """Go on with an earlier round, and show what it makes of the section in view."""
        first = self.rounds.rows[0][0]
        self._use(None if run == first == self.session.trained else run, run)
        try:
            image, _ = self._image_and_run()
            self.view.look(layers.snapshot(image), run, section_box(self.viewer, image), **self._looking())
        except EmDaError as error:
            self.view.message.error(str(error))

    def close_jobs(self) -> None:
        """Also leave the keys and the mouse to the viewer."""
        super().close_jobs()
        self.operators.release()
        self._keys.release()

    def showEvent(self, event: QShowEvent | None) -> None:
        """The keys work while the page is seen."""
        self._keys.enable(True)
        super().showEvent(event)

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Other pages have the keys and the mouse for themselves."""
        self._keys.enable(False)
        self.operators.release()
        super().hideEvent(event)

    def _image_and_run(self) -> tuple[Image, Path]:
        image, run = self.image.layer, self.run.path
        text = self.missing()
        if text or not isinstance(image, Image) or run is None:
            raise ConfigError(text or "Choose an image and a run folder.")
        layers.run_classes(run)
        return image, run

    def _options(self, image: Layer) -> dict[str, Any]:
        self.seconds.read()
        self.more.read()
        z, y, x, height, width = window_in_view(self.viewer, image)
        options = {**self.seconds.values(), **self.more.values(), "view": (z, y, x, max(height, width))}
        size = self.session.voxel.get("target")
        return options if size is None else {**options, "voxel_nm": size}

    def _learn(self) -> Job:
        image, run = self._image_and_run()
        painted = self._painted()
        self.view.message.clear()
        self._began = layers.snapshot(image), run
        return layers.correct(image, painted, run, **self._options(image))

    def _painted(self) -> Labels:
        if self.paint.layer is None:
            raise ConfigError("Nothing is painted yet: make a corrections layer and paint what is wrong.")
        return self.paint.ensure(self.image.layer)

    def _learned(self, result: Any) -> None:
        if self._began is None:
            return
        taken, start = self._began
        self.rounds.add(result.run, f"{result.run.name}: {100 * result.changed['all']:.1f} % changed", start)
        self._use(result.run, result.run)
        tell(result, self.panel.message)
        self.edited.emit()
        self.view.show_round(taken, result, **self._looking())

    def _use(self, adapted: Path | None, run: Path) -> None:
        self._given = run
        self.run.path = run
        self.session.set_run("adapted", adapted)

    def _looking(self) -> dict[str, Any]:
        """Return how a section in view is segmented."""
        values = self.more.values()
        options: dict[str, Any] = {name: values[name] for name in ("precision", "device") if name in values}
        size = self.session.voxel.get("target")
        return options if size is None else {**options, "voxel_nm": size}
