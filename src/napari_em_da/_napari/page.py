"""What all pages share: what they need and do, a scrolling form, the job below, and state that can be kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from napari.layers import Layer
from qtpy.QtCore import QEvent, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QApplication, QHBoxLayout, QLabel, QScrollArea, QToolButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.message import Message
from napari_em_da._napari.session import Session
from napari_em_da._napari.state import read_state, write_state
from napari_em_da._napari.turns import Turns
from napari_em_da._napari.warm import warm_up
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import Config
from napari_em_da.errors import EmDaError

WIDTH = 400


class Page(QWidget):
    """A step of the guided window, and a dock widget of its own; closing it or the viewer cancels its jobs.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    session : Session, optional
        What is shared with the other pages; its own if the page stands alone.

    Attributes
    ----------
    name, title, purpose, next_step : str
        Key of its state, what the stepper shows, what the page does, and what to do when it is done; one sentence each.
    edited : Signal
        Something worth keeping was changed.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    purpose: ClassVar[str] = ""
    next_step: ClassVar[str] = ""
    edited = Signal()

    def __init__(self, napari_viewer: Any, session: Session | None = None) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session = session or Session(napari_viewer)
        self._kept: dict[str, QWidget] = {}
        self._runners: list[JobRunner] = []
        self.left = False  # whether the guide shows another page
        self._veiled: list[Layer] = []
        self.need = Message()
        self.copied = Message()
        self.setMinimumWidth(WIDTH)
        warm_up()

    def missing(self) -> str | None:
        """Return what the page still needs, as a sentence with the remedy; None when it can start."""
        return None

    def call(self) -> tuple[str, Config]:
        """Return the workflow and the config of what the page would do now, for Copy as Python and as command.

        Raises
        ------
        ConfigError
            Where something is missing or wrong.
        """
        raise NotImplementedError

    def memo(self) -> dict[str, Any]:
        """Return the values of all kept widgets, as plain JSON."""
        return read_state(self._kept)

    def restore(self, values: dict[str, Any]) -> None:
        """Show values that ``memo`` returned; what no longer fits is left as it is."""
        write_state(self._kept, values)

    def keep(self, **widgets: QWidget) -> None:
        """Name the widgets whose values belong to the page's state."""
        self._kept |= widgets

    def lay_out(self, upper: list[QWidget], lower: list[QWidget], *, copies: bool = False) -> None:
        """Put the form into a scrolling area, and everything about the job below it."""
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 4, 4, 4)
        if self.purpose:
            column.addWidget(wrapped(self.purpose))
        column.addWidget(self.need)
        for widget in upper:
            column.addWidget(widget)
        column.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setWidget(content)
        layout = QVBoxLayout(self)
        layout.addWidget(area, 1)
        for widget in lower:
            layout.addWidget(widget)
        if copies:
            layout.addLayout(self._copy_row())
            layout.addWidget(self.copied)
        self.session.changed.connect(self._follow)
        self.refresh()

    def refresh(self) -> None:
        """Say what is missing; pages add what else follows the session."""
        text = self.missing()
        if text:
            self.need.warn(text)
        else:
            self.need.clear()

    def leave(self) -> None:
        """Make way for another page, whose layers the previews of this one would cover."""
        self.left = True
        self._veiled = [layer for layer in self.viewer.layers if layer.visible and layer.metadata.get("preview")]
        for layer in self._veiled:
            layer.visible = False

    def arrive(self) -> None:
        """Show again what ``leave`` has hidden."""
        self.left = False
        for layer in self._veiled:
            if layer in self.viewer.layers:
                layer.visible = True
        self._veiled = []

    def cancel_with_me(self, *owners: JobPanel | JobRunner) -> None:
        """Stop these jobs when the page goes away."""
        for owner in owners:
            runner = owner.runner if isinstance(owner, JobPanel) else owner
            self._runners.append(runner)
            self.destroyed.connect(runner.abandon)

    @property
    def busy(self) -> bool:
        """Whether a job of the page runs that its user started."""
        return any(runner.running and not runner.silent for runner in self._runners)

    def done(self) -> bool:
        """Return whether the page has done its part; the guide looks at the session too."""
        return False

    def cancel_jobs(self) -> None:
        """Cancel the jobs that the user started; the page stays as it is."""
        for runner in self._runners:
            if not runner.silent:
                runner.cancel()

    def event(self, event: QEvent | None) -> bool:
        """Napari takes a closed dock's widget out of the window without closing it."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.close_jobs()
        return bool(super().event(event))

    def close_jobs(self) -> None:
        """Cancel every job, drop what it reports and what waits for its turn, and follow the session no longer."""
        self.session.changed.disconnect(self._follow, missing_ok=True)
        for runner in self._runners:
            runner.abandon()
        with suppress(RuntimeError):  # Qt has deleted the page already, and its turns with it
            for turns in self.findChildren(Turns):
                turns.drop()

    def copy_python(self) -> None:
        """Put a script that does the same on the clipboard."""
        from napari_em_da.copying import as_python

        self._copy(as_python)

    def copy_command(self) -> None:
        """Put a command that does the same on the clipboard."""
        from napari_em_da.copying import as_command

        self._copy(as_command)

    def _follow(self, what: str) -> None:
        self.refresh()

    def _copy(self, write: Callable[[str, Config], str]) -> None:
        try:
            text = write(*self.call())
        except EmDaError as error:
            self.copied.error(str(error))
            return
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)
        self.copied.info("Copied.")

    def _copy_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.addStretch(1)
        for text, action in (("Copy as Python", self.copy_python), ("Copy as command", self.copy_command)):
            button = QToolButton()
            button.setText(text)
            button.setToolTip("Exactly what this page would do now, to run without the window")
            button.clicked.connect(lambda _=False, action=action: action())
            row.addWidget(button)
        return row


def wrapped(text: str) -> QLabel:
    """Return a wrapped line of plain text."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    return label


def collapsible(title: str, *widgets: QWidget) -> QCollapsible:
    """Return a section that opens on a click."""
    section = QCollapsible(title)
    for widget in widgets:
        section.addWidget(widget)
    layout = section.layout()
    if layout is not None:
        layout.setContentsMargins(0, 0, 0, 0)
    return section
