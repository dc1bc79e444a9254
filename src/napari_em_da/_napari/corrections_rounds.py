"""The rounds of corrections so far, and the way back to any of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QListWidget, QPushButton, QVBoxLayout, QWidget

from napari_em_da._napari.message import Message

ROW_PX = 20


class RoundList(QWidget):
    """Lists runs in the order in which they were learned; the first one is where it began."""

    back = Signal(object)  # Path

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[Path, str]] = []
        self.list = QListWidget()
        self.list.setWordWrap(True)
        self.list.setFixedHeight(5 * ROW_PX)
        self.button = QPushButton("Back to this round")
        self.button.setToolTip("Segment and go on learning with this round; the later ones stay on the disk")
        self.button.clicked.connect(lambda _: self._go())
        self.list.currentRowChanged.connect(lambda _: self._name())
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.list)
        column.addWidget(self.button)
        self.hide()

    def add(self, run: Path, text: str, start: Path | None = None) -> None:
        """Add a round that began from the run ``start``."""
        if not self.rows and start is not None:
            self.rows.append((start, f"Start: {start.name}"))
        self.rows.append((run, text))
        self._fill()

    def memo(self) -> list[list[str]]:
        """Return runs and texts."""
        return [[str(run), text] for run, text in self.rows]

    def restore(self, rows: list[list[str]]) -> None:
        """Show rounds again, those whose folders are still there."""
        self.rows = [(Path(run), str(text)) for run, text in rows if Path(run).is_dir()]
        self._fill()

    def _fill(self) -> None:
        self.list.clear()
        for run, text in self.rows:
            self.list.addItem(text)
            item: Any = self.list.item(self.list.count() - 1)
            item.setToolTip(str(run))
        self.list.setCurrentRow(len(self.rows) - 1)
        self.list.scrollToBottom()
        self.setVisible(bool(self.rows))

    def _name(self) -> None:
        row = self.list.currentRow()
        self.button.setText("Back to the start" if row == 0 else f"Back to round {row}" if row > 0 else "Back")

    def _go(self) -> None:
        row = self.list.currentRow()
        if 0 <= row < len(self.rows):
            self.back.emit(self.rows[row][0])


def tell(result: Any, message: Message) -> None:
    """Say what a round changed; a ``CorrectResult``."""
    right, source = result.accuracy, result.source_iou  # not the IoU on the paint: background alone has none
    parts = [
        f"Round {result.round}: {100 * result.changed['all']:.1f} % of the view changed.",
        f"Right on your paint: {100 * right[0]:.0f} → {100 * right[1]:.0f} %.",
    ]
    if None not in source:
        parts.append(f"IoU on the labelled source {source[0]:.2f} → {source[1]:.2f}.")
    if result.kept == 0:
        message.warn(
            " ".join((*parts, "Nothing was learned, for the source would be forgotten: raise replay or forget."))
        )
    elif result.kept < 1:
        parts.append(f"{result.kept:.0%} of the way is kept, so that the source is not forgotten.")
        message.info(" ".join(parts))
    elif result.source_iou[0] is None:
        parts.append("No labelled source is at hand: what is forgotten cannot be seen.")
        message.warn(" ".join(parts))
    else:
        message.info(" ".join(parts))
