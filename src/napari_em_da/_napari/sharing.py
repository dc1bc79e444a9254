"""How a job shares the processor and Python's lock with the window."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NICE = 10  # of a job's threads: it computes with what the window leaves, and takes all of it
TURN_S = 0.0005
_TURNS = threading.Lock()
_running: list[float] = []  # what was set when each of the running jobs began


def give_way() -> None:
    """Let the viewer go first in the calling thread and those that it starts, where the system can do that for threads.

    Without it, a training on all cores makes the viewer's drawing wait its turn, where no graphics card draws.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICE, os.getpriority(os.PRIO_PROCESS, thread)))


@contextmanager
def short_turns() -> Iterator[None]:
    """Let no thread keep Python's lock for long from the main thread, as long as any job runs.

    Drawing a picture gives the lock away at each call of OpenGL, and waits a turn to get it back: 5 ms by default.
    """
    with _TURNS:
        _running.append(sys.getswitchinterval())
        sys.setswitchinterval(min(_running[0], TURN_S))
    try:
        yield
    finally:
        with _TURNS:
            before = _running[0]
            _running.pop()
            if not _running:
                sys.setswitchinterval(before)


def computing_threads() -> int | None:
    """Return how many threads torch computes with where this is called; None while it is not loaded, or only half."""
    count = getattr(sys.modules.get("torch"), "get_num_threads", None)  # another job may be importing it right now
    return None if count is None else int(count())


def compute_with(threads: int | None) -> None:
    """Compute with that many threads in the calling thread.

    torch keeps the number for each thread, and Qt's threads are used again: without this, sums of floats, and with
    them a trained network, depended on which thread happened to take the job.
    """
    if threads is not None and threads != computing_threads():
        sys.modules["torch"].set_num_threads(threads)


__all__ = ["compute_with", "computing_threads", "give_way", "short_turns"]
