"""The row of steps above the pages, and the way on below them."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QHBoxLayout, QPushButton, QSizePolicy, QWidget

from napari_em_da._napari.page import wrapped

COLUMNS = 4
DONE, RUNNING = "✓", "●"
ROUND = 4
SHAPE = f"QPushButton {{ padding: 5px 2px; border-radius: {ROUND}px; }}"
CHECKED = "QPushButton:checked { font-weight: bold; }"


class Stepper(QWidget):
    """A button for each page, with its number, or a mark where the page is done or works.

    Parameters
    ----------
    names, titles : sequence of str
        In the order of the pages.
    """

    chosen = Signal(str)

    def __init__(self, names: Sequence[str], titles: Sequence[str]) -> None:
        super().__init__()
        self._titles = dict(zip(names, titles, strict=True))
        self.buttons: dict[str, QPushButton] = {}
        self._group = QButtonGroup(self)
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 4, 4, 0)
        grid.setSpacing(3)
        for place, name in enumerate(names):
            button = QPushButton()
            button.setCheckable(True)
            button.setStyleSheet(SHAPE + CHECKED)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.clicked.connect(lambda _=False, name=name: self.chosen.emit(name))
            self.buttons[name] = button
            self._group.addButton(button)
            grid.addWidget(button, *divmod(place, COLUMNS))
            grid.setColumnStretch(place % COLUMNS, 1)
            self.mark(name)

    def mark(self, name: str, *, done: bool = False, running: bool = False) -> None:
        """Show whether a page is done, or works."""
        number = list(self._titles).index(name) + 1
        sign = RUNNING if running else DONE if done else str(number)
        title = self._titles[name]
        state = " (working)" if running else " (done)" if done else ""
        button = self.buttons[name]
        button.setText(f"{sign}  {title}")
        button.setToolTip(f"Step {number}: {title}{state}")


class Onward(QWidget):
    """What to do next, and a button that goes there."""

    pressed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.text = wrapped("")
        self.button = QPushButton()
        self.button.clicked.connect(lambda _=False: self.pressed.emit())
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 2, 8, 6)
        row.addWidget(self.text, 1)
        row.addWidget(self.button)

    def show_next(self, text: str, title: str | None) -> None:
        """Show what to do next; without a title there is no page after this one."""
        self.text.setText(text)
        self.button.setVisible(title is not None)
        if title is not None:
            self.button.setText(f"Next: {title}")
