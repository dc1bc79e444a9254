"""The guided window: one dock whose pages lead from two stacks to a segmentation that can be trusted."""

from __future__ import annotations

import importlib
from functools import cached_property
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QMainWindow, QStackedWidget, QVBoxLayout, QWidget

from napari_em_da._napari.closing import CloseFilter
from napari_em_da._napari.form import Form
from napari_em_da._napari.garbage import Garbage
from napari_em_da._napari.graphics import REMEDY, opengl_found
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.keeper import Keeper
from napari_em_da._napari.message import Message
from napari_em_da._napari.page import WIDTH, Page
from napari_em_da._napari.records import Opened, Reopened, layer_of, path_of, reopening, roles_of
from napari_em_da._napari.session import Session
from napari_em_da._napari.stepper import Onward, Stepper
from napari_em_da._napari.turns import Turns
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import EmDaError
from napari_em_da.layers.settings import Settings, apply_settings, read_settings

PAGES = {  # in their order: the module and the class of each
    "data": "DataPage",
    "weights": "WeightsPage",
    "train": "TrainPage",
    "adapt": "AdaptPage",
    "segment": "SegmentPage",
    "refine": "RefinePage",
    "evaluate": "EvaluatePage",
    "correct": "CorrectPage",
}
SAVE_MS = 1000
LOOK_MS = 300
WINDOW = "window"  # where the project keeps what belongs to no page
SETS_SESSION = ("weights",)  # pages whose values count before they are shown


class GuideDock(QWidget):
    """**EM DA**: eight pages on one session, built when they are first shown.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.session = Session(napari_viewer)
        self.keeper, self.garbage = Keeper(self.session), Garbage(napari_viewer)
        self.pages: dict[str, Page] = {}
        self._panels: dict[str, list[JobPanel]] = {}
        self.done: set[str] = set()
        self.stack = QStackedWidget()
        self.stepper = Stepper(list(PAGES), [name.capitalize() for name in PAGES])
        self.onward = Onward()
        self.message, self.saving, self.picture = Message(), Message(), Message()
        self.closing: CloseFilter | None = None
        self.opener = JobRunner(lambda _event: None, self._reopened)
        self._opening: list[Opened] | None = None
        self._added: list[tuple[Layer, Opened]] = []
        self._restored: dict[str, dict[str, Any]] = {}
        self._save = QTimer(self)
        self._save.setSingleShot(True)
        self._save.setInterval(SAVE_MS)
        self._save.timeout.connect(self.save)
        self._going = QTimer(self)
        self._going.setSingleShot(True)
        self._look = QTimer(self)
        self._look.setInterval(LOOK_MS)
        self._look.timeout.connect(self.mark)
        self._look.timeout.connect(self.garbage.settle)
        self._lay_out()
        self._connect()
        self._turns = Turns(self)  # the empty dock appears at once, and then fills
        self._turns.later(lambda: self.settings, self._begin)

    @cached_property
    def settings(self) -> Settings:
        """The preferences, read once; napari looks through all plugins for them."""
        found = read_settings()
        apply_settings(found)
        return found

    def _begin(self) -> None:
        if not self.pages:
            self.show_page("data")

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(2, 2, 2, 2)
        column.setSpacing(2)
        for widget in (self.stepper, self.picture, self.message, self.saving):
            column.addWidget(widget)
        if not opengl_found():
            self.picture.warn(REMEDY)
        column.addWidget(self.stack, 1)
        column.addWidget(self.onward)
        self.setMinimumWidth(WIDTH)

    def _connect(self) -> None:
        self.stepper.chosen.connect(self.go_to)
        self.onward.pressed.connect(self.show_next)
        self.session.changed.connect(self._changed)
        self.keeper.failed.connect(self.saving.error)
        self.keeper.saved.connect(self.saving.clear)
        self.keeper.lost.connect(self._lost)
        self.session.viewer.layers.events.removing.connect(self._removing)
        self._look.start()
        self.destroyed.connect(self.keeper.close)

    def show_page(self, name: str) -> Page:
        """Show a page, and build it the first time."""
        page, before = self._page(name), self.stack.currentWidget()
        if isinstance(before, Page) and before is not page:
            before.leave()
        self.stack.setCurrentWidget(page)
        self.stepper.buttons[name].setChecked(True)
        after = next_page(name)
        self.onward.show_next(page.next_step, None if after is None else after.capitalize())
        page.refresh()
        if page.left:
            page.arrive()
        self.mark()
        self._save.start()
        return page

    def go_to(self, name: str) -> None:
        """Show a page that the user asks for: built in one turn of the event loop if it is new, shown in the next."""
        if name in self.pages:
            self.show_page(name)
        else:
            self._turns.do(lambda: self._page(name), lambda: self.show_page(name))

    def show_next(self) -> None:
        """Show the page after the one that is shown."""
        after = next_page(self.current)
        if after is not None:
            self.go_to(after)

    def _page(self, name: str) -> Page:
        if name not in self.pages:
            settings = self.settings  # before the page loads anything: torch reads the number of threads only once
            kind = getattr(importlib.import_module(f"napari_em_da._napari.{name}_page"), PAGES[name])
            page = kind(self.session.viewer, self.session)
            for form in page.findChildren(Form):
                if "device" in form.editors:
                    form.editors["device"].set(settings.device)
            page.restore(self._restored.pop(name, {}))
            page.edited.connect(self._save.start)
            self.pages[name], self._panels[name] = page, page.findChildren(JobPanel)
            self.stack.addWidget(page)
        return self.pages[name]

    @property
    def current(self) -> str:
        """Name of the page that is shown; of the first one while the dock is empty."""
        return next((name for name, page in self.pages.items() if page is self.stack.currentWidget()), "data")

    def mark(self) -> None:
        """Show which pages are done and which work."""
        for name in PAGES:
            page = self.pages.get(name)
            running = page is not None and page.busy
            if page is not None and not running and (page.done() or any(map(has_finished, self._panels[name]))):
                self.done.add(name)
            self.stepper.mark(name, done=name in self.done or is_done(self.session, name), running=running)

    def save(self) -> None:
        """Keep the pages' values in the project, if one is open."""
        if self.session.project is None or self._opening is not None or self.keeper.emptied:
            return
        for name, page in self.pages.items():
            self.keeper.set_page(name, page.memo())
        about = {"trained": self.session.trained, "adapted": self.session.adapted, "done": sorted(self.done)}
        self.keeper.set_page(WINDOW, {"page": self.current, **about})

    def close_all(self) -> None:
        """Save, let go of the project, and stop every job: the dock or the window goes away."""
        for timer in (self._save, self._look):
            timer.stop()
        self._turns.drop()
        self.opener.abandon()
        for page in self.pages.values():
            page.close_jobs()
        self.session.changed.disconnect(self._changed, missing_ok=True)
        self.session.viewer.layers.events.removing.disconnect(self._removing)
        self.save()
        self.keeper.close()
        self.garbage.close()
        if self.closing is not None:
            self.closing.remove()
            self.closing = None

    def event(self, event: QEvent | None) -> bool:
        """Napari takes a closed dock's widget out of the window without closing it."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parent() is None:
                if self.closing is not None:
                    self.closing.rest()  # first: the canvas takes the dock's place, and drawing it takes as long again
                self.close_all()
            else:
                QTimer.singleShot(0, self.guard)
        return bool(super().event(event))

    def guard(self) -> None:
        """Stand before the closing of the main window, once the dock is in it."""
        above = self.parentWidget()
        while above is not None and not isinstance(above, QMainWindow):
            above = above.parentWidget()
        if above is not None and self.closing is None:
            self.closing = CloseFilter(above, lambda: list(self.pages.values()), self._flush, self.close_all, self)

    def _flush(self) -> str | None:
        self.save()
        return self.keeper.flush(closing=True)

    def _removing(self, _event: Any = None) -> None:
        if self._save.isActive() and not self._going.isActive():  # while the pages still know the layer
            self._save.stop()
            self.save()
        self._going.start()  # what goes in one turn of the event loop goes together

    def _changed(self, what: str) -> None:
        if what == "project":
            self._open_project()
        self.mark()
        self._save.start()

    def _lost(self, text: str) -> None:
        self.saving.error(text)
        QTimer.singleShot(0, lambda: self.session.lose_project(text))

    def _open_project(self) -> None:
        project = self.session.project
        if project is None:
            self.keeper.close()
            return
        self.keeper.close()  # saves what belongs to the project before
        self.saving.clear()
        try:
            project.lock()
        except (EmDaError, OSError) as error:
            self.message.error(str(error))
            self.session.set_project(None)
            return
        self._opening, self._added = [], []
        self.message.info(f"Opening {project.folder.name} …")
        self.opener.start(reopening(project), silent=True)

    def _reopened(self, found: Reopened | None, error: Exception | None) -> None:
        self.message.clear()
        if error is not None:
            self.message.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
        elif found is not None:
            if found.problems:
                self.message.warn("\n".join(found.problems))
            self._opening = found.layers
        self._add_next()

    def _add_next(self) -> None:
        """Add one layer at a time, so that the window stays alive between them."""
        if self.session.project is None or self._opening is None:
            return
        if self._opening:
            opened = self._opening.pop(0)
            layer = self._add(opened)
            for role in roles_of(opened.record):
                self.session.assign(role, layer)
            self._added.append((layer, opened))
            QTimer.singleShot(0, self._add_next)
            return
        self._opening = None
        self._restore()
        self.keeper.open(self.session.project, self._added)
        self._added = []
        self._save.start()

    def _add(self, opened: Opened) -> Layer:
        """Return the viewer's layer of this name and kind if it shows the same file, else a new one."""
        record, new = opened.record, layer_of(opened)
        for there in self.session.viewer.layers:
            same = there.name == record.name and type(there) is type(new) and path_of(there) == record.path
            if same and record.strokes is None and isinstance(there, Layer):
                return there
        self.session.viewer.add_layer(new)
        return new

    def _restore(self) -> None:
        project = self.session.project
        about = project.pages.get(WINDOW)
        self.done = {name for name in about.get("done", self.done) if name in PAGES}
        for which in ("trained", "adapted"):
            if which in about:
                self.session.set_run(which, about[which])
        for name in PAGES:
            values = project.pages.get(name)
            if name in self.pages:
                self.pages[name].restore(values)
            elif values:
                self._restored[name] = values
                if name in SETS_SESSION:
                    self._page(name)
        page = about.get("page", self.current)
        self.show_page(page if page in PAGES else "data")


def next_page(name: str) -> str | None:
    """Return the page after this one; None for the last one."""
    names = list(PAGES)
    return names[names.index(name) + 1] if name != names[-1] else None


def is_done(session: Session, name: str) -> bool:
    """Return whether the session holds what a page is there for."""
    if name == "data":
        return all(session.layer(role) is not None for role in ("source", "labels", "target"))
    found: dict[str, object] = {
        "weights": session.weights,
        "train": session.trained,
        "adapt": session.adapted,
        "segment": session.layer("prediction"),
    }
    return found.get(name) is not None


def has_finished(panel: JobPanel) -> bool:
    """Return whether a job has come to its end."""
    return panel.bar.format() == "done"


__all__ = ["PAGES", "GuideDock"]
