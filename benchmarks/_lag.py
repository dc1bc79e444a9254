"""How long the event loop of a Qt application keeps a user waiting, and what it was doing meanwhile."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEventLoop, QObject, Qt, QTimer

TICK_MS = 5
LATE_MS = 40  # the watchdog looks once the timer is that late
SHOWN_MS = 50  # blocks from this length on are blamed
HAND_MS = 100
AFTER_MS = 300  # what happens so soon after a movement is counted as its consequence
ROUND = 40  # of HAND_MS


class Meter(QObject):
    """A precise timer of 5 ms in the main thread: lag is how much later than due it fires.

    A block of 100 ms makes one late tick; an event every 5 ms would have waited 100, 95, … 5 ms. All of these are
    counted, so that percentiles are those of a click at a random moment, and long blocks do not hide behind many ticks.
    ``ticks_p99_ms`` is what counting each late tick once would give.
    Beside it stands what the main thread itself computed between two ticks, which a busy machine does not make longer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lags: dict[tuple[str, bool], array[float]] = {}
        self.busy: dict[tuple[str, bool], array[float]] = {}
        self.ticks: dict[tuple[str, bool], array[float]] = {}
        self.name, self.due, self.moved_until, self.spent = "", 0.0, 0.0, 0.0
        self.blocks: list[tuple[float, str, float, float]] = []  # when due, in which phase, ms late, ms computed
        self.timer = QTimer(self)
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.setSingleShot(True)
        self.timer.timeout.connect(self._tick)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure what happens inside under a name."""
        self.name = name
        self._begin()
        try:
            yield
            self._tick()  # what the loop has not come to
        finally:
            self.timer.stop()
            self.name, self.due = "", 0.0

    def _begin(self) -> None:
        self.spent, self.due = time.thread_time(), time.perf_counter() + TICK_MS / 1000
        self.timer.start(TICK_MS)

    def _tick(self) -> None:
        lag, busy = 1000 * (time.perf_counter() - self.due), 1000 * (time.thread_time() - self.spent)
        place = (self.name, self.due < self.moved_until)
        if lag > SHOWN_MS:
            self.blocks.append((self.due, self.name, lag, busy))
        self.ticks.setdefault(place, array("d")).append(max(0.0, lag))
        for found, value in ((self.lags, max(0.0, lag)), (self.busy, busy)):
            values = found.setdefault(place, array("d"))
            values.append(value)
            while value > TICK_MS:
                value -= TICK_MS
                values.append(value)
        self._begin()

    def of(self, *names: str, moved: bool | None = None) -> dict[str, float]:
        """Return the percentiles of phases, of the time after a movement of the user's, or of the other."""
        found: dict[str, float] = {}
        for what, table in (("", self.lags), ("busy_", self.busy)):
            parts = [values for (name, m), values in table.items() if name in names and moved in (None, m)]
            values = np.concatenate([np.frombuffer(part) for part in parts] or [np.zeros(1)])
            p50, p99, most = (round(float(value), 1) for value in np.percentile(values, [50, 99, 100]))
            found |= {f"{what}p50_ms": p50, f"{what}p99_ms": p99, f"{what}max_ms": most}
            if not what:
                ticks = [values for (name, m), values in self.ticks.items() if name in names and moved in (None, m)]
                of_ticks = np.concatenate([np.frombuffer(part) for part in ticks] or [np.zeros(1)])
                found["ticks_p99_ms"] = round(float(np.percentile(of_ticks, 99)), 1)
                found["over_50_s"] = round(float((values > SHOWN_MS).sum()) * TICK_MS / 1000, 2)
                found["seconds"] = round(len(values) * TICK_MS / 1000, 1)
        return found


class Watchdog(threading.Thread):
    """Looks at the main thread's stack while its timer is overdue; ``blame`` tells what was found most often.

    While another thread holds the interpreter (the GIL), this one cannot look either: how late it woke up tells that.
    """

    def __init__(self, meter: Meter) -> None:
        super().__init__(daemon=True)
        self.meter = meter
        self.main = threading.main_thread().ident
        self.seen: dict[float, list[tuple[float, str, str]]] = {}  # block: (woken up late by, main, others)

    def run(self) -> None:
        while True:
            before = time.perf_counter()
            time.sleep(0.005)
            now, due = time.perf_counter(), self.meter.due
            if due and now - due > LATE_MS / 1000:
                frames = sys._current_frames()
                main = stack(frames.get(self.main or 0), 40)
                others = [stack(f, 3) for ident, f in frames.items() if ident not in (self.main, self.ident)]
                busy = " || ".join(o for o in others if "threading.py" not in o.split(" < ")[0] and "wait" not in o)
                self.seen.setdefault(due, []).append((1000 * (now - before) - 5, main, busy))

    def blame(self, most: int = 12) -> str:
        """Return what the main thread did in long blocks, most often first."""
        found: Counter[str] = Counter()
        lengths: dict[str, list[tuple[float, float]]] = {}
        for due, name, lag, busy in list(self.meter.blocks):
            looks = self.seen.get(due, [])
            late = max((woken for woken, _, _ in looks), default=0.0)
            main = Counter(main for _, main, _ in looks).most_common(1)
            other = Counter(busy for _, _, busy in looks).most_common(1)
            text = f"{name}: {main[0][0] if main else 'nothing seen'}"
            if late > LATE_MS / 2:
                text += f"\n    interpreter held for {late:.0f} ms; others: {other[0][0] if other else '?'}"
                text = text.replace(f"for {late:.0f} ms", "long")
            found[text] += 1
            lengths.setdefault(text, []).append((lag, busy))
        order = sorted(found, key=lambda text: -sum(lag for lag, _ in lengths[text]))[:most]
        return "\n".join(
            f"{found[t]} x, {max(lengths[t])[0]:.0f} ms at most, {max(b for _, b in lengths[t]):.0f} computed: {t}"
            for t in order
        )


def stack(frame: Any, depth: int) -> str:
    """Return the innermost calls of a frame."""
    calls = traceback.extract_stack(frame)[::-1]
    ours = next((n for n, call in enumerate(calls) if "napari_em_da" in call.filename), None)
    kept = calls[:depth] if ours is None or ours < depth else [*calls[:depth], *calls[ours : ours + 3]]
    return " < ".join(f"{Path(c.filename).parent.name}/{Path(c.filename).name}:{c.lineno} {c.name}" for c in kept)


class Hand:
    """A user at the viewer: a few sections through the stack, a pause, a drag, a pause, a zoom; every 4 s again."""

    def __init__(self, viewer: Any, meter: Meter, depth: int, side: float) -> None:
        self.viewer, self.meter, self.depth, self.side = viewer, meter, depth, side
        self.step, self.upwards = 0, 1
        self.timer = QTimer()
        self.timer.timeout.connect(self._move)

    def _move(self) -> None:
        at = self.step % ROUND
        self.step += 1
        camera = getattr(self.viewer, "scene", self.viewer).camera
        if at < 5:
            z = self.viewer.dims.current_step[0]
            self.upwards = 1 if z <= 1 else -1 if z >= self.depth - 2 else self.upwards
            act: Callable[[], None] = lambda: self.viewer.dims.set_current_step(0, z + self.upwards)  # noqa: E731
        elif 15 <= at < 21:
            z_, y, x = camera.center
            shift = self.side / 60 * (1 if self.step // ROUND % 2 else -1)
            act = lambda: setattr(camera, "center", (z_, y + shift, x + shift))  # noqa: E731
        elif at in (30, 31):
            act = lambda: setattr(camera, "zoom", camera.zoom * (1.2 if at == 30 else 1 / 1.2))  # noqa: E731
        else:
            return
        self.meter.moved_until = time.perf_counter() + AFTER_MS / 1000
        act()

    def start(self) -> None:
        self.timer.start(HAND_MS)

    def stop(self) -> None:
        self.timer.stop()


def live(seconds: float) -> None:
    """Let the event loop run."""
    loop = QEventLoop()
    QTimer.singleShot(int(1000 * seconds), loop.quit)
    loop.exec()


def wait(until: Callable[[], object], seconds: float, what: str) -> float:
    """Let the event loop run until something is true, and return how long that took; TimeoutError if it never is."""
    start = time.perf_counter()
    loop, poll = QEventLoop(), QTimer()

    def look() -> None:
        if until() or time.perf_counter() - start > seconds:
            loop.quit()

    poll.timeout.connect(look)
    poll.start(10)
    if not until():
        loop.exec()
    poll.stop()
    if not until():
        raise TimeoutError(f"{what}: nothing after {seconds:.0f} s")
    return time.perf_counter() - start
