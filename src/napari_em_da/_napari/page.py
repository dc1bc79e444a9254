"""What all docks share: a scrolling form above, the job below, and jobs that end with the dock."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_em_da._napari.job_panel import JobPanel
from napari_em_da._napari.worker import JobRunner

WIDTH = 380


class Dock(QWidget):
    """A dock widget; closing it or the viewer cancels its jobs."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self._runners: list[JobRunner] = []
        self.setMinimumWidth(WIDTH)

    def lay_out(self, upper: list[QWidget], lower: list[QWidget]) -> None:
        """Put the form into a scrolling area, and everything about the job below it."""
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 4, 4, 4)
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

    def cancel_with_me(self, *owners: JobPanel | JobRunner) -> None:
        """Stop these jobs when the dock goes away."""
        for owner in owners:
            runner = owner.runner if isinstance(owner, JobPanel) else owner
            self._runners.append(runner)
            self.destroyed.connect(runner.abandon)

    def event(self, event: QEvent | None) -> bool:
        """Napari takes a closed dock's widget out of the window without closing it."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.close_jobs()
        return bool(super().event(event))

    def close_jobs(self) -> None:
        """Cancel every job and drop what it still reports."""
        for runner in self._runners:
            runner.abandon()


def collapsible(title: str, *widgets: QWidget) -> QCollapsible:
    """Return a section that opens on a click."""
    section = QCollapsible(title)
    for widget in widgets:
        section.addWidget(widget)
    layout = section.layout()
    if layout is not None:
        layout.setContentsMargins(0, 0, 0, 0)
    return section
