"""What tests of the guided window share: a dock with a layer for every role, a trained run and a project."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PLACE: dict[str, Any] = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3}
LONG_MS = 120_000


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question before closing would wait for ever in a test that failed during a job."""
    from napari_em_da._napari import closing

    monkeypatch.setattr(closing, "ask", lambda _parent, _text: True)


@pytest.fixture(autouse=True)
def told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests act on what a panel is told, such as a step: later, small jobs are over."""
    from napari_em_da._napari import job_panel, turns

    monkeypatch.setattr(job_panel, "EVENTS_MS", 0)
    monkeypatch.setattr(turns, "MOST_MS", 0)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Fail a test after which a job or the writer of a project still runs: its docks and viewers are closed by then."""
    yield
    from qtpy.QtCore import QEvent, QThreadPool
    from qtpy.QtWidgets import QApplication

    pool, end = QThreadPool.globalInstance(), time.monotonic() + LONG_MS / 1000
    while (left := running(pool)) and time.monotonic() < end:
        QApplication.processEvents()
        QApplication.sendPostedEvents(None, int(QEvent.Type.DeferredDelete.value))
        time.sleep(0.01)
    assert not left, f"{left} still run"


def running(pool: Any) -> list[str]:
    """Return the threads that work for us."""
    writers = [thread.name for thread in threading.enumerate() if thread.name.startswith("em-da")]
    return writers + ["job"] * (0 if pool is None else pool.activeThreadCount())


@pytest.fixture
def quick_run(tmp_path: Path) -> Path:
    """A run folder as far as pages look into it before a job begins."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("steps: 1\n")
    (folder / "run.json").write_text(json.dumps({"classes": {"square": [7]}}))
    (folder / "best.safetensors").touch()
    return folder


@pytest.fixture
def dock(make_napari_viewer: Any, quick_run: Path, tmp_path: Path, qtbot: Any) -> Any:
    """The guide in a viewer, with a layer for every role but corrections, a trained run and a project."""
    from qtpy.QtWidgets import QApplication

    from napari_em_da.volume import Volume

    viewer = make_napari_viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-em-da", "EM DA")
    QApplication.processEvents()
    labels = np.zeros((4, 40, 48), np.uint8)
    labels[:, 8:24, 8:30] = 7
    image = np.random.default_rng(0).integers(0, 200, labels.shape).astype(np.uint8)
    roles = {"source": image, "target": image, "labels": labels, "truth": labels, "prediction": labels}
    for role, data in roles.items():
        path = Volume.from_array(data, voxel_nm=(30, 8, 8)).save(tmp_path / f"{role}.tif")
        add = viewer.add_image if role in ("source", "target") else viewer.add_labels
        dock.session.assign(role, add(data.copy(), name=role, metadata={"path": str(path)}, **PLACE))
    qtbot.waitUntil(lambda: dock.session.classes == {"class 7": (7,)}, timeout=LONG_MS)
    dock.pages["data"].project.open(tmp_path / "project")
    qtbot.waitUntil(lambda: dock.keeper.project is not None, timeout=LONG_MS)
    dock.session.set_run("trained", quick_run)
    quiet(dock, qtbot)
    return dock


def quiet(dock: Any, qtbot: Any) -> None:
    """Wait until no page does anything."""
    runners = [runner for page in dock.pages.values() for runner in page._runners]
    qtbot.waitUntil(lambda: not any(runner.running for runner in runners), timeout=LONG_MS)
