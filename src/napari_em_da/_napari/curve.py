"""A light line plot that grows while a job runs."""

from __future__ import annotations

import math

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

COLOURS = ("#3d97dd", "#d98a00", "#3fa35b", "#d9534f", "#a86cd0", "#8c8c00")  # to be seen in dark and light themes
MARGIN = 6
DASH = 10  # of the legend, in pixels


class Curve(QWidget):
    """Named series over steps, hidden while there are none; the newest values stand in the legend.

    Parameters
    ----------
    title : str
    log : bool
        A logarithmic scale, for ratios.
    lines : numbers
        Values to mark by a dashed line, always in the picture.
    """

    unit = "step"

    def __init__(self, title: str, *, log: bool = False, lines: tuple[float, ...] = ()) -> None:
        super().__init__()
        self._title = title
        self._log = log
        self._lines = lines
        self.series: dict[str, list[tuple[int, float]]] = {}
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.setMinimumHeight(64)
        self.setMaximumHeight(110)
        self.hide()

    def sizeHint(self) -> QSize:
        return QSize(200, 76)

    def add(self, step: int, name: str, value: float) -> None:
        """Append one point; a step that was there before (a resumed run) replaces what came after it."""
        if not math.isfinite(value) or (self._log and value <= 0):
            return
        points = self.series.setdefault(name, [])
        while points and points[-1][0] >= step:
            points.pop()
        points.append((step, value))
        self.show()
        self.update()

    def clear(self) -> None:
        self.series.clear()
        self.hide()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw title, range, curves and legend."""
        painter = QPainter(self)
        self._draw(painter)
        painter.end()  # not when Python gets round to it: Qt draws the next widget on the same surface

    def _draw(self, painter: QPainter) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().text().color()
        line = painter.fontMetrics().height()
        area = QRectF(self.rect()).adjusted(MARGIN, MARGIN + line, -MARGIN, -MARGIN)
        painter.setPen(QPen(QColor(128, 128, 128), 1))
        painter.drawRect(area)
        painter.setPen(text)
        self._draw_legend(painter, line)
        points = [p for series in self.series.values() for p in series]
        if not points:
            painter.drawText(area, int(Qt.AlignmentFlag.AlignCenter), "nothing yet")
            return
        seen = [*(p[1] for p in points), *self._lines]
        (left, right), (low, high) = span([p[0] for p in points]), span([self._place(value) for value in seen])
        painter.setPen(QPen(QColor(128, 128, 128), 1, Qt.PenStyle.DashLine))
        for value in self._lines:
            y = area.bottom() - area.height() * (self._place(value) - low) / (high - low)
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        for number, series in enumerate(self.series.values()):
            painter.setPen(QPen(QColor(COLOURS[number % len(COLOURS)]), 1.5))
            step = max(1, len(series) // max(1, int(area.width())))
            shown = series[::step] if series[-1] == series[::step][-1] else [*series[::step], series[-1]]
            line_of = [
                QPointF(
                    area.left() + area.width() * (x - left) / (right - left),
                    area.bottom() - area.height() * (self._place(y) - low) / (high - low),
                )
                for x, y in shown
            ]
            painter.drawPolyline(QPolygonF(line_of))
        painter.setPen(text)
        inner = area.adjusted(3, 1, -3, -1)
        painter.drawText(inner, int(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft), f"{max(seen):.3g}")
        painter.drawText(inner, int(Qt.AlignmentFlag.AlignBottom | Qt.AlignmentFlag.AlignLeft), f"{min(seen):.3g}")
        painter.drawText(
            inner, int(Qt.AlignmentFlag.AlignBottom | Qt.AlignmentFlag.AlignRight), f"{self.unit} {right:g}"
        )

    def _place(self, value: float) -> float:
        return math.log(value) if self._log else value

    def _draw_legend(self, painter: QPainter, line: int) -> None:
        metrics = painter.fontMetrics()
        painter.drawText(MARGIN, line, self._title)
        x = MARGIN + metrics.horizontalAdvance(self._title + "   ")
        for number, (name, series) in enumerate(self.series.items()):
            label = f"{name} {series[-1][1]:.3g}"
            width = DASH + 3 + metrics.horizontalAdvance(label + "  ")
            if x + width - metrics.horizontalAdvance("  ") > self.width():
                painter.drawText(x, line, "…")
                break
            painter.setPen(QPen(QColor(COLOURS[number % len(COLOURS)]), 2.5))
            painter.drawLine(x, line - metrics.xHeight() // 2, x + DASH, line - metrics.xHeight() // 2)
            painter.setPen(self.palette().text().color())
            painter.drawText(x + DASH + 3, line, label)
            x += width


def span(values: list[float] | list[int]) -> tuple[float, float]:
    """Return the range of values, never empty."""
    low, high = float(min(values)), float(max(values))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
