"""One blocking call that consumes sections, turned into steps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

LOOK_S = 0.2


class _Stopped(Exception):
    """Whoever took the steps has closed them."""


def stepwise(write: Callable[[Iterator[Any]], None], sections: Iterable[Any]) -> Iterator[int]:
    """Run ``write`` on the sections in a thread, and yield how many it has taken, at least every 0.2 s.

    Closing the steps ends the call at its next section: there the iterator that it was given raises.
    """
    taken: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    stop = threading.Event()

    def watched() -> Iterator[Any]:
        for number, section in enumerate(sections, start=1):
            if stop.is_set():
                raise _Stopped
            yield section
            taken.put(number)

    done = 0
    with ThreadPoolExecutor(1, "writing") as pool:
        call = pool.submit(write, watched())
        call.add_done_callback(lambda _: taken.put(None))
        try:
            while True:
                try:
                    number = taken.get(timeout=LOOK_S)
                except queue.Empty:
                    number = done  # nothing new, but a place to stop
                if number is None:
                    break
                done = number
                yield done
        finally:
            stop.set()
    call.result()


__all__ = ["stepwise"]
