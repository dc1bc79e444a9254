"""Ask before napari closes over a running job, and let the job keep what it must."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from qtpy.QtCore import QEvent, QEventLoop, QObject, QTimer
from qtpy.QtWidgets import QApplication, QMessageBox, QWidget

from napari_em_da._napari.page import Page

WAIT_S = 5.0
STEP_MS = 50
VERBS = {"train": "A training", "adapt": "An adaptation", "segment": "A segmentation", "correct": "A learning round"}
KEPT = {
    "train": "Its last checkpoint is kept.",
    "adapt": "Its last checkpoint is kept.",
    "segment": "Its finished blocks are kept.",
}


def ask(parent: QWidget | None, text: str) -> bool:
    """Return whether the user agrees."""
    buttons = QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No
    answer = QMessageBox.question(parent, "EM DA", text, buttons, QMessageBox.StandardButton.No)
    return answer == QMessageBox.StandardButton.Yes


class CloseFilter(QObject):
    """Stands before the close event of napari's window.

    Parameters
    ----------
    window : QWidget
        Napari's main window.
    pages : callable
        Returns the pages that were built.
    flush : callable
        Saves what is not saved, and returns what could not be.
    closed : callable
        Called once the window is really closed: napari may still ask, and stay.
    """

    def __init__(
        self,
        window: QWidget,
        pages: Callable[[], Sequence[Page]],
        flush: Callable[[], str | None],
        closed: Callable[[], object],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._window = weakref.ref(window)  # the record of an error may keep the dock, and must not keep the window
        self._pages = pages
        self._flush = flush
        self._closed = closed
        self._stopping = False
        window.installEventFilter(self)

    def rest(self) -> None:
        """Let the window be drawn in the next turn of the event loop, and not before."""
        window = self._window()
        if window is not None:
            window.setUpdatesEnabled(False)
            QTimer.singleShot(1, partial(draw, self._window))

    def remove(self) -> None:
        """Stand there no longer."""
        window = self._window()
        if window is not None:
            with suppress(RuntimeError):  # the window went first
                window.removeEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Hold a close event back while the user is asked and jobs stop."""
        if watched is None or watched is not self._window() or event is None or event.type() != QEvent.Type.Close:
            return False
        if self._stopping or not self.may_close():
            event.ignore()
            return True
        QTimer.singleShot(0, self._look)
        return False

    def may_close(self) -> bool:
        """Ask where a job runs, stop the jobs, and save; return whether the window may close."""
        busy = [page for page in self._pages() if page.busy]
        if busy:  # at once: a viewer that a script closes has no layers left, and waiting would take them for removed
            self._flush()
        if busy and not ask(self._window(), question(busy)):
            return False
        self._stopping = True
        try:
            self._stop(busy)
        finally:
            self._stopping = False
        problem = self._flush()
        return problem is None or ask(self._window(), f"{problem}\n\nClose all the same, and lose what is not saved?")

    def _stop(self, busy: Sequence[Page]) -> None:
        """Cancel the jobs and wait for them, while the window goes on living."""
        for page in busy:
            page.cancel_jobs()
        end = time.monotonic() + WAIT_S
        while any(page.busy for page in busy) and time.monotonic() < end:
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, STEP_MS)
            time.sleep(STEP_MS / 5000)

    def _look(self) -> None:
        window = self._window()
        with suppress(RuntimeError):  # the window is gone already
            if window is not None and window.isVisible():
                return
        self._closed()


def draw(window: Callable[[], QWidget | None]) -> None:
    """Let a window that rested be drawn, if it is still there."""
    there = window()
    if there is not None:
        with suppress(RuntimeError):
            there.setUpdatesEnabled(True)


def question(busy: Sequence[Any]) -> str:
    """Return what to ask before these pages' jobs are stopped."""
    what = [VERBS.get(page.name, f"A job of the page {page.title}") for page in busy]
    kept = dict.fromkeys(KEPT.get(page.name, "") for page in busy)
    running = f"{what[0]} is running." if len(what) == 1 else f"{' and '.join((what[0], *map(_lower, what[1:])))} run."
    stop = "Stop it and close?" if len(what) == 1 else "Stop them and close?"
    return " ".join(filter(None, (running, stop, *kept)))


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
