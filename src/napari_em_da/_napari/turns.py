"""Slow acts one after the other, each in a turn of the event loop of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from qtpy.QtCore import QObject, QTimer


class Turns(QTimer):
    """Do what only the main thread may do and what takes a while, and let the window live in between.

    Napari needs about a tenth of a second to add one layer, whatever it holds: several at once would be felt.

    Parameters
    ----------
    parent : QObject
        Acts that wait are dropped with it.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._acts: deque[Callable[[], object]] = deque()
        self.setInterval(1)
        self.timeout.connect(self._next)

    def do(self, *acts: Callable[[], object]) -> None:
        """Do these after what waits already: the first one at once if nothing does, each other one in its turn."""
        waiting = self.isActive()
        self.later(*acts)
        if not waiting:
            self._next()

    def later(self, *acts: Callable[[], object]) -> None:
        """Do these after what waits already, each one in a turn to come."""
        self._acts.extend(acts)
        if not self.isActive():
            self.start()

    def drop(self) -> None:
        """Forget what waits."""
        self._acts.clear()
        self.stop()

    def _next(self) -> None:
        if self._acts:
            act = self._acts.popleft()
            self.start()  # first: an act that fails leaves the others their turns
            act()
        if not self._acts:
            self.stop()
