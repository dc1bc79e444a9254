"""Start, pause, progress, log and errors of one job: the lower part of every page."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from napari.utils.notifications import notification_manager, show_error
from qtpy.QtWidgets import QHBoxLayout, QPlainTextEdit, QProgressBar, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_em_da._napari.message import Message
from napari_em_da._napari.turns import Pace
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import EmDaError
from napari_em_da.events import Event, Notice, Preview, Progress, Saved
from napari_em_da.jobs import Job

EVENTS_MS = 20
DRAWING = 0.1  # of the time of a job, at most


class JobPanel(QWidget):
    """Runs one job and shows how it goes; an error stands here with its remedy, its traceback one click away.

    Parameters
    ----------
    actions : {button text: function}
        Each function returns a job, or raises one of our errors with what is wrong in the form.
    on_event : callable, optional
        Gets every event.
    on_result : callable
        Gets the result of a job that finished.
    cancelled : str
        What to say after Cancel.
    pausable : bool
        Offer to hold the job between two events.

    Attributes
    ----------
    part : str
        Of a job that does several things in turn: which one the progress is of.
    """

    def __init__(
        self,
        actions: dict[str, Callable[[], Job]],
        on_result: Callable[[Any], None],
        on_event: Callable[[Event], None] = lambda _event: None,
        *,
        cancelled: str = "Cancelled.",
        pausable: bool = False,
    ) -> None:
        super().__init__()
        self._cancelled = cancelled
        self._on_event = on_event
        self._on_result = on_result
        self.part = ""
        self._progress = "starting"
        self._waiting: deque[Event] = deque()
        self._pace = Pace(self, EVENTS_MS, DRAWING)
        self._pace.timeout.connect(self._deliver)
        self.runner = JobRunner(self._take, self._end)
        self.message = Message()
        self.bar = QProgressBar()
        self.bar.hide()
        self.log = text_view(60)
        self.trace = text_view(120)
        self.trace_button = QToolButton()
        self.trace_button.setText("Show the traceback")
        self.trace_button.setToolTip("Where in the program it happened; send it along with a report of the error")
        self.trace_button.setCheckable(True)
        self.trace_button.toggled.connect(self.trace.setVisible)
        self.trace_button.hide()
        self.buttons = {text: QPushButton(text) for text in actions}
        for text, make in actions.items():
            self.buttons[text].clicked.connect(lambda _=False, make=make: self.start(make))
        self.pause_button = QPushButton("Pause")
        self.pause_button.setToolTip("Hold it after the current step, with all it has learned in memory")
        self.pause_button.clicked.connect(lambda _: self.go_on() if self.runner.paused else self.pause())
        self.pause_button.setVisible(pausable)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(lambda _: self.cancel())
        row = QHBoxLayout()
        for button in (*self.buttons.values(), self.pause_button, self.cancel_button):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        for widget in (self.bar, self.message, self.trace_button, self.trace, self.log):
            layout.addWidget(widget)
        self._set_running(False)
        self.destroyed.connect(self.runner.abandon)

    @property
    def running(self) -> bool:
        return self.runner.running

    def start(self, make: Callable[[], Job]) -> None:
        """Make a job and run it; an error in the form is shown instead."""
        self._clear()
        try:
            job = make()
        except EmDaError as error:
            self.message.error(str(error))
            return
        self.part, self._progress = "", "starting"
        self._waiting.clear()
        self.bar.show()
        self.bar.setRange(0, 0)
        self._show_progress()
        self._set_running(True)
        self.runner.start(job)

    def pause(self) -> None:
        """Hold the job at its next event."""
        self.runner.pause()
        self.pause_button.setText("Continue")
        self.message.info("Paused. Continue goes on from here; Cancel keeps what is done so far.")
        self._show_progress()

    def go_on(self) -> None:
        """Let a paused job go on."""
        self.runner.resume()
        self.pause_button.setText("Pause")
        self.message.clear()
        self._show_progress()

    def cancel(self) -> None:
        """Stop at the next event, or at once where it is paused; until then the buttons stay disabled."""
        for button in (self.cancel_button, self.pause_button):
            button.setEnabled(False)
        self.message.info("Stopping …")
        self.runner.cancel()

    def note(self, text: str) -> None:
        """Append a line to the log."""
        self.log.show()
        self.log.appendPlainText(text)

    def _take(self, event: Event) -> None:
        self._waiting.append(event)
        if isinstance(event, Preview):  # the job waits until it is drawn
            self._deliver()
        elif not self._pace.isActive():
            self._pace.start()

    def _deliver(self) -> None:
        """Show what has happened since the last time, in one picture."""
        self._pace.showing()
        while self._waiting:
            self._event(self._waiting.popleft())

    def _event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.bar.setRange(0, max(event.total, 1))
            self.bar.setValue(event.done)
            self._progress = f"{event.stage} {event.done}/{event.total} {event.unit}"
        elif isinstance(event, Notice):
            self.note(f"warning: {event.text}" if event.level == "warning" else event.text)
        elif isinstance(event, Saved):
            self.note(f"{event.what}: {event.path}")
        self._on_event(event)
        self._show_progress()

    def _show_progress(self) -> None:
        parts = ("paused" if self.runner.paused else "", self.part, self._progress)
        self.bar.setFormat(": ".join(filter(None, parts)))

    def _end(self, result: Any, error: Exception | None) -> None:
        self._pace.stop()
        try:
            self._deliver()
        finally:  # whatever a page made of an event, the job has ended
            self._ended(result, error)

    def _ended(self, result: Any, error: Exception | None) -> None:
        self._set_running(False)
        self.bar.setRange(0, 1)
        self.bar.setValue(int(result is not None))
        self.bar.setFormat("failed" if error else "done" if result is not None else "cancelled")
        if error is not None:
            self.show_error(error)
            notify(error)
        elif result is None:
            self.message.info(self._cancelled)
        else:
            self.message.clear()
            self._on_result(result)

    def show_error(self, error: Exception) -> None:
        """Say what went wrong and what to do; where it happened waits behind a button."""
        self.message.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
        self.trace.setPlainText("".join(traceback.format_exception(error)))
        self.trace_button.show()

    def _clear(self) -> None:
        self.message.clear()
        self.trace_button.setChecked(False)
        self.trace_button.hide()
        self.trace.clear()

    def _set_running(self, running: bool) -> None:
        for button in self.buttons.values():
            button.setEnabled(not running)
        self.cancel_button.setEnabled(running)
        self.pause_button.setEnabled(running)
        self.pause_button.setText("Pause")


def text_view(height: int) -> QPlainTextEdit:
    """Return lines that can be read and copied, hidden while there are none."""
    view = QPlainTextEdit()
    view.setReadOnly(True)
    view.setMaximumBlockCount(1000)
    view.setFixedHeight(height)
    view.hide()
    return view


def notify(error: Exception) -> None:
    """Show an error as napari does; an unexpected one with its traceback."""
    if isinstance(error, EmDaError) and error.__cause__ is None:
        show_error(str(error))
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)
