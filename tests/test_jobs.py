from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_em_da.errors import DataError, JobFailed
from napari_em_da.events import Event, Finished, Metric, Notice, Preview, Progress, Saved
from napari_em_da.jobs import Job, StatusLine, forward, run, unattended


def count(total: int, log: list[str], *, fail_at: int | None = None, finish: bool = True) -> Job:
    """Count up; say in ``log`` when cleaned up."""
    try:
        for done in range(1, total + 1):
            if done == fail_at:
                raise DataError(f"number {done} is bad")
            yield Progress(done, total, "numbers", "counting")
        if finish:
            yield Finished(total)
    finally:
        log.append("closed")


def test_run_returns_the_result_and_shows_every_event() -> None:
    log: list[str] = []
    seen: list[Event] = []
    assert run(count(3, log), on_event=seen.append) == 3
    assert [e.done for e in seen if isinstance(e, Progress)] == [1, 2, 3]
    assert seen[-1] == Finished(3)
    assert log == ["closed"]


def test_a_job_without_result_failed() -> None:
    log: list[str] = []
    with pytest.raises(JobFailed, match="without a result"):
        run(count(2, log, finish=False))
    assert log == ["closed"]


def test_an_error_inside_passes_through() -> None:
    log: list[str] = []
    with pytest.raises(DataError, match="number 2 is bad"):
        run(count(3, log, fail_at=2))
    assert log == ["closed"]


def test_an_interrupt_closes_the_job() -> None:
    log: list[str] = []

    def press_ctrl_c(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(count(3, log), on_event=press_ctrl_c)
    assert log == ["closed"]


def two_stages(log: list[str]) -> Job:
    first = yield from forward(count(2, log))
    second = yield from forward(count(3, log))
    yield Finished((first, second))


def test_stages_forward_their_events_but_not_their_finish() -> None:
    log: list[str] = []
    events = list(two_stages(log))
    assert [type(e) for e in events] == [Progress] * 5 + [Finished]
    assert events[-1] == Finished((2, 3))
    assert log == ["closed", "closed"]


def test_cancelling_the_outer_job_closes_the_stage_that_runs() -> None:
    log: list[str] = []
    job = two_stages(log)
    next(job)
    job.close()
    assert log == ["closed"]


def test_a_stage_without_result_fails_the_whole() -> None:
    def outer() -> Generator[Event, None, None]:
        yield Finished((yield from forward(count(1, [], finish=False))))

    with pytest.raises(JobFailed, match="stage"):
        run(outer())


def test_progress_goes_to_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    run(count(2, []), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "counting    [==========          ] 1/2 numbers" in err
    assert err.endswith("[====================] 2/2 numbers\n")


def test_status_line_shows_metrics_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    show = StatusLine()
    show(Metric(7, {"loss": 0.123456}))
    show(Progress(1, 2, "steps"))
    show(Notice("one class is absent", "warning"))
    err = capsys.readouterr().err
    assert "1/2 steps" in err
    assert "loss 0.1235" in err
    assert "warning: one class is absent\n" in err


@pytest.mark.parametrize(
    "event",
    [
        Progress(1, 2, "steps", "training"),
        Metric(3, {"loss": 0.5}),
        Saved(Path("runs/a"), "checkpoint"),
        Notice("hello"),
        Finished({"iou": 0.5}),
    ],
)
def test_events_cross_a_process_border(event: Event) -> None:
    assert pickle.loads(pickle.dumps(event)) == event


def test_previews_cross_a_process_border() -> None:
    sent = Preview("validation", "image", np.eye(3, dtype=np.float32), step=4)
    got = pickle.loads(pickle.dumps(sent))
    assert (got.name, got.kind, got.step) == ("validation", "image", 4)
    np.testing.assert_array_equal(got.data, sent.data)


def test_the_first_ctrl_c_waits_for_the_next_event_and_closes_the_job() -> None:
    seen: list[Any] = []

    def job() -> Generator[Event, None, None]:
        try:
            for step in range(5):
                if step == 1:
                    os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step
                seen.append(step)
                yield Progress(step, 5, "steps")
        finally:
            seen.append("closed")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(job())
    assert seen == [0, 1, "closed"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_ctrl_c_stops_at_once() -> None:
    seen: list[int] = []

    def job() -> Generator[Event, None, None]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        seen.append(1)
        yield Progress(1, 5, "steps")

    with pytest.raises(KeyboardInterrupt):
        run(job())
    assert seen == []


def test_what_cannot_be_stopped_is_left_behind_when_its_job_is_closed() -> None:
    begun, go = threading.Event(), threading.Event()

    def endless() -> None:
        begun.set()
        go.wait(60)

    waiting = Progress(0, 1, "volumes", "weights")
    running = unattended(endless, waiting)
    assert next(running) == waiting and begun.wait(10)
    running.close()
    go.set()


def test_what_cannot_be_stopped_gives_its_result_or_its_error() -> None:
    def job(function: Callable[[], object]) -> Job:
        yield Finished((yield from unattended(function, Progress(0, 1, "volumes", "weights"))))

    assert run(job(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        run(job(lambda: 1 // 0))
