"""What the checks have found, each with a button where something can be done about it."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.message import Message


class Findings(QWidget):
    """A list of findings; ``fix`` says which one is to be mended."""

    fix = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[layers.Finding] = []
        self.buttons: dict[str, QPushButton] = {}
        self.state = Message()
        self._rows: list[QWidget] = []
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.state)

    def show_found(self, found: Sequence[layers.Finding]) -> None:
        """List findings."""
        self.found = list(found)
        self.buttons = {}
        for row in self._rows:
            self._column.removeWidget(row)
            row.setParent(None)
            row.deleteLater()
        self._rows = [self._row(finding) for finding in found]
        for row in self._rows:
            self._column.addWidget(row)

    def texts(self) -> list[str]:
        """Return what is said."""
        return [finding.text for finding in self.found]

    def _row(self, finding: layers.Finding) -> QWidget:
        row, text = QWidget(), Message()
        line = QVBoxLayout(row)
        line.setContentsMargins(0, 2, 0, 2)
        line.setSpacing(2)
        line.addWidget(text)
        {"info": text.info, "warning": text.warn, "error": text.error}[finding.level](finding.text)
        if finding.fix_name is not None:
            button = QPushButton(layers.FIXES[finding.fix_name])
            button.clicked.connect(lambda _=False: self.fix.emit(finding))
            line.addWidget(button, 0, Qt.AlignmentFlag.AlignRight)
            self.buttons[finding.fix_name] = button
        return row
