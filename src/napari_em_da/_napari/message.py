"""A line of text that says what happens or what is wrong, hidden while there is nothing to say."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSizePolicy

RED = "#ff5c5c"
ORANGE = "#e08e0b"


class Message(QLabel):
    """Wrapped text; warnings are orange, errors red."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.MinimumExpanding)
        self.is_error = False
        self.clear()

    def clear(self) -> None:
        self.is_error = False
        self.setText("")
        self.hide()

    def info(self, text: str) -> None:
        self._show(text, "")

    def warn(self, text: str) -> None:
        self._show(text, f"color: {ORANGE};")

    def error(self, text: str) -> None:
        self._show(text, f"color: {RED};")
        self.is_error = True

    def _show(self, text: str, style: str) -> None:
        self.is_error = False
        self.setStyleSheet(style)
        self.setText(text)
        self.setVisible(bool(text))
