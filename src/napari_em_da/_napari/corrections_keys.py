"""Keys of a page that work wherever the focus is in the viewer's window, while the page is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from qtpy.QtGui import QKeySequence, QShortcut  # type: ignore[attr-defined]
from qtpy.QtWidgets import QWidget

KEYS = {
    "N": "next place",
    "Shift+N": "previous place",
    "C": "paint the next class",
    "A": "take the prediction here",
    "L": "learn from my corrections",
}


class PageKeys:
    """Bind keys in the window; a text field that is typed in keeps them, and napari has them back afterwards.

    Parameters
    ----------
    page : QWidget
        The keys are bound in the window that it is in when they are taken.
    actions : {key: function}
    """

    def __init__(self, page: QWidget, actions: Mapping[str, Callable[[], Any]]) -> None:
        self._page = page
        self._actions = actions
        self._shortcuts: list[QShortcut] = []

    def enable(self, on: bool) -> None:
        """Take the keys, or leave them to the viewer."""
        self.release()
        for key, action in self._actions.items() if on else ():
            shortcut = QShortcut(QKeySequence(key), self._page.window())
            shortcut.activated.connect(action)
            shortcut.activatedAmbiguously.connect(action)  # two such pages are open
            self._shortcuts.append(shortcut)

    def release(self) -> None:
        """Leave them for good."""
        for shortcut in self._shortcuts:
            with suppress(RuntimeError):  # the window went first, and its shortcuts with it
                shortcut.setEnabled(False)
                shortcut.deleteLater()
        self._shortcuts = []
