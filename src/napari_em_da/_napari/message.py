"""A line of text that says what happens or what is wrong, hidden while there is nothing to say."""

from __future__ import annotations

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QLabel, QSizePolicy

RED = "#ff5c5c", "#b3261e"  # on a dark and on a light window
ORANGE = "#e08e0b", "#8a5200"
MIDDLE = 128


class Message(QLabel):
    """Wrapped text; warnings are orange, errors red, as dark or light as the theme of the window needs."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.MinimumExpanding)
        self.is_error = False
        self._colours: tuple[str, str] | None = None
        self.clear()

    def clear(self) -> None:
        self.is_error = False
        self.setText("")
        self.hide()

    def info(self, text: str) -> None:
        self._show(text, None)

    def warn(self, text: str) -> None:
        self._show(text, ORANGE)

    def error(self, text: str) -> None:
        self._show(text, RED)
        self.is_error = True

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow a change of the theme."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.PaletteChange:
            self._dress()

    def _show(self, text: str, colours: tuple[str, str] | None) -> None:
        self.is_error = False
        self._colours = colours
        self._dress()
        self.setText(text)
        self.setVisible(bool(text))

    def _dress(self) -> None:
        light = self.palette().window().color().lightness() > MIDDLE
        style = "" if self._colours is None else f"color: {self._colours[light]};"
        if style != self.styleSheet():
            self.setStyleSheet(style)
