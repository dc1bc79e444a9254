"""Start, progress, log and errors of one job: the lower part of every dock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.utils.notifications import notification_manager, show_error
from qtpy.QtWidgets import QHBoxLayout, QPlainTextEdit, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_em_da._napari.message import Message
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import EmDaError
from napari_em_da.events import Event, Notice, Progress, Saved
from napari_em_da.jobs import Job


class JobPanel(QWidget):
    """Runs one job and shows how it goes.

    Parameters
    ----------
    title : str
        What napari's activity list calls the job.
    actions : {button text: function}
        Each function returns a job, or raises one of our errors with what is wrong in the form.
    on_event : callable, optional
        Gets every event.
    on_result : callable
        Gets the result of a job that finished.
    cancelled : str
        What to say after Cancel.
    """

    def __init__(
        self,
        title: str,
        actions: dict[str, Callable[[], Job]],
        on_result: Callable[[Any], None],
        on_event: Callable[[Event], None] = lambda _event: None,
        *,
        cancelled: str = "Cancelled.",
    ) -> None:
        super().__init__()
        self._title = title
        self._cancelled = cancelled
        self._on_event = on_event
        self._on_result = on_result
        self.runner = JobRunner(self._event, self._ended)
        self.message = Message()
        self.bar = QProgressBar()
        self.bar.hide()
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.log.setMaximumBlockCount(1000)
        self.log.setFixedHeight(84)
        self.log.hide()
        self.buttons = {text: QPushButton(text) for text in actions}
        for text, make in actions.items():
            self.buttons[text].clicked.connect(lambda _=False, make=make: self.start(make))
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(lambda _: self.cancel())
        self.cancel_button.setEnabled(False)
        row = QHBoxLayout()
        for button in (*self.buttons.values(), self.cancel_button):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        for widget in (self.bar, self.message, self.log):
            layout.addWidget(widget)
        self.destroyed.connect(self.runner.abandon)

    @property
    def running(self) -> bool:
        return self.runner.running

    def start(self, make: Callable[[], Job]) -> None:
        """Make a job and run it; an error in the form is shown instead."""
        self.message.clear()
        try:
            job = make()
        except EmDaError as error:
            self.message.error(str(error))
            return
        self.bar.show()
        self.bar.setRange(0, 0)
        self.bar.setFormat("starting")
        self._set_running(True)
        self.runner.start(job, self._title)

    def cancel(self) -> None:
        """Stop at the next event; until then the button stays disabled."""
        self.cancel_button.setEnabled(False)
        self.message.info("Stopping …")
        self.runner.cancel()

    def note(self, text: str) -> None:
        """Append a line to the log."""
        self.log.show()
        self.log.appendPlainText(text)

    def _event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.bar.setRange(0, max(event.total, 1))
            self.bar.setValue(event.done)
            self.bar.setFormat(f"{event.stage} {event.done}/{event.total} {event.unit}")
        elif isinstance(event, Notice):
            self.note(f"warning: {event.text}" if event.level == "warning" else event.text)
        elif isinstance(event, Saved):
            self.note(f"{event.what}: {event.path}")
        self._on_event(event)

    def _ended(self, result: Any, error: Exception | None) -> None:
        self._set_running(False)
        self.bar.setRange(0, 1)
        self.bar.setValue(int(result is not None))
        self.bar.setFormat("failed" if error else "done" if result is not None else "cancelled")
        if error is not None:
            self.message.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
            notify(error)
        elif result is None:
            self.message.info(self._cancelled)
        else:
            self.message.clear()
            self._on_result(result)

    def _set_running(self, running: bool) -> None:
        for button in self.buttons.values():
            button.setEnabled(not running)
        self.cancel_button.setEnabled(running)


def notify(error: Exception) -> None:
    """Show an error as napari does; an unexpected one with its traceback."""
    if isinstance(error, EmDaError) and error.__cause__ is None:
        show_error(str(error))
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)
