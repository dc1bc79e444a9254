"""Every job of the guided window: an error, a cancel and a close in the middle of it leave nothing broken behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QThreadPool

from napari_em_da import layers
from napari_em_da._napari import GuideDock, closing, weights_page
from napari_em_da._napari.chain_editor import Item
from napari_em_da.errors import DataError
from napari_em_da.events import Event, Progress
from napari_em_da.project import Project

PLACE: dict[str, Any] = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3}
LONG_MS = 120_000
TORCH = "CUDA error: an illegal memory access was encountered"
OURS = "The section 3 is damaged; take it out of the stack."


@dataclass(frozen=True)
class Case:
    """A job that the user starts: its page, its button, and the function that does the work.

    Attributes
    ----------
    ready : callable
        Brings the page into the state in which the button works.
    """

    page: str
    button: str
    module: Any
    function: str
    panel: Callable[[Any], Any] = lambda page: page.panel
    ready: Callable[[Any, Any], None] = lambda page, qtbot: None


def one_step(page: Any, qtbot: Any) -> None:
    page.live.setChecked(False)
    page.editor.show_items([Item("remove_small", {"sections": True, "min_size_nm2": 128.0})])
    qtbot.waitUntil(lambda: len(page.editor.items()) == 1, timeout=LONG_MS)


def objects_tab(page: Any, qtbot: Any) -> None:
    page.live.setChecked(False)
    page.tabs.setCurrentWidget(page.objects)
    page.objects.labels.choose(page.session.layer("prediction"))


def painted(page: Any, qtbot: Any) -> None:
    page.paint.new_button.click()
    page.session.layer("corrections").paint((1, 10, 10), 7)


def no_preview(page: Any, qtbot: Any) -> None:
    page.live.setChecked(False)


def metrics_known(page: Any, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: bool(page.metrics.docs), timeout=LONG_MS)


CASES = {
    "weights": Case("weights", "Compute whole volume", weights_page, "volume_job", ready=no_preview),
    "train": Case("train", "Start", layers, "train"),
    "train again": Case("train", "Resume", layers, "resume", ready=lambda page, _: page.run.restore("run")),
    "adapt": Case("adapt", "Start", layers, "adapt"),
    "adapt again": Case("adapt", "Resume", layers, "adapt", ready=lambda page, _: page.run.restore("run")),
    "segment region": Case("segment", "This region", layers, "segment_view"),
    "segment": Case("segment", "Whole volume", layers, "segment"),
    "refine": Case("refine", "Apply to the volume", layers, "postprocess", ready=one_step),
    "measure": Case(
        "refine", "Measure", layers, "measure_objects", panel=lambda page: page.objects.panel, ready=objects_tab
    ),
    "evaluate": Case("evaluate", "Score", layers, "score", ready=metrics_known),
    "correct": Case("correct", "Learn from my corrections", layers, "correct", ready=painted),
}


class Endless:
    """A job that goes on until it is stopped, and knows that it was."""

    def __init__(self) -> None:
        self.begun, self.closed = threading.Event(), threading.Event()

    def __call__(self, *args: Any, **options: Any) -> Iterator[Event]:
        try:
            while not self.closed.wait(0.005):
                yield Progress(0, 1, "steps", "working")
                self.begun.set()
        finally:
            self.closed.set()


def failing(kind: type[Exception], text: str) -> Callable[..., Iterator[Event]]:
    def job(*args: Any, **options: Any) -> Iterator[Event]:
        yield Progress(0, 1, "steps", "working")
        raise kind(text)

    return job


def quiet(dock: GuideDock, qtbot: Any) -> None:
    runners = [runner for page in dock.pages.values() for runner in page._runners]
    qtbot.waitUntil(lambda: not any(runner.running for runner in runners), timeout=LONG_MS)


def show(dock: GuideDock, case: Case, qtbot: Any) -> tuple[Any, Any]:
    """Go to the page of a job, and get ready to start it."""
    page = dock.show_page(case.page)
    case.ready(page, qtbot)
    quiet(dock, qtbot)
    return page, case.panel(page)


def start(panel: Any, case: Case, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> Endless:
    job = Endless()
    monkeypatch.setattr(case.module, case.function, job)
    panel.buttons[case.button].click()
    assert not panel.message.is_error, panel.message.text()
    qtbot.waitUntil(job.begun.is_set, timeout=LONG_MS)
    assert panel.running and panel.cancel_button.isEnabled()
    assert not any(button.isEnabled() for button in panel.buttons.values()), "one job at a time"
    return job


@pytest.mark.parametrize("name", CASES)
def test_after_an_error_and_a_cancel_the_page_works(
    dock: GuideDock, qtbot: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = CASES[name]
    page, panel = show(dock, case, qtbot)
    before = [layer.name for layer in dock.session.viewer.layers]
    for kind, text, sentence in (
        (RuntimeError, TORCH, f"The job stopped on an unexpected error: {TORCH}. What was saved before is kept"),
        (DataError, OURS, OURS),
    ):
        monkeypatch.setattr(case.module, case.function, failing(kind, text))
        panel.buttons[case.button].click()
        qtbot.waitUntil(lambda: not panel.running, timeout=LONG_MS)
        assert panel.message.is_error and panel.message.text().startswith(sentence)
        assert not panel.trace_button.isHidden() and "in job" in panel.trace.toPlainText()
        assert panel.bar.format() == "failed" and panel.buttons[case.button].isEnabled()
        assert not page.busy

    job = start(panel, case, qtbot, monkeypatch)
    assert panel.trace_button.isHidden(), "the error before is not shown any more"
    dock.mark()
    assert page.busy and dock.stepper.buttons[case.page].text().startswith("●")
    panel.cancel_button.click()
    qtbot.waitUntil(lambda: not panel.running, timeout=LONG_MS)
    assert job.closed.is_set(), "the job could save what it must"
    assert panel.message.text().startswith("Cancelled") and not panel.message.is_error
    assert panel.buttons[case.button].isEnabled() and not panel.cancel_button.isEnabled()
    assert not page.busy
    assert [layer.name for layer in dock.session.viewer.layers] == before
    start(panel, case, qtbot, monkeypatch)
    panel.cancel_button.click()
    qtbot.waitUntil(lambda: not panel.running, timeout=LONG_MS)


CLOSINGS = [(name, "dock") for name in CASES if "again" not in name] + [("train", "window"), ("correct", "window")]


@pytest.mark.parametrize(("name", "how"), CLOSINGS)
def test_closing_in_the_middle_leaves_no_thread_no_widget_and_no_lock(
    dock: GuideDock, tmp_path: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    case, viewer = CASES[name], dock.session.viewer
    _, panel = show(dock, case, qtbot)
    runners = [runner for page in dock.pages.values() for runner in page._runners]
    job = start(panel, case, qtbot, monkeypatch)
    dock.session.layer("labels").name = "renamed"  # something to save
    if how == "dock":
        window = dock.window()
        viewer.window.remove_dock_widget(dock.parent())
        assert not window.findChildren(GuideDock)
    else:
        asked: list[str] = []
        monkeypatch.setattr(closing, "ask", lambda _parent, text: asked.append(text) or True)
        viewer.close()
        assert len(asked) == 1 and "Stop it and close?" in asked[0]
    qtbot.waitUntil(job.closed.is_set, timeout=LONG_MS)
    qtbot.waitUntil(lambda: not any(runner.running for runner in runners), timeout=LONG_MS)
    pool = QThreadPool.globalInstance()
    qtbot.waitUntil(lambda: pool is not None and pool.activeThreadCount() == 0, timeout=LONG_MS)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("em-da")]
    project = Project.open(tmp_path / "project")
    assert {record.name for record in project.layers()} >= {"renamed", "source", "target", "truth"}
    assert not (tmp_path / "project" / "project.lock").exists()
