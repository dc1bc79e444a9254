"""Keeps an open project up to date: layers, names, removals, strokes and the pages' values, saved in a thread."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any

from napari.layers import Labels, Layer
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_em_da._napari.edits import Edits
from napari_em_da._napari.records import Opened, can_be_kept, path_of, record_of
from napari_em_da._napari.session import ROLES, Session
from napari_em_da._napari.writes import Kept, Write, remembered, rename, run_all, strokes
from napari_em_da.errors import EmDaError
from napari_em_da.project import LockLost, Project

SAVE_MS = 4000  # after the first change: with the saving itself, a crash loses the strokes of 5 s at most
SOON_MS = 200
POLL_MS = 30
GUARD_MS = 3000
AGAIN = "This is tried again by itself; nothing is lost as long as napari stays open."
ABOUT = ("name", "scale", "translate", "units", "axis_labels", "editable", "opacity", "visible", "colormap")

# of a script or a console that ends with its viewer open: while threads can still be started, and files written
_AT_EXIT: Callable[..., object] = getattr(threading, "_register_atexit", atexit.register)

Outcome = list[tuple[Write, Exception | None]]


class Keeper:
    """Saves what happens to the layers of a session into a project.

    Layers that play a role or are painted on are remembered, under the names they have now; a removed one is
    forgotten. All writing is done by one thread; what cannot be written is tried again.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    failed : Signal(str)
        What could not be saved, and the remedy.
    saved : Signal()
        All that was tried is saved.
    lost : Signal(str)
        Another program has taken the project over: why nothing more is saved.
    """

    failed = Signal(str)
    saved = Signal()
    lost = Signal(str)

    def __init__(self, session: Session) -> None:
        self.session = session
        self.project: Project | None = None
        self.kept: list[Kept] = []
        self.leaving: list[Kept] = []
        self._facts: list[tuple[int, str, str | None]] = []  # renames and removals, in order
        self._order = count()
        self._pages: dict[str, dict[str, Any]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[Outcome] | None = None
        self._save = QTimer()
        self._save.setSingleShot(True)
        self._save.timeout.connect(self.save)
        self._poll = QTimer()
        self._poll.setInterval(POLL_MS)
        self._poll.timeout.connect(self._look)
        self._guard = QTimer()
        self._guard.setInterval(GUARD_MS)
        self._guard.timeout.connect(self.check_lock)
        _AT_EXIT(_close, weakref.ref(self))

    def check_lock(self) -> None:
        """Say so once if another program has taken the project over."""
        if self.project is None or self._future is not None or not self._guard.isActive():
            return
        why = self.project.lost
        if why is not None:
            self._guard.stop()
            self._save.stop()
            self.lost.emit(why)

    def open(self, project: Project, opened: Sequence[tuple[Layer, Opened]] = ()) -> None:
        """Keep the session in a project from now on; ``opened`` are the layers that came from it."""
        self.close()
        self.project = project
        self._pool = ThreadPoolExecutor(1, "em-da-project")
        layers = self.session.viewer.layers
        for layer, about in opened:
            kept = self._watch(layer)
            kept.known_as, kept.store, kept.path = about.record.name, about.store, about.record.path
            kept.changed = kept.settled = True
            if kept.edits is not None:
                kept.edits.forget_data()
                kept.edits.watchful = about.store is not None
            if layer.name != about.record.name:  # the viewer has another layer of that name
                self._renamed(kept)
        layers.events.inserted.connect(self._inserted)
        layers.events.removing.connect(self._removing)
        layers.events.removed.connect(self._removed)
        self.session.changed.connect(self._follow)
        self.session.edited.connect(self._edited)
        for layer in layers:
            self._watch(layer)
        for role in ROLES:
            self._follow(role)
        self._guard.start()

    def close(self) -> str | None:
        """Save at once and let go of the project; return what could not be saved."""
        if self.project is None or self._pool is None:
            return None
        layers = self.session.viewer.layers
        layers.events.inserted.disconnect(self._inserted)
        layers.events.removing.disconnect(self._removing)
        layers.events.removed.disconnect(self._removed)
        self.session.changed.disconnect(self._follow, missing_ok=True)
        self.session.edited.disconnect(self._edited, missing_ok=True)
        self._guard.stop()
        problem = self.flush(closing=True)
        for kept in self.kept:
            self._unwatch(kept)
        for timer in (self._save, self._poll):
            timer.stop()
        self._pool.shutdown(wait=True)
        self.project.close()
        self.kept, self.project, self._pool = [], None, None
        self._facts, self._pages = [], {}
        return problem

    def flush(self, *, closing: bool = False) -> str | None:
        """Save everything now, and wait for it; return what could not be saved.

        A viewer that closes empties its list of layers first: these were not removed by anybody, and stay.
        """
        if self._pool is None:
            return None
        if self._future is not None:
            self._ended(self._future.result())
        if closing and not self.session.viewer.layers:
            self._facts = [fact for fact in self._facts if fact[2] is not None]
            for kept in self.leaving:
                kept.changed = kept.last is not None  # the roles of this moment are gone
            self.kept, self.leaving = self.kept + self.leaving, []
        problems = self._ended(run_all(self._writes()))
        if not problems and any(kept.unsaved for kept in self.kept):  # painted on before its strokes were begun
            problems = self._ended(run_all(self._writes()))
        return "\n".join(problems) or None

    def set_page(self, name: str, values: dict[str, Any]) -> None:
        """Save the values of a page soon."""
        self._pages[name] = values
        self._start(SOON_MS)

    def save(self) -> None:
        """Save what has changed, in the thread."""
        if self._pool is None or self._future is not None:  # the end of the running one looks again
            return
        writes = self._writes()
        if writes:
            self._future = self._pool.submit(run_all, writes)
            self._poll.start()

    @property
    def dirty(self) -> bool:
        """Whether something waits to be saved."""
        return bool(self._pages or self._facts) or any(kept.changed or kept.unsaved for kept in self.kept)

    @property
    def emptied(self) -> bool:
        """Whether a viewer that closes has emptied its list of layers: what the pages hold then is nobody's wish."""
        return not self.session.viewer.layers and bool(self.leaving or self.kept)

    def _start(self, ms: int) -> None:
        if self.project is not None and (not self._save.isActive() or self._save.remainingTime() > ms):
            self._save.start(ms)

    def _look(self) -> None:
        if self._future is not None and self._future.done():
            self._ended(self._future.result())

    def _ended(self, outcome: Outcome) -> list[str]:
        self._future = None
        self._poll.stop()
        problems: list[str] = []
        for write, error in outcome:
            if error is None:
                write.after()
                continue
            write.again()
            text = str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}"
            problems += [] if text in problems else [text]
        if any(isinstance(error, LockLost) for _, error in outcome):
            self.check_lock()  # trying again would be of no use
        elif problems:
            self.failed.emit("\n".join((*problems, AGAIN)))
        elif outcome:
            self.saved.emit()
        if self.dirty and self._guard.isActive():
            self._start(SAVE_MS)
        return problems

    def _writes(self) -> list[Write]:
        """Return what has to be saved, in order, as it is at this moment."""
        project = self.project
        if project is None:
            return []
        writes = [write for kept in self.leaving for write in strokes(kept)]
        facts, self._facts, self.leaving = sorted(self._facts), [], []
        for fact in facts:
            _, old, new = fact
            run = partial(project.forget, old) if new is None else partial(rename, project, old, new)
            writes.append(Write(run, partial(self._facts.append, fact)))
        for kept in self.kept:
            if kept.changed:
                kept.changed = False
                kept.path = path_of(kept.layer) or kept.path
                record = kept.last or record_of(kept.layer, self.session, kept.path)
                kept.last = None
                writes.append(remembered(project, kept, record, partial(setattr, kept, "changed", True)))
                kept.known_as = kept.layer.name
            writes += strokes(kept)
        pages, self._pages = self._pages, {}
        for name, values in pages.items():
            writes.append(Write(partial(project.pages.set, name, values), partial(self._page_again, name, values)))
        return writes

    def _page_again(self, name: str, values: dict[str, Any]) -> None:
        self._pages.setdefault(name, values)  # newer values may have come meanwhile

    def _keep(self, layer: Layer) -> None:
        """Remember a layer in the project."""
        kept = self._watch(layer)
        if kept.known_as is None and not kept.changed:
            kept.changed = True
            self._start(SOON_MS)

    def _watch(self, layer: Layer) -> Kept:
        """Follow a layer, whether it is remembered or not."""
        kept = next((kept for kept in self.kept if kept.layer is layer), None)
        if kept is None:
            kept = Kept(layer, path=path_of(layer))
            self.kept.append(kept)
            if isinstance(layer, Labels) and can_be_kept(layer) and not layer.multiscale and layer.ndim in (2, 3):
                kept.edits = Edits(layer, partial(self._touched, kept))
            for name in ABOUT:
                if hasattr(layer.events, name):
                    getattr(layer.events, name).connect(self._about)
        return kept

    def _unwatch(self, kept: Kept) -> None:
        if kept.edits is not None:
            kept.edits.stop()
        for name in ABOUT:
            if hasattr(kept.layer.events, name):
                getattr(kept.layer.events, name).disconnect(self._about)

    def _touched(self, kept: Kept) -> None:
        if kept.edits is None:
            return
        if kept.known_as is None and not kept.changed and not kept.edits.boxes:
            kept.edits.take()  # other data in a layer that nobody uses: a preview, a plot
            return
        self._keep(kept.layer)
        kept.changed = kept.changed or kept.store is None
        self._start(SAVE_MS)

    def _edited(self, layer: Layer, box: Any) -> None:
        for kept in self.kept:
            if kept.layer is layer and kept.edits is not None:
                self._keep(layer)
                kept.edits.add(box)

    def _about(self, event: Any) -> None:
        for kept in self.kept:
            if kept.layer is event.source and kept.known_as is not None:
                if event.type == "name":
                    self._renamed(kept)
                kept.changed = True
                self._start(SOON_MS if event.type == "name" else SAVE_MS)

    def _renamed(self, kept: Kept) -> None:
        if kept.known_as is not None and kept.known_as != kept.layer.name:
            self._facts.append((next(self._order), kept.known_as, kept.layer.name))
            kept.known_as = kept.layer.name

    def _follow(self, what: str) -> None:
        if what in ROLES:
            layer = self.session.layer(what)
            if layer is not None and can_be_kept(layer):
                self._keep(layer)
        elif what != "classes":
            return
        for kept in self.kept:  # roles and classes are part of what is remembered, of the layer before too
            kept.changed = kept.changed or kept.known_as is not None
        self._start(SAVE_MS if what == "classes" else SOON_MS)

    def _inserted(self, event: Any) -> None:
        self._watch(event.value)

    def _removing(self, event: Any) -> None:
        layer = event.source[event.index]  # the viewer that plugins get wraps its layers
        for kept in self.kept:
            if kept.layer is layer and kept.changed:  # while the session still knows its role
                kept.path = path_of(layer) or kept.path
                kept.last = record_of(layer, self.session, kept.path)

    def _removed(self, event: Any) -> None:
        for kept in [kept for kept in self.kept if kept.layer is event.value]:
            self.kept.remove(kept)
            self._unwatch(kept)
            if kept.known_as is not None or kept.last is not None:
                self.leaving.append(kept)
            if kept.known_as is not None:
                self._facts.append((next(self._order), kept.known_as, None))
                self._start(SOON_MS)


def _close(there: weakref.ref[Keeper]) -> None:
    keeper = there()
    if keeper is not None:
        keeper.close()


__all__ = ["Keeper"]
