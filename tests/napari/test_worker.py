"""Jobs in a thread: every end is reported, stale events are dropped, closing really closes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("napari")
from napari.utils import progress
from qtpy.QtCore import QCoreApplication, QEvent, QTimer

from napari_em_da._napari import warm
from napari_em_da._napari import worker as worker_module
from napari_em_da._napari.worker import JobRunner, JobWorker, passing
from napari_em_da.errors import DataError, JobFailed
from napari_em_da.events import Event, Finished, Preview, Progress


class Heard:
    """A runner and what it told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ends: list[tuple[Any, Exception | None]] = []
        self.threads: set[int] = set()
        self.runner = JobRunner(self._event, lambda *end: self.ends.append(end))

    def _event(self, event: Event) -> None:
        self.threads.add(threading.get_ident())
        self.events.append(event)


@pytest.fixture
def heard(qtbot: Any) -> Iterator[Heard]:
    heard = Heard()
    yield heard
    heard.runner.abandon()
    qtbot.waitUntil(lambda: not heard.runner.running)


def counting(total: int) -> Iterator[Event]:
    for done in range(total):
        yield Progress(done, total, "things")
    yield Finished(total)


def endless(closed: threading.Event, begun: threading.Event | None = None) -> Iterator[Event]:
    try:
        while True:
            yield Progress(0, 1, "rounds")
            if begun is not None:
                begun.set()
            closed.wait(0.005)
    finally:
        closed.set()


def test_a_job_waits_until_its_picture_is_drawn(qtbot: Any) -> None:
    """What the window does with a picture, and the drawing that follows in a turn of its own, has no job beside it."""
    done: list[str] = []

    def job() -> Iterator[Event]:
        yield Preview("view", "labels", None)
        done.append("the job goes on")
        yield Finished(None)

    def show(event: Event) -> None:
        if isinstance(event, Preview):
            QTimer.singleShot(1, lambda: (time.sleep(0.05), done.append("drawn")))
            time.sleep(0.05)
            done.append("shown")

    ends: list[Any] = []
    runner = JobRunner(show, lambda *end: ends.append(end))
    runner.start(job(), silent=True)
    qtbot.waitUntil(lambda: bool(ends))
    assert done == ["shown", "drawn", "the job goes on"]


def test_a_picture_that_nobody_takes_does_not_keep_a_job_from_ending(
    heard: Heard, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "DRAWING_S", 1000.0)
    closed, begun = threading.Event(), threading.Event()

    def pictures() -> Iterator[Event]:
        try:
            while True:
                begun.set()
                yield Preview("view", "labels", None)
        finally:
            closed.set()

    heard.runner.start(pictures(), silent=True)
    assert begun.wait(5)
    heard.runner.abandon()
    qtbot.waitUntil(closed.is_set)


@pytest.fixture
def warming(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A warming up that ends when this event is set."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    monkeypatch.setattr(warm, "_begun", {warm._warm: thread})
    yield ended
    ended.set()
    thread.join()


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_begins_when_warming_up_has_ended(
    heard: Heard, qtbot: Any, monkeypatch: pytest.MonkeyPatch, warming: threading.Event, cancelled: bool
) -> None:
    """The layer that it adds would be drawn beside it; who does not want to wait for that may cancel."""
    begun = threading.Event()
    monkeypatch.setattr(warm, "MOST_S", 1000.0)
    heard.runner.start(endless(threading.Event(), begun), silent=True)
    assert not begun.wait(0.3)
    if cancelled:
        heard.runner.cancel()
        qtbot.waitUntil(lambda: bool(heard.ends))
        assert heard.ends == [(None, None)] and not begun.is_set()
    else:
        warming.set()
        assert begun.wait(5)


def test_a_job_does_not_wait_for_ever_until_it_is_warm(
    heard: Heard, qtbot: Any, monkeypatch: pytest.MonkeyPatch, warming: threading.Event
) -> None:
    monkeypatch.setattr(warm, "MOST_S", 0.1)
    heard.runner.start(counting(3), silent=True)
    qtbot.waitUntil(lambda: bool(heard.ends))
    assert heard.ends == [(3, None)] and not warming.is_set()


def test_events_arrive_in_order_in_the_main_thread(heard: Heard, qtbot: Any) -> None:
    heard.runner.start(counting(300), silent=True)
    qtbot.waitUntil(lambda: bool(heard.ends))
    assert heard.ends == [(300, None)]
    assert [e.done for e in heard.events if isinstance(e, Progress)] == list(range(300))
    assert heard.threads == {threading.get_ident()}
    assert not heard.runner.running


@pytest.mark.parametrize("error", [RuntimeError("shapes (3x4) and (5x6)"), DataError("bad"), ValueError("odd")])
def test_every_error_arrives_and_the_next_job_runs(heard: Heard, qtbot: Any, error: Exception) -> None:
    def failing() -> Iterator[Event]:
        yield Progress(0, 1, "steps")
        raise error

    heard.runner.start(failing(), silent=True)
    qtbot.waitUntil(lambda: bool(heard.ends))
    ((result, found),) = heard.ends
    assert result is None
    if isinstance(error, RuntimeError):
        assert isinstance(found, JobFailed) and "shapes (3x4) and (5x6)" in str(found)
        assert found.__cause__ is error
    else:
        assert found is error
    heard.runner.start(counting(2), silent=True)
    qtbot.waitUntil(lambda: len(heard.ends) == 2)
    assert heard.ends[1] == (2, None)


def test_cancel_closes_the_job(heard: Heard, qtbot: Any) -> None:
    closed, begun = threading.Event(), threading.Event()
    heard.runner.start(endless(closed, begun), silent=True)
    qtbot.waitUntil(begun.is_set)
    heard.runner.cancel()
    qtbot.waitUntil(lambda: bool(heard.ends))
    assert closed.is_set()
    assert heard.ends == [(None, None)]


def test_an_error_while_closing_is_reported(heard: Heard, qtbot: Any) -> None:
    begun = threading.Event()

    def stubborn() -> Iterator[Event]:
        try:
            while True:
                yield Progress(0, 1, "rounds")
                begun.set()
        finally:
            raise RuntimeError("disk full")

    heard.runner.start(stubborn(), silent=True)
    qtbot.waitUntil(begun.is_set)
    heard.runner.cancel()
    qtbot.waitUntil(lambda: bool(heard.ends))
    assert "disk full" in str(heard.ends[0][1])


def test_a_new_job_replaces_the_old_one(heard: Heard, qtbot: Any) -> None:
    closed, begun = threading.Event(), threading.Event()
    heard.runner.start(endless(closed, begun), silent=True)
    qtbot.waitUntil(begun.is_set)
    heard.events.clear()
    heard.runner.start(counting(3), silent=True)
    heard.runner.start(counting(5), silent=True)
    qtbot.waitUntil(lambda: bool(heard.ends))
    assert heard.ends == [(5, None)], "neither the replaced nor the skipped job may end here"
    assert {e.total for e in heard.events if isinstance(e, Progress)} == {5}
    assert closed.is_set()


def test_an_abandoned_job_is_silent(heard: Heard, qtbot: Any) -> None:
    closed, begun = threading.Event(), threading.Event()
    heard.runner.start(endless(closed, begun), silent=True)
    qtbot.waitUntil(begun.is_set)
    heard.runner.abandon()
    heard.events.clear()
    qtbot.waitUntil(lambda: not heard.runner.running)
    assert closed.is_set() and not heard.events and not heard.ends


def test_jobs_compute_with_the_threads_of_the_main_thread(heard: Heard, qtbot: Any) -> None:
    """Qt's threads are used again, and torch keeps a number for each of them."""
    used: list[int] = []

    def job() -> Iterator[Event]:
        used.append(torch.get_num_threads())
        yield Finished(None)

    before = torch.get_num_threads()
    try:
        for threads in (2, 1, 2):
            torch.set_num_threads(threads)
            heard.runner.start(job(), silent=True)
            qtbot.waitUntil(lambda: not heard.runner.running)
    finally:
        torch.set_num_threads(before)
    assert used == [2, 1, 2]


def test_napari_knows_a_job_but_does_not_animate_it(heard: Heard, qtbot: Any, make_napari_viewer: Any) -> None:
    """It asks before it closes over one; its moving picture would draw the window for as long as the job runs."""
    tasks = make_napari_viewer().window._task_status_manager
    closed, begun = threading.Event(), threading.Event()
    for silent in (True, False):
        begun.clear()
        closed.clear()
        heard.runner.start(endless(closed, begun), silent=silent)
        qtbot.waitUntil(begun.is_set)
        qtbot.waitUntil(lambda silent=silent: tasks.is_busy() is not silent)
        assert not progress._all_instances
        heard.ends.clear()
        heard.runner.cancel()
        qtbot.waitUntil(lambda: bool(heard.ends))
    qtbot.waitUntil(lambda: not tasks.is_busy())


@pytest.mark.parametrize("end", ["goes on", "is stopped", "fails"])
def test_a_job_outlives_the_window_without_an_abort(qtbot: Any, end: str) -> None:
    """An error that leaves a worker's ``run`` ends the process: Qt's threads have nobody above to catch it."""
    closed: list[bool] = []

    def job() -> Iterator[Event]:
        try:
            worker.signals.deleteLater()
            QCoreApplication.sendPostedEvents(worker.signals, QEvent.Type.DeferredDelete)
            if end == "is stopped":
                worker.quit()
            if end == "fails":
                raise DataError("nobody will read this")
            yield Progress(0, 1, "things")
        finally:
            closed.append(True)

    worker = JobWorker(passing, job())
    worker.run()
    assert closed == [True]
    with pytest.raises(RuntimeError, match="deleted"):
        worker.yielded.emit(None)
