"""Scores over the sections, to click through."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen

from napari_em_da._napari.curve import COLOURS, MARGIN, Curve, span

DOTS = 80  # up to so many sections each gets a dot
RADIUS = 2.0


class SliceCurve(Curve):
    """A score of every section; a click on one says which, and a line shows the section in view."""

    unit = "section"
    picked = Signal(int)

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self._at: int | None = None
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip("Click a section to go there")

    def sizeHint(self) -> QSize:
        return QSize(200, 110)

    def show_values(self, name: str, values: Sequence[float]) -> None:
        """Show one score over the sections; those without a value are gaps."""
        self.clear()
        for z, value in enumerate(values):
            self.add(z, name, value)
        self.setVisible(any(math.isfinite(v) for v in values))

    def mark(self, section: int) -> None:
        """Show which section is in view."""
        self._at = section
        self.update()

    def section_at(self, x: float) -> int | None:
        """Return the section with a score that is nearest to a place on the widget."""
        points = [p for series in self.series.values() for p in series]
        if not points:
            return None
        left, right = span([p[0] for p in points])
        area = self._area()
        wanted = left + (x - area.left()) / max(1.0, area.width()) * (right - left)
        return min((p[0] for p in points), key=lambda z: abs(z - wanted))

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Tell which section was clicked."""
        section = None if event is None else self.section_at(event.position().x())
        if section is not None:
            self.mark(section)
            self.picked.emit(section)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the curve, a dot for each section, and the section in view."""
        super().paintEvent(event)
        points = [p for series in self.series.values() for p in series]
        if not points:
            return
        painter = QPainter(self)
        self._draw_points(painter, points)
        painter.end()

    def _draw_points(self, painter: QPainter, points: Sequence[tuple[float, float]]) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = self._area()
        (left, right), (low, high) = span([p[0] for p in points]), span([p[1] for p in points])

        def across(z: float) -> float:
            return area.left() + area.width() * (z - left) / (right - left)

        if self._at is not None and left <= self._at <= right:
            painter.setPen(QPen(self.palette().text().color(), 1, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(across(self._at), area.top()), QPointF(across(self._at), area.bottom()))
        if len(points) <= DOTS:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(COLOURS[0]))
            for z, value in points:
                y = area.bottom() - area.height() * (value - low) / (high - low)
                painter.drawEllipse(QPointF(across(z), y), RADIUS, RADIUS)

    def _draw_legend(self, painter: QPainter, line: int) -> None:
        """Name the score, with its value on the section in view."""
        text = self._title
        for name, points in self.series.items():
            here = dict(points).get(-1 if self._at is None else self._at)
            text = name if here is None else f"{name} on section {self._at}: {here:.3g}"
        painter.drawText(MARGIN, line, text)

    def _area(self) -> QRectF:
        line = self.fontMetrics().height()
        return QRectF(self.rect()).adjusted(MARGIN, MARGIN + line, -MARGIN, -MARGIN)
