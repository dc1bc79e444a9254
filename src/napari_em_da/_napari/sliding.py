"""A line for a number, with a slider beside it."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QHBoxLayout, QLineEdit, QWidget
from superqt import QDoubleSlider

STEPS = 200


class SlidingLine(QWidget):
    """A line edit whose number a slider moves too; the line takes numbers beyond the slider's range.

    Parameters
    ----------
    low, high : float
        Ends of the slider.

    Attributes
    ----------
    textChanged : Signal(str)
        As of a line edit.
    """

    textChanged = Signal(str)

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.line = QLineEdit()
        self.line.setFixedWidth(64)
        self.slider = QDoubleSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(low, high)
        self.slider.setSingleStep((high - low) / STEPS)
        self.slider.setPageStep((high - low) / 10)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line)
        row.addWidget(self.slider, 1)
        self.setFocusProxy(self.line)
        self.slider.valueChanged.connect(self._moved)
        self.line.textChanged.connect(self._written)
        self.setText: Callable[[str], None] = self.line.setText
        self.text: Callable[[], str] = self.line.text

    def _moved(self, value: float) -> None:
        self.line.setText(f"{value:.3g}")

    def _written(self, text: str) -> None:
        try:
            value = float(text)
        except ValueError:  # empty, or not yet a number
            pass
        else:
            self.slider.blockSignals(True)
            self.slider.setValue(min(max(value, self.slider.minimum()), self.slider.maximum()))
            self.slider.blockSignals(False)
        self.textChanged.emit(text)
