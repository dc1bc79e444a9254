"""The guided window in a real viewer: the steps, the project that keeps everything, and closing during a job."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("napari")
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication

from napari_em_da import Volume
from napari_em_da._napari import GuideDock, closing, keeper
from napari_em_da.errors import ResourceError
from napari_em_da.events import Finished, Progress
from napari_em_da.project import Project, StrokeStore

NM = ("nm",) * 3
LONG_MS = 20_000


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Two small stacks and the labels of the first."""
    random = np.random.default_rng(0)
    labels = np.zeros((3, 40, 48), np.uint8)
    labels[:, 8:24, 8:30] = 7
    arrays = {
        "a": random.integers(0, 200, labels.shape).astype(np.uint8),
        "a-labels": labels,
        "b": random.integers(0, 200, labels.shape).astype(np.uint8),
    }
    return {
        name: Volume.from_array(array, voxel_nm=(30, 8, 8)).save(tmp_path / f"{name}.tif")
        for name, array in arrays.items()
    }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keeper, "SAVE_MS", 100)
    yield


def docked(viewer: Any) -> GuideDock:
    """Open the dock as the plugin menu does."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-em-da", "EM DA")
    assert isinstance(dock, GuideDock)
    assert not dock.pages, "an empty dock is there at once"
    end = time.monotonic() + LONG_MS / 1000
    while not dock.pages and time.monotonic() < end:
        QApplication.processEvents()
    assert list(dock.pages) == ["data"] and dock.current == "data"
    return dock


def add_file(viewer: Any, path: Path, kind: str = "image") -> Any:
    volume = Volume.open(path)
    look = {"scale": (30, 8, 8), "units": NM, "name": path.stem, "metadata": {"path": str(path)}}
    return getattr(viewer, "add_image" if kind == "image" else "add_labels")(volume.read(), **look)


def prepare(viewer: Any, files: dict[str, Path]) -> GuideDock:
    dock = docked(viewer)
    dock.session.assign("source", add_file(viewer, files["a"]))
    dock.session.assign("labels", add_file(viewer, files["a-labels"], "labels"))
    dock.session.assign("target", add_file(viewer, files["b"]))
    return dock


def begin(dock: GuideDock, folder: Path, qtbot: Any) -> Project:
    """Open or create a project, as the Data page does, and wait until it is open and saved."""
    project = Project.open(folder) if Project.is_project(folder) else Project.create(folder)
    project.lock()
    dock.session.set_project(project)
    qtbot.waitUntil(lambda: dock.keeper.project is project, timeout=LONG_MS)
    settle(dock, qtbot)
    return project


def settle(dock: GuideDock, qtbot: Any) -> None:
    dock.save()
    qtbot.waitUntil(lambda: not dock.keeper.dirty and dock.keeper._future is None, timeout=LONG_MS)


def kill(dock: GuideDock) -> None:
    """Leave everything as a crash does: nothing more is saved."""
    dock.keeper._save.stop()
    dock.keeper._poll.stop()
    if dock.keeper._future is not None:
        dock.keeper._future.result()
    project = dock.keeper.project
    dock.keeper.project = dock.keeper._pool = None
    dock._save.stop()
    assert project is not None
    project.close()  # the lock of a dead process is taken over; this one lives


def saved(project: Project, name: str) -> npt.NDArray[Any]:
    """Return the strokes of a layer as another program reads them."""
    record = next(record for record in project.layers() if record.name == name)
    assert record.strokes is not None
    return StrokeStore.open(record.strokes).read()


def slow(seconds: float = 60) -> Any:
    """A job that never ends by itself, and can be stopped every 10 ms."""
    for step in range(int(seconds * 100)):
        time.sleep(0.01)
        yield Progress(step, 100, "steps", "working")
    yield Finished(1)


def test_steps_and_the_way_on(make_napari_viewer: Any, files: dict[str, Path], qtbot: Any, tmp_path: Path) -> None:
    dock = docked(make_napari_viewer())
    names = ["data", "weights", "train", "adapt", "segment", "refine", "evaluate", "correct"]
    assert [button.text() for button in dock.stepper.buttons.values()] == [
        f"{number}  {name.capitalize()}" for number, name in enumerate(names, start=1)
    ]
    for here, after in zip(names, names[1:], strict=False):
        assert dock.current == here
        assert dock.onward.text.text() == dock.pages[here].next_step
        assert dock.onward.button.text() == f"Next: {after.capitalize()}"
        dock.onward.button.click()
        qtbot.waitUntil(lambda after=after: dock.current == after)
    assert dock.current == "correct" and dock.onward.button.isHidden()
    dock.stepper.buttons["data"].click()
    assert dock.current == "data" and not dock.onward.button.isHidden()

    viewer = dock.session.viewer
    dock.session.assign("source", add_file(viewer, files["a"]))
    dock.session.assign("labels", add_file(viewer, files["a-labels"], "labels"))
    assert dock.stepper.buttons["data"].text() == "1  Data"
    target = add_file(viewer, files["b"])
    dock.session.assign("target", target)
    assert dock.stepper.buttons["data"].text() == "✓  Data"
    dock.session.set_run("trained", tmp_path)
    assert dock.stepper.buttons["train"].text() == "✓  Train"
    viewer.layers.remove(target)
    assert dock.stepper.buttons["data"].text() == "1  Data"


def test_leaving_a_page_stops_no_job_and_marks_it(make_napari_viewer: Any, qtbot: Any) -> None:
    dock = docked(make_napari_viewer())
    page: Any = dock.show_page("segment")
    page.panel.runner.start(slow())
    dock.show_page("data")
    qtbot.waitUntil(lambda: dock.stepper.buttons["segment"].text() == "●  Segment", timeout=LONG_MS)
    assert page.busy
    page.panel.runner.cancel()
    qtbot.waitUntil(lambda: dock.stepper.buttons["segment"].text() == "5  Segment", timeout=LONG_MS)


def test_a_project_opens_again_as_it_was(
    make_napari_viewer: Any, files: dict[str, Path], qtbot: Any, tmp_path: Path, quick: None
) -> None:
    viewer = make_napari_viewer()
    dock = prepare(viewer, files)
    project = begin(dock, tmp_path / "p", qtbot)
    segment: Any = dock.show_page("segment")
    segment.output.path = tmp_path / "out.tif"
    dock.session.set_run("trained", tmp_path / "p" / "runs" / "x")
    viewer.layers["b"].translate = (0, 16, 0)
    viewer.layers["b"].contrast_limits = (3, 99)
    painted = viewer.add_labels(np.zeros((3, 40, 48), np.int32), name="mine", scale=(30, 8, 8), units=NM)
    dock.session.assign("corrections", painted)
    painted.paint((1, 20, 20), 5)
    expected = painted.data.copy()
    settle(dock, qtbot)
    assert {record.name: record.role for record in project.layers()} == {
        "a": "source image",
        "a-labels": "source labels",
        "b": "target image",
        "mine": "corrections",
    }
    files["a"].rename(tmp_path / "elsewhere.tif")
    viewer.close()
    qtbot.waitUntil(lambda: dock.keeper.project is None, timeout=LONG_MS)
    assert not (tmp_path / "p" / "project.lock").exists()
    assert len(Project.open(tmp_path / "p").layers()) == 4, "a viewer that closes removes no layer from the project"

    other = make_napari_viewer()
    again = docked(other)
    begin(again, tmp_path / "p", qtbot)
    assert {layer.name for layer in other.layers} == {"a-labels", "b", "mine"}
    assert "'a'" in again.message.text() and str(files["a"]) in again.message.text()
    np.testing.assert_array_equal(other.layers["mine"].data, expected)
    b = other.layers["b"]
    np.testing.assert_allclose(b.translate, (0, 16, 0))
    np.testing.assert_allclose(b.scale, (30, 8, 8))
    assert [str(unit) for unit in b.units] == ["nanometer"] * 3
    assert b.contrast_limits == [3, 99]
    np.testing.assert_array_equal(np.asarray(b.data), Volume.open(files["b"]).read())
    assert again.session.layer("target") is b
    assert again.session.layer("corrections") is other.layers["mine"]
    assert again.session.layer("source") is None
    assert not other.layers["a-labels"].editable, "ground truth is locked again"
    assert other.layers["mine"].editable
    assert again.current == "segment"
    page: Any = again.pages["segment"]
    assert page.output.path == tmp_path / "out.tif"
    assert again.session.trained == tmp_path / "p" / "runs" / "x"


def test_a_crash_loses_nothing_that_was_saved(
    make_napari_viewer: Any, files: dict[str, Path], qtbot: Any, tmp_path: Path
) -> None:
    assert keeper.SAVE_MS <= 5000
    viewer = make_napari_viewer()
    dock = prepare(viewer, files)
    project = begin(dock, tmp_path / "p", qtbot)
    layer = viewer.add_labels(np.zeros((3, 40, 48), np.uint8), name="mine", scale=(30, 8, 8), units=NM)
    dock.session.assign("corrections", layer)
    settle(dock, qtbot)
    viewer.dims.set_current_step(0, 2)
    layer.paint((2, 20, 20), 5)
    viewer.dims.set_current_step(0, 1)
    layer.fill((1, 0, 0), 3)
    layer.undo()
    layer.paint((1, 5, 5), 2)
    layer.data[0, 3, 4] = 9  # by a script, which says so
    dock.session.edited.emit(layer, (slice(0, 1), slice(3, 4), slice(4, 5)))
    expected = layer.data.copy()
    assert dock.keeper._save.isActive() and dock.keeper._save.remainingTime() <= 5000
    assert not saved(project, "mine").any()
    dock.keeper.save()  # what the timer does
    layer.paint((1, 30, 30), 8)  # while the thread writes
    assert dock.keeper._future is not None
    dock.keeper._future.result()
    np.testing.assert_array_equal(saved(project, "mine"), expected)
    kill(dock)

    other = make_napari_viewer()
    again = docked(other)
    begin(again, tmp_path / "p", qtbot)
    np.testing.assert_array_equal(other.layers["mine"].data, expected)


def test_names_and_removals_are_followed(
    make_napari_viewer: Any, files: dict[str, Path], qtbot: Any, tmp_path: Path, quick: None
) -> None:
    viewer = make_napari_viewer()
    dock = prepare(viewer, files)
    project = begin(dock, tmp_path / "p", qtbot)
    a, b = viewer.layers["a"], viewer.layers["b"]
    a.name, b.name = "first", "second"
    a.name, b.name, a.name = "x", "first", "second"
    viewer.layers.remove(viewer.layers["a-labels"])
    settle(dock, qtbot)
    assert {r.name: r.path for r in project.layers()} == {"second": files["a"], "first": files["b"]}
    layer = viewer.add_labels(np.zeros((3, 40, 48), np.uint8), name="mine")
    layer.paint((0, 3, 3), 1)
    settle(dock, qtbot)
    layer.name = "yours"
    layer.paint((2, 9, 9), 4)
    settle(dock, qtbot)
    assert {r.name for r in project.layers()} == {"first", "second", "yours"}
    np.testing.assert_array_equal(saved(project, "yours"), layer.data)


def test_a_layer_never_takes_the_strokes_of_a_missing_one(
    make_napari_viewer: Any, qtbot: Any, tmp_path: Path, quick: None
) -> None:
    project = Project.create(tmp_path / "p")
    from napari_em_da.project import LayerRecord

    old = np.full((2, 8, 8), 3, np.uint8)
    project.start_strokes(LayerRecord(name="mine", kind="labels"), old)
    strokes = project.layers()[0].strokes
    assert strokes is not None
    project.close()
    strokes.rename(tmp_path / "aside")
    viewer = make_napari_viewer()
    dock = docked(viewer)
    project = begin(dock, tmp_path / "p", qtbot)
    assert "mine" in dock.message.text()
    (tmp_path / "aside").rename(strokes)
    layer = viewer.add_labels(np.zeros((2, 8, 8), np.uint8), name="mine")
    layer.paint((0, 3, 3), 1)
    settle(dock, qtbot)
    np.testing.assert_array_equal(saved(project, "mine"), layer.data)
    np.testing.assert_array_equal(saved(project, "mine (missing)"), old)


def test_a_full_disk_is_said_and_tried_again(
    make_napari_viewer: Any, files: dict[str, Path], qtbot: Any, tmp_path: Path, quick: None, monkeypatch: Any
) -> None:
    viewer = make_napari_viewer()
    dock = prepare(viewer, files)
    project = begin(dock, tmp_path / "p", qtbot)
    layer = viewer.add_labels(np.zeros((3, 40, 48), np.uint8), name="mine")
    layer.paint((0, 3, 3), 1)
    settle(dock, qtbot)
    before = layer.data.copy()
    save = StrokeStore.save
    full = ResourceError("The disk is full: free some space, then save again; what was saved before is whole.")

    def refuse(*_: Any) -> int:
        raise full

    monkeypatch.setattr(StrokeStore, "save", refuse)
    layer.paint((1, 20, 20), 6)
    qtbot.waitUntil(lambda: "disk is full" in dock.saving.text(), timeout=LONG_MS)
    assert dock.saving.is_error and "tried again" in dock.saving.text()
    layer.paint((1, 30, 30), 7)
    np.testing.assert_array_equal(saved(project, "mine"), before)
    monkeypatch.setattr(StrokeStore, "save", save)
    qtbot.waitUntil(lambda: not dock.saving.text(), timeout=LONG_MS)
    np.testing.assert_array_equal(saved(project, "mine"), layer.data)


def test_closing_during_a_job_asks(make_napari_viewer: Any, qtbot: Any, monkeypatch: Any) -> None:
    viewer = make_napari_viewer()
    dock = docked(viewer)
    page: Any = dock.show_page("train")
    page.panel.runner.start(slow())
    asked: list[str] = []

    def answer(value: bool) -> None:
        monkeypatch.setattr(closing, "ask", lambda _parent, text: asked.append(text) or value)

    window = viewer.window._qt_window
    answer(False)
    event = QCloseEvent()
    assert QApplication.sendEvent(window, event) is not None
    assert not event.isAccepted() and page.busy
    assert asked == ["A training is running. Stop it and close? Its last checkpoint is kept."]

    answer(True)
    beats: list[float] = []
    from qtpy.QtCore import QTimer

    timer = QTimer()
    timer.timeout.connect(lambda: beats.append(time.monotonic()))
    timer.start(1)
    assert dock.closing is not None and dock.closing.may_close()
    timer.stop()
    assert not page.busy and beats, "the window lived while the job stopped"
    assert len(asked) == 2
    assert dock.closing.may_close() and len(asked) == 2, "without a job nobody is asked"


def test_closing_with_unsaved_work_asks(
    make_napari_viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: Any, quick: None
) -> None:
    viewer = make_napari_viewer()
    dock = docked(viewer)
    begin(dock, tmp_path / "p", qtbot)
    layer = viewer.add_labels(np.zeros((3, 40, 48), np.uint8), name="mine")
    layer.paint((0, 3, 3), 1)
    settle(dock, qtbot)
    layer.paint((0, 30, 30), 1)
    asked: list[str] = []
    monkeypatch.setattr(closing, "ask", lambda _parent, text: bool(asked.append(text)))

    def refuse(*_: Any) -> int:
        raise ResourceError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(StrokeStore, "save", refuse)
        assert dock.closing is not None and not dock.closing.may_close()
    assert "The disk is full." in asked[0]
    assert dock.closing.may_close()
    assert len(asked) == 1


def test_closing_the_dock_unlocks_the_project(
    make_napari_viewer: Any, files: dict[str, Path], qtbot: Any, tmp_path: Path
) -> None:
    viewer = make_napari_viewer()
    dock = prepare(viewer, files)
    project = begin(dock, tmp_path / "p", qtbot)
    layer = viewer.add_labels(np.zeros((3, 40, 48), np.uint8), name="mine")
    layer.paint((0, 3, 3), 1)
    expected = layer.data.copy()
    viewer.window.remove_dock_widget(dock.parent())
    qtbot.waitUntil(viewer.window._qt_window.updatesEnabled)  # the window is drawn again
    assert not (tmp_path / "p" / "project.lock").exists()
    np.testing.assert_array_equal(saved(project, "mine"), expected)


def test_a_script_that_ends_with_the_window_open_saves_and_says_its_own_error(tmp_path: Path) -> None:
    code = """
import sys
import napari
import numpy as np

viewer = napari.Viewer()
layer = viewer.add_labels(np.zeros((3, 40, 48), np.uint8), name="mine")
_, dock = viewer.window.add_plugin_dock_widget("napari-em-da", "EM DA")
page = dock.show_page("data")
page.project.open(sys.argv[1])
while dock.keeper.project is None:
    napari.qt.get_qapp().processEvents()
layer.paint((0, 3, 3), 1)
np.save(sys.argv[2], layer.data)
raise ValueError("of the script")
"""
    painted = tmp_path / "painted.npy"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p"), str(painted)], capture_output=True, text=True
    )
    assert ran.returncode == 1 and ran.stderr.rstrip().endswith("ValueError: of the script"), ran.stderr
    assert not (tmp_path / "p" / "project.lock").exists()
    np.testing.assert_array_equal(saved(Project.open(tmp_path / "p"), "mine"), np.load(painted))


def test_a_window_whose_project_was_taken_over_stops_saving(
    make_napari_viewer: Any, files: dict[str, Path], qtbot: Any, tmp_path: Path, quick: None
) -> None:
    viewer = make_napari_viewer()
    dock = prepare(viewer, files)
    begin(dock, tmp_path / "p", qtbot)
    other = Project.open(tmp_path / "p")
    other.lock(take_over=True)
    before = (tmp_path / "p" / "project.json").read_bytes()
    dock.session.layer("labels").editable = True
    dock.session.layer("labels").paint((1, 30, 30), 3)
    dock.save()
    qtbot.waitUntil(lambda: dock.session.project is None, timeout=LONG_MS)
    assert "taken over" in dock.saving.text() and "saves nothing more" in dock.saving.text()
    row = dock.pages["data"].project
    assert "taken over" in row.state.text() and row.take_button.isVisibleTo(row)
    dock.save()
    qtbot.wait(200)
    assert dock.keeper.project is None and other.lock().held
    assert (tmp_path / "p" / "project.json").read_bytes() == before
    other.close()
