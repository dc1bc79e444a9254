"""When to do what only the main thread may do and what takes a while, so that the window lives in between."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial

from qtpy.QtCore import QObject, QTimer

MOST_MS = 1000


class Turns(QTimer):
    """Slow acts one after the other, each in a turn of the event loop of its own.

    Napari needs about a tenth of a second to add one layer, whatever it holds: several at once would be felt. Between
    two acts lies a turn in which the first one's layer is shown (``looks.add``).

    Parameters
    ----------
    parent : QObject
        Acts that wait are dropped with it.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._acts: deque[Callable[[], object]] = deque()
        self._rests = False
        self.setInterval(1)
        self.timeout.connect(self._next)

    def do(self, *acts: Callable[[], object]) -> None:
        """Do these after what waits already: the first one at once if nothing does, each other one in its turn."""
        waiting = self.isActive()
        self.later(*acts)
        if not waiting:
            self._act()

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
        if self._rests and self._acts:
            self._rests = False
        else:
            self._act()

    def _act(self) -> None:
        if self._acts:
            act = self._acts.popleft()
            self._rests = True
            self.start()  # first: an act that fails leaves the others their turns
            act()
        if not self._acts:
            self.stop()
            self._rests = False


class Pace(QTimer):
    """The time until the next of many pictures: short, but the longer the longer the last one took to be drawn.

    Where no graphics card draws, each change draws the whole window, for up to a tenth of a second: a preview that
    follows a slider would leave the window no time, and the curves of a training would take it from the training.

    Parameters
    ----------
    parent : QObject
    least_ms : int
        From a change to the next picture.
    share : float
        Of the time that showing and drawing may take, as long as that means no more than MOST_MS to wait.
    """

    def __init__(self, parent: QObject, least_ms: int, share: float = 0.5) -> None:
        super().__init__(parent)
        self._least_ms, self._times, self._began = least_ms, 1 / share - 1, 0.0
        self.setSingleShot(True)
        self.setInterval(least_ms)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(1)  # 0 would come before the drawing
        self._later.timeout.connect(self._drawn)

    def showing(self) -> None:
        """Take the time from now until the window has drawn what the caller is about to change."""
        self._began = time.perf_counter()
        self._later.start()

    def _drawn(self) -> None:
        taken_ms = 1000 * (time.perf_counter() - self._began)
        self.setInterval(max(self._least_ms, min(MOST_MS, round(self._times * taken_ms))))
        if self.isActive():
            self.start()


def after_turns(count: int, act: Callable[[], object]) -> None:
    """Act after that many turns of the event loop, in each of which the window draws what has changed."""
    QTimer.singleShot(1, act if count == 1 else partial(after_turns, count - 1, act))  # 0 would come before the drawing


__all__ = ["Pace", "Turns", "after_turns"]
