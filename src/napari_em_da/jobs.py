"""Drive a job, a generator of events, to its result."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any, TypeVar

from napari_em_da.errors import JobFailed
from napari_em_da.events import Event, Finished, Metric, Notice, Progress

Job = Generator[Event, None, None]
T = TypeVar("T")
LOOK_S = 0.1  # between two looks whether a function has returned


def run(job: Job, *, progress: bool = False, on_event: Callable[[Event], None] | None = None) -> Any:
    """Run a job to its end and return the result of its ``Finished`` event.

    Parameters
    ----------
    job : generator of events
        What ``train``, ``adapt``, ``segment`` or ``evaluate`` return.
    progress : bool
        Write one status line to standard error.
    on_event : callable, optional
        Called with every event, in order.

    Raises
    ------
    JobFailed
        If the stream ends without ``Finished``.

    Notes
    -----
    An exception closes the job, which saves what it must. The first Ctrl-C waits for the next event, so that no step is
    torn apart; the second stops at once.
    """
    show = StatusLine() if progress else None
    with closing(job), interruptible() as interrupted:
        for event in job:
            if show is not None:
                show(event)
            if on_event is not None:
                on_event(event)
            if isinstance(event, Finished):
                return event.result
            if interrupted:
                raise KeyboardInterrupt
    raise JobFailed("The job ended without a result: it was cancelled, or it is not a job of this package.")


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collect Ctrl-C in a list instead of raising it, in the main thread; the second one raises."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    previous = signal.getsignal(signal.SIGINT)

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, previous)


def finish(work: Generator[Any, None, T]) -> T:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def unattended(function: Callable[[], T], progress: Progress) -> Generator[Event, None, T]:
    """Call a function that cannot be stopped in a thread of its own, and yield ``progress`` until it returns.

    Whoever stops the job does not wait for it: it goes on to its end, and what it returns is dropped.
    """
    pool = ThreadPoolExecutor(1, "em-da-unattended")
    call = pool.submit(function)
    pool.shutdown(wait=False)
    while not call.done():
        wait([call], LOOK_S)
        yield progress
    return call.result()


def forward(job: Job) -> Generator[Event, None, Any]:
    """Re-yield a job's events inside another job and return its result (``result = yield from forward(job)``)."""
    with closing(job):
        for event in job:
            if isinstance(event, Finished):
                return event.result
            yield event
    raise JobFailed("A stage of the job ended without a result.")


class StatusLine:
    """One line on a terminal: stage, bar, time left and the latest metrics; notices scroll above it."""

    def __init__(self) -> None:
        self._metrics = ""
        self._stage = ""
        self._since = 0.0
        self._first = 0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Metric):
            self._metrics = "  ".join(f"{k} {v:.4g}" for k, v in list(event.values.items())[:4])
        elif isinstance(event, Progress):
            self._write(self._bar(event))
            if event.done >= event.total:
                self._write_end()
        elif isinstance(event, Notice):
            self._write(f"{'warning: ' if event.level == 'warning' else ''}{event.text}\n")

    def _bar(self, event: Progress) -> str:
        now = time.monotonic()
        if event.stage != self._stage:
            self._stage, self._since, self._first = event.stage, now, event.done
        filled = round(20 * event.done / max(1, event.total))
        left = ""
        if self._first < event.done < event.total:
            seconds = (now - self._since) / (event.done - self._first) * (event.total - event.done)
            left = f"{int(seconds // 60)}:{int(seconds % 60):02d} left"
        counts = f"{event.done}/{event.total} {event.unit}"
        text = f"{event.stage:<11} [{'=' * filled}{' ' * (20 - filled)}] {counts} {left}  {self._metrics}"
        return text[:118].rstrip()

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()

    def _write_end(self) -> None:
        self._metrics = ""
        sys.stderr.write("\n")
        sys.stderr.flush()
