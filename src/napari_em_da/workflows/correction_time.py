"""How long a round of corrections may take, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from napari_em_da.events import Event, Progress
from napari_em_da.jobs import Job, forward


class Clock:
    """Ends a training in time: before the step that would end after the deadline; None never ends it."""

    def __init__(self, deadline: float | None, now: Callable[[], float] = time.perf_counter) -> None:
        self.deadline = deadline
        self.now = now
        self.started = now()
        self.steps = 0

    def __call__(self, step: int) -> bool:
        """Return whether there is no time for another step; one step is always done."""
        self.steps += 1
        if self.deadline is None or self.steps == 1:
            return False
        passed = self.now() - self.started
        return self.now() + passed / (self.steps - 1) > self.deadline

    def shown(self, job: Job) -> Generator[Event, None, Any]:
        """Re-yield the events of a training, its progress in seconds where these are limited; return its result."""
        return (yield from forward(self._in_seconds(job)))

    def _in_seconds(self, job: Job) -> Job:
        total = None if self.deadline is None else max(1, round(self.deadline - self.started))
        for event in job:
            if total is not None and isinstance(event, Progress):
                event = Progress(min(total, int(self.now() - self.started)), total, "seconds", event.stage)
            yield event


class Parts:
    """Says how the seconds since ``started`` were spent.

    Attributes
    ----------
    seconds : dict of str to float
        Of each part that was noted, in their order.
    """

    def __init__(self, started: float | None = None, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.started = self._noted = now() if started is None else started
        self.seconds: dict[str, float] = {}

    def note(self, part: str) -> float:
        """Count the time since the last note as spent on ``part``, and return it."""
        before, self._noted = self._noted, self.now()
        spent = self._noted - before
        self.seconds[part] = round(self.seconds.get(part, 0.0) + spent, 3)
        return spent

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return self.now() - self.started
