"""Run a job, a generator of events, in a thread, and hand its events to the main thread."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from napari.qt.threading import GeneratorWorker, create_worker

from napari_em_da._napari.sharing import compute_with, computing_threads, give_way, short_turns
from napari_em_da._napari.turns import after_turns
from napari_em_da._napari.warm import wait_until_warm
from napari_em_da.errors import JobFailed, ResourceError
from napari_em_da.events import Event, Finished, Notice, Preview, Progress
from napari_em_da.jobs import Job

FULL = (errno.ENOSPC, errno.EDQUOT)
WAIT_S = 0.05
DRAWING_S = 1.0  # at most, in case nobody draws


class JobWorker(GeneratorWorker):
    """A worker that always ends: napari's own goes silent on a RuntimeError, and torch raises little else.

    ``quit`` closes the generator at its next event, which lets the job save what it must. ``pause`` holds the job
    between two events: it does nothing at all until ``resume``, and can be stopped all the same. After a picture it
    waits until the window has drawn it: drawing beside a job that takes all processors is what users would feel.
    """

    def __init__(self, func: Callable[..., Generator[Event, None, None]], *args: Any, **kwargs: Any) -> None:
        super().__init__(func, *args, **kwargs)
        self._threads = computing_threads()
        self._may_go = threading.Event()
        self._may_go.set()
        self._drawn = threading.Event()

    def pause(self) -> None:
        """Hold the job at its next event."""
        self._may_go.clear()

    def resume(self) -> None:
        """Let a paused job go on."""
        self._may_go.set()

    def drawn(self) -> None:
        """Let the job go on after a picture."""
        self._drawn.set()

    @property
    def is_paused(self) -> bool:
        """Whether the job was asked to wait."""
        return not self._may_go.is_set()

    def quit(self) -> None:
        """Ask the job to stop, a paused one too."""
        super().quit()
        self._may_go.set()
        self._drawn.set()

    def run(self) -> None:
        """Run to the end, also where the window has gone meanwhile and nobody is left to tell."""
        try:
            super().run()
        except RuntimeError as error:  # raised in a thread of Qt's it would end the process with an abort
            if "deleted" not in str(error):
                raise

    def work(self) -> Any:
        """Emit every event, until the job finishes, fails or is asked to stop."""
        give_way()
        compute_with(self._threads)
        wait_until_warm(lambda: self.abort_requested)
        with short_turns():
            return self._work()

    def _work(self) -> Any:
        try:
            while True:
                self._may_go.wait()
                if self.abort_requested:
                    break
                event = advance(self._gen)
                if event is None or (self.abort_requested and not isinstance(event, Finished)):
                    break
                self._drawn.clear()
                self.yielded.emit(event)
                if isinstance(event, Finished):
                    return event.result
                if isinstance(event, Preview) and not self.abort_requested:
                    self._drawn.wait(DRAWING_S)
        finally:
            stop(self._gen)
        if self.abort_requested:
            self.aborted.emit()
        return None


def advance(job: Job) -> Event | None:
    """Return the next event or None at the end; an error of torch or of the machine is said in words."""
    try:
        return next(job, None)
    except RuntimeError as error:
        raise failed(error) from error
    except (MemoryError, OSError) as error:
        raise in_words(error) from error


def stop(job: Job) -> None:
    """Close a job; what it could not save is said in words."""
    try:
        job.close()
    except RuntimeError as error:
        raise failed(error) from error
    except (MemoryError, OSError) as error:
        raise in_words(error) from error


def in_words(error: MemoryError | OSError) -> ResourceError:
    """Turn an error of the machine into one with a remedy."""
    if isinstance(error, MemoryError):
        return ResourceError(
            f"There is not enough memory for this ({error or 'none is left'}). Close other programs, or crop the image "
            "to what you need. Nothing that was saved is lost."
        )
    if error.errno in FULL:
        return ResourceError(
            f"The disk is full ({error}). Free some space, or choose a folder on another disk, and start again. "
            "Nothing that was saved is lost."
        )
    return ResourceError(
        f"A file cannot be read or written: {error}. Check that it is there and that you may write to its folder."
    )


def failed(error: RuntimeError) -> JobFailed:
    """Turn an error of torch into one that says what it is."""
    return JobFailed(
        f"The job stopped on an unexpected error: {error}. What was saved before is kept; start or resume it again "
        "with other settings, and report the error if it stays."
    )


def passing(job: Job) -> Generator[Event, None, None]:
    """Re-yield a job: a worker insists on calling a generator function itself."""
    yield from job


class JobRunner:
    """Run one job at a time; a new one replaces the old one, whose late events are dropped.

    Napari's list of activities is left out: its moving picture draws the window ten times a second, which without a
    graphics card takes a third of two cores from the job. The page shows how the job goes.

    Parameters
    ----------
    on_event : callable
        Gets every event of the current job but the last.
    on_end : callable
        Gets ``(result, error)`` once per job that is not replaced: a result, an error, or neither if it was cancelled.
    """

    def __init__(self, on_event: Callable[[Event], None], on_end: Callable[[Any, Exception | None], None]) -> None:
        self._on_event = on_event
        self._on_end = on_end
        self._generation = 0
        self._worker: JobWorker | None = None
        self._next: Callable[[], None] | None = None
        self.silent = False
        self._outcome: tuple[Any, Exception | None] = (None, None)

    @property
    def running(self) -> bool:
        return self._worker is not None

    @property
    def paused(self) -> bool:
        """Whether a job is held between two events."""
        return self._worker is not None and self._worker.is_paused

    def pause(self) -> None:
        """Hold the running job at its next event; everything it has in memory stays there."""
        if self._worker is not None:
            self._worker.pause()

    def resume(self) -> None:
        """Let a paused job go on."""
        if self._worker is not None:
            self._worker.resume()

    def start(self, job: Job, *, silent: bool = False) -> None:
        """Start a job, or once the running one has stopped: two trainings never share the processor.

        ``silent``: its user did not start it, so that it neither counts as work nor lets napari ask before it closes.
        """
        self._generation += 1
        begin = partial(self._begin, job, silent, self._generation)
        if self._worker is None:
            begin()
        else:
            self._next = begin
            self._worker.quit()

    def cancel(self) -> None:
        """Ask the running job to stop at its next event."""
        self._next = None
        if self._worker is not None:
            self._worker.quit()

    def abandon(self) -> None:
        """Cancel, and never call back: the dock is going away."""
        self._generation += 1
        self.cancel()

    def _begin(self, job: Job, silent: bool, generation: int) -> None:
        self._outcome = (None, None)
        self.silent = silent
        if silent:
            worker = JobWorker(passing, job)
        else:  # napari asks before it closes over such a worker; on_end shows errors, so it need not raise them as well
            how: dict[str, Any] = {"_worker_class": JobWorker, "_ignore_errors": True, "_start_thread": False}
            worker = create_worker(passing, job, **how)
        worker.yielded.connect(partial(self._event, generation))
        worker.warned.connect(partial(self._warned, generation))
        worker.errored.connect(partial(self._error, generation))
        worker.finished.connect(partial(self._finished, generation))
        self._worker = worker
        worker.start()

    def _event(self, generation: int, event: Event) -> None:
        if generation != self._generation:
            return
        if isinstance(event, Finished):
            self._outcome = (event.result, None)
            return
        self._on_event(event)
        if isinstance(event, Preview) and self._worker is not None:
            after_turns(2, self._worker.drawn)  # a layer that the picture needed is shown in the first

    def _warned(self, generation: int, warning: tuple[Any, ...]) -> None:
        self._event(generation, Notice(str(warning[0]), "warning"))

    def _error(self, generation: int, error: Exception) -> None:
        if generation == self._generation:
            self._outcome = (None, error)

    def _finished(self, generation: int) -> None:
        self._worker = None
        outcome, begin, self._next = self._outcome, self._next, None
        if begin is not None:
            begin()
        elif generation == self._generation:
            self._on_end(*outcome)


def once_idle(runner: JobRunner, job: Job) -> Job:
    """Cancel what a runner does and return a job that begins when it has stopped, and has the processor to itself."""
    runner.cancel()

    def waiting() -> Job:
        while runner.running:
            yield Progress(0, 1, "jobs", "waiting for another job to stop")
            time.sleep(WAIT_S)
        yield from job

    return waiting()
