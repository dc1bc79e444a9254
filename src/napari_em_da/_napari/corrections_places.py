"""A list of places that are worth a look: walk through it by key or by click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Layer, Vectors
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_em_da._napari.looks import add, centre
from napari_em_da._napari.message import Message
from napari_em_da._napari.turns import Turns
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import EmDaError
from napari_em_da.jobs import Job

Window = tuple[int, int, int, int, int]  # section, y, x, height, width
NAME = "suggestion"
SHARE = 0.6  # of the canvas that a window fills
DONE, SECTION, REASON, SCORE = range(4)


class PlaceList(QWidget):
    """Suggested windows in the order of their worth; going to one shows it, and remembers that it was seen.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    seen : list of (section, y, x, height, width)
        Visited windows, of this list and of those before.
    current : such a window, or None
    """

    went = Signal()
    edited = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.places: list[Any] = []
        self.seen: list[Window] = []
        self.current: Window | None = None
        self.image: Layer | None = None
        self.frame: Vectors | None = None
        self.turns = Turns(self)
        self.find_button = QPushButton("Find places to look at")
        self.find_button.setToolTip("Where the network is unsure, or objects are unlikely: worth a correction")
        self.table = QTableWidget(0, 4)
        self.table.setHorizontalHeaderLabels(["", "Section", "Why", "Score"])
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setShowGrid(False)
        self.table.setFixedHeight(150)
        upright, header = self.table.verticalHeader(), self.table.horizontalHeader()
        if upright is not None and header is not None:
            upright.hide()
            upright.setDefaultSectionSize(22)
            for column in (DONE, SECTION, SCORE):
                header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(REASON, QHeaderView.ResizeMode.Stretch)
            header.setMinimumSectionSize(20)
        self.table.cellClicked.connect(lambda row, _column: self.go(row))
        self.message = Message()
        self.runner = JobRunner(lambda _event: None, self._found)
        self.previous_button, self.next_button = QPushButton("Previous"), QPushButton("Next")
        self.done_button = QPushButton("Done")
        self.previous_button.setToolTip("The place before (Shift+N)")
        self.next_button.setToolTip("The next place (N)")
        self.done_button.setToolTip("Tick this place off and go to the next one that is not")
        self.previous_button.clicked.connect(lambda _: self.step(-1))
        self.next_button.clicked.connect(lambda _: self.step(1))
        self.done_button.clicked.connect(lambda _: self.finish())
        self.moving = QWidget()
        row = QHBoxLayout(self.moving)
        row.setContentsMargins(0, 0, 0, 0)
        for button in (self.previous_button, self.next_button, self.done_button):
            row.addWidget(button)
        column_ = QVBoxLayout(self)
        column_.setContentsMargins(0, 0, 0, 0)
        for widget in (self.find_button, self.message, self.table, self.moving):
            column_.addWidget(widget)
        self._show()

    def look(self, job: Job, image: Layer) -> None:
        """Look for the places of an image in the background; the job returns suggestions."""
        self.image = image
        self.message.info("Looking …")
        self.find_button.setEnabled(False)
        self.runner.start(job, silent=True)

    def show_places(self, places: Sequence[Any], image: Layer) -> None:
        """List suggestions for an image."""
        self.places, self.image, self.current = list(places), image, None
        self.table.setRowCount(len(self.places))
        for row, place in enumerate(self.places):
            for column, text in ((DONE, ""), (SECTION, place.section), (REASON, place.reason), (SCORE, place.score)):
                item = QTableWidgetItem(f"{text:.2f}" if column == SCORE else str(text))
                if column != REASON:
                    item.setTextAlignment(int(Qt.AlignmentFlag.AlignCenter))
                item.setToolTip(place.reason)
                self.table.setItem(row, column, item)
        if self.places:
            self.message.info(f"{len(self.places)} places, the most worthwhile first.")
        else:
            self.message.info("Nothing else is suspicious here.")
        self._show()

    def step(self, by: int) -> None:
        """Go to the next place, or to the one before."""
        if self.places:
            row = self.table.currentRow() if self.current is not None else (-1 if by > 0 else len(self.places))
            self.go(min(max(row + by, 0), len(self.places) - 1))

    def finish(self) -> None:
        """Tick the current place off, and go to the next one that is not."""
        row = self.table.currentRow()
        if self.current is None or row < 0:
            self.step(1)
            return
        self._tick(row)
        order = [*range(row + 1, len(self.places)), *range(row)]
        left = [other for other in order if not self._ticked(other)]
        if left:
            self.go(left[0])
        else:
            self.message.info("All places are done. Learn from your corrections, then find the next ones.")

    def go(self, row: int) -> None:
        """Show a place: its section, its window in the middle, framed."""
        place, image = self.places[row], self.image
        if image is None or image not in self.viewer.layers:
            self.message.warn("The image of this list was removed; find places again.")
            return
        self.table.selectRow(row)
        self.current = place.box
        if place.box not in self.seen:
            self.seen.append(place.box)
            self.edited.emit()
        z, y, x, height, width = place.box
        middle = (z, y + (height - 1) / 2, x + (width - 1) / 2)[-image.ndim :]
        camera = centre(self.viewer, image, middle)
        canvas = getattr(getattr(self.viewer, "canvas", None), "size", None)
        if canvas is not None and self.viewer.dims.ndisplay == 2:
            size = np.abs(np.asarray(image.scale[-2:])) * (height, width)
            camera.zoom = SHARE * float(np.min(np.asarray(canvas) / size))
        self.turns.drop()
        self.turns.later(lambda: self._draw(image))  # the section first: a new layer takes as long again
        self.went.emit()

    def forget_frame(self) -> None:
        """Take the frame out of the viewer."""
        self.turns.drop()
        if self.frame is not None and self.frame in self.viewer.layers:
            self.viewer.layers.remove(self.frame)
        self.frame = None

    def memo(self) -> list[list[int]]:
        """Return the windows that were seen."""
        return [list(box) for box in self.seen]

    def restore(self, boxes: list[list[int]]) -> None:
        """Remember windows that were seen."""
        self.seen = [(int(z), int(y), int(x), int(h), int(w)) for z, y, x, h, w in boxes]

    def _found(self, places: Any, error: Exception | None) -> None:
        self.find_button.setEnabled(True)
        self.message.clear()
        if error is not None:
            self.message.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
        elif places is not None and self.image is not None:
            self.show_places(places, self.image)

    def _draw(self, image: Layer) -> None:
        if self.current is None or image not in self.viewer.layers:
            return
        z, y, x, height, width = self.current
        low, high = (y - 0.5, x - 0.5), (y + height - 0.5, x + width - 0.5)
        plane = [(low[0], low[1]), (low[0], high[1]), (high[0], high[1]), (high[0], low[1])]
        corners = np.array([(z, *point)[-image.ndim :] for point in plane], float)
        sides = np.stack([corners, np.roll(corners, -1, 0) - corners], 1)  # vectors: shapes take half a second at first
        if self.frame is None or self.frame not in self.viewer.layers or self.frame.ndim != image.ndim:
            self.forget_frame()
            place = {name: getattr(image, name) for name in ("scale", "translate", "units", "axis_labels")}
            look = {"vector_style": "line", "edge_color": "yellow", "edge_width": max(1.0, width / 128)}
            about = {"name": NAME, "metadata": {"preview": True}}
            self.frame = add(self.viewer, sides, {**place, **look, **about}, "vectors")
            self.frame.editable = False
        else:
            self.frame.data = sides

    def _tick(self, row: int) -> None:
        item = self.table.item(row, DONE)
        if item is not None:
            item.setText("✓")

    def _ticked(self, row: int) -> bool:
        item = self.table.item(row, DONE)
        return item is not None and bool(item.text())

    def _show(self) -> None:
        for widget in (self.table, self.moving):
            widget.setVisible(bool(self.places))
