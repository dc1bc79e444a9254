"""The Data page in a real viewer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.layers import Image, Labels
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent

import napari_em_da as em
from napari_em_da._napari import project_row
from napari_em_da._napari.data_page import DataPage
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.session import Session
from napari_em_da._napari.voxel_row import UNKNOWN, parse_size
from napari_em_da.errors import DataError
from napari_em_da.jobs import run
from napari_em_da.project import Project
from napari_em_da.volume import Volume

LONG_MS = 60_000
NM = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "axis_labels": ("z", "y", "x")}
SHAPE = (4, 64, 64)


def grey(seed: int, *, dark: bool = True) -> np.ndarray:
    """Fourteen cells per section, with dark (or bright) membranes between them."""
    rng = np.random.default_rng(seed)
    out = np.empty(SHAPE)
    for section in out:
        seeds = rng.integers(0, 64, (14, 2))
        squares = ((np.indices(SHAPE[1:])[:, None] - seeds.T[:, :, None, None]) ** 2).sum(0)
        first, second = np.sqrt(np.sort(squares, axis=0)[:2])
        section[:] = np.where(second - first < 3, 60, 190)
    out = (out + rng.normal(0, 8, SHAPE)).clip(0, 255)
    return (out if dark else 255 - out).astype(np.uint8)


def cells() -> np.ndarray:
    found = np.zeros(SHAPE, np.uint8)
    found[:, 10:20, 10:20] = 7
    found[:, 30:40, 10:20] = 3
    return found


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    viewer = make_napari_viewer()
    viewer.add_image(grey(0), name="A", **NM)
    viewer.add_labels(cells(), name="A labels", **NM)
    viewer.add_image(grey(1), name="B", **NM)
    return viewer


@pytest.fixture
def page(viewer: Any, qtbot: Any) -> Any:
    page = DataPage(viewer)
    viewer.window.add_dock_widget(page, name="Data")
    yield page
    page.close_jobs()
    runners = [page.classes.runner, page.checker, page.fixer, *(row.runner for row in page.rows.values())]
    qtbot.waitUntil(lambda: not any(runner.running for runner in runners), timeout=LONG_MS)


def choose(page: Any, qtbot: Any, **roles: str) -> None:
    for role, name in roles.items():
        page.rows[role].choice.choose(page.viewer.layers[name])
    settle(page, qtbot)


def settle(page: Any, qtbot: Any) -> None:
    qtbot.wait(10)
    quiet = (page.checker, page.classes.runner, page.fixer)
    qtbot.waitUntil(lambda: not page._later.isActive() and not any(runner.running for runner in quiet), timeout=LONG_MS)


def fixes(page: Any) -> list[tuple[str, str | None]]:
    return [(finding.role, finding.fix_name) for finding in page.findings.found]


def test_roles_classes_and_lock(page: Any, viewer: Any, qtbot: Any) -> None:
    session = page.session
    assert page.rows["source"].layer is None and "Choose, open or drop" in page.need.text()
    choose(page, qtbot, source="A", labels="A labels", target="B")
    assert session.layer("labels") is viewer.layers["A labels"] and not page.need.text()
    assert session.classes == {"class 3": (3,), "class 7": (7,)}
    assert [int(page.classes.table.item(row, 2).text()) for row in (0, 1)] == [400, 400]
    assert page.findings.found == [] and page.findings.state.text() == "Everything fits."
    page.classes.table.item(0, 1).setText("mito")
    page.classes.table.item(1, 1).setText("mito")
    assert session.classes == {"mito": (3, 7)}
    page.classes.table.item(1, 1).setText("")
    assert "no name" in page.classes.state.text() and session.classes == {"mito": (3, 7)}

    labels = viewer.layers["A labels"]
    assert not labels.editable, "labels are locked when they are chosen"
    labels.data = cells()
    assert not labels.editable, "and stay so when napari would unlock them"
    page.rows["labels"].lock.setChecked(False)
    assert labels.editable
    page.rows["labels"].lock.setChecked(True)
    labels.name = "renamed"
    assert page.rows["labels"].choice.currentText() == "renamed"
    viewer.layers.remove(labels)
    settle(page, qtbot)
    assert session.layer("labels") is None and session.classes == {} and page.classes.table.rowCount() == 0
    assert "labels of the labelled image" in page.need.text()
    page.rows["labels"].choice.choose(viewer.add_labels(cells(), name="truth", **NM))
    page.rows["labels"].choice.setCurrentIndex(0)
    assert viewer.layers["truth"].editable, "a layer without a role is let go"


def test_a_layer_removed_while_it_is_checked(page: Any, viewer: Any, qtbot: Any) -> None:
    page.rows["source"].choice.choose(viewer.layers["A"])
    page.rows["labels"].choice.choose(viewer.layers["A labels"])
    page._look_again()
    viewer.layers.clear()
    settle(page, qtbot)
    assert page.findings.found == [] and "Nothing to check" in page.findings.state.text()
    assert page.session.classes == {}


def test_menus_of_one_role_agree(viewer: Any, qtbot: Any) -> None:
    session = Session(viewer)
    one, two = RoleChoice(session, "labels", Labels), RoleChoice(session, "labels", (Labels, Image))
    qtbot.addWidget(one)
    qtbot.addWidget(two)
    assert one.layer is None and one.currentText() == "choose a layer …"
    one.choose(viewer.layers["A labels"])
    assert two.layer is viewer.layers["A labels"]
    two.choose(viewer.layers["A"])
    assert one.layer is None and session.layer("labels") is viewer.layers["A"], "a menu that cannot show it lets it be"
    session.assign("labels", viewer.layers["A labels"])
    assert one.layer is two.layer is viewer.layers["A labels"]
    viewer.layers.remove("A labels")
    assert one.layer is two.layer is session.layer("labels") is None
    alone = RoleChoice(session, "target", Image, suggest=True)
    qtbot.addWidget(alone)
    assert alone.layer is None, "two images are free: nobody guesses"
    viewer.layers.remove("B")
    other = RoleChoice(session, "target", Image, suggest=True)
    qtbot.addWidget(other)
    assert other.layer is alone.layer is viewer.layers["A"]


def test_voxel_size_is_shown_and_set(page: Any, viewer: Any, qtbot: Any) -> None:
    viewer.layers["B"].units = ("um",) * 3
    choose(page, qtbot, source="A", labels="A labels", target="B")
    assert page.voxels["source"].line.text() == "30, 8, 8"
    assert page.voxels["target"].line.text() == "30000, 8000, 8000"
    line = page.voxels["source"].line
    line.clear()
    qtbot.keyClicks(line, "40 5 6")
    qtbot.keyClick(line, Qt.Key.Key_Return)
    settle(page, qtbot)
    for name in ("A", "A labels"):
        assert tuple(viewer.layers[name].scale) == (40, 5, 6)
        assert [str(unit) for unit in viewer.layers[name].units] == ["nanometer"] * 3
    assert page.session.voxel == {"source": (40, 5, 6)} and line.text() == "40, 5, 6"
    assert fixes(page) == [("target", "voxel")] and "times different" in page.findings.texts()[0]
    line.clear()
    qtbot.keyClicks(line, "forty")
    qtbot.keyClick(line, Qt.Key.Key_Return)
    assert "no voxel size" in page.voxels["source"].message.text()
    page.findings.buttons["voxel"].click()
    settle(page, qtbot)
    assert tuple(viewer.layers["B"].scale) == (40, 5, 6) and fixes(page) == []
    assert parse_size("4") == (4, 4, 4)
    with pytest.raises(DataError, match="three positive"):
        parse_size("1, 2")


def test_unknown_size_and_axes(page: Any, viewer: Any, qtbot: Any) -> None:
    viewer.layers.remove("B")
    turned = viewer.add_image(grey(1).transpose(2, 1, 0), name="turned", rgb=False)
    choose(page, qtbot, target="turned")
    assert page.voxels["target"].message.text() == UNKNOWN and page.voxels["target"].line.text() == ""
    axes = page.voxels["target"].axes
    axes.setCurrentIndex(axes.findData("xyz"))
    axes.activated.emit(axes.currentIndex())
    settle(page, qtbot)
    assert turned.axis_labels == ("x", "y", "z") and ("target", "reorder") in fixes(page)
    page.set_voxel("target", (30.0, 8.0, 9.0))
    assert tuple(turned.scale) == (9, 8, 30)
    settle(page, qtbot)
    page.findings.buttons["reorder"].click()
    settle(page, qtbot)
    mended = page.session.layer("target")
    np.testing.assert_array_equal(mended.data, grey(1))
    assert tuple(mended.scale) == (30, 8, 9) and not turned.visible and fixes(page) == []


def test_labels_are_mended(page: Any, viewer: Any, qtbot: Any) -> None:
    floats = viewer.add_image(cells().astype(np.float32), name="floats", **{**NM, "translate": (0, 80, 0)})
    choose(page, qtbot, source="A", labels="floats")
    assert fixes(page) == [("labels", "integers"), ("labels", "align")]
    assert "integers" in page.classes.state.text()
    page.findings.buttons["integers"].click()
    settle(page, qtbot)
    labels = page.session.layer("labels")
    assert isinstance(labels, Labels) and not labels.editable and labels is not floats
    np.testing.assert_array_equal(labels.data, cells())
    assert page.session.classes == {"class 3": (3,), "class 7": (7,)}
    assert fixes(page) == [("labels", "align")]
    page.findings.buttons["align"].click()
    settle(page, qtbot)
    np.testing.assert_array_equal(labels.translate, viewer.layers["A"].translate)
    assert fixes(page) == []
    floats.data = floats.data + 0.5
    page.rows["labels"].choice.choose(floats)
    settle(page, qtbot)
    page.findings.buttons["integers"].click()
    settle(page, qtbot)
    assert page.findings.state.is_error and "no whole number" in page.findings.state.text()
    assert page.session.layer("labels") is floats


def test_images_are_mended(page: Any, viewer: Any, qtbot: Any) -> None:
    inverted = viewer.add_image(grey(2, dark=False), name="bright", **NM)
    choose(page, qtbot, source="A", target="bright")
    assert fixes(page) == [("target", "invert")]
    page.findings.buttons["invert"].click()
    settle(page, qtbot)
    np.testing.assert_array_equal(page.session.layer("target").data, 255 - inverted.data)
    assert fixes(page) == []
    colours = np.repeat(grey(3)[..., None], 3, axis=3)
    viewer.add_image(colours, name="colours", rgb=True, **NM)
    choose(page, qtbot, target="colours")
    assert fixes(page) == [("target", "grey")]
    page.findings.buttons["grey"].click()
    settle(page, qtbot)
    np.testing.assert_array_equal(page.session.layer("target").data, grey(3))
    series = np.stack([grey(4), grey(5)])
    viewer.add_image(series, name="series")
    viewer.dims.set_current_step(0, 1)
    choose(page, qtbot, target="series")
    assert ("target", "frame") in fixes(page)
    page.findings.buttons["frame"].click()
    settle(page, qtbot)
    np.testing.assert_array_equal(page.session.layer("target").data, grey(5))


def drop(page: Any, role: str, *paths: Path) -> None:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    page.rows[role].dropEvent(QDropEvent(QPointF(1, 1), Qt.DropAction.CopyAction, mime, buttons, keys))


def test_files_are_dropped_and_come_back_with_the_project(page: Any, viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    Volume.from_array(grey(0), voxel_nm=(30, 8, 8)).save(tmp_path / "raw.tif")
    Volume.from_array(cells()).save(tmp_path / "cells.zarr")
    drop(page, "source", tmp_path / "raw.tif")
    qtbot.waitUntil(lambda: page.rows["source"].layer is not None, timeout=LONG_MS)
    raw = viewer.layers["raw"]
    assert not isinstance(raw.data, np.ndarray), "images are opened lazily"
    assert tuple(raw.scale) == (30, 8, 8) and raw.axis_labels == ("z", "y", "x")
    drop(page, "labels", tmp_path / "cells.zarr")
    qtbot.waitUntil(lambda: page.rows["labels"].layer is not None, timeout=LONG_MS)
    settle(page, qtbot)
    assert page.session.classes == {"class 3": (3,), "class 7": (7,)}
    page.set_voxel("source", (40.0, 5.0, 5.0))
    page.classes.table.item(0, 1).setText("mito")
    page.rows["labels"].lock.setChecked(False)
    drop(page, "target", tmp_path / "raw.tif", tmp_path / "cells.zarr")
    assert "2 files were dropped" in page.rows["target"].message.text()
    drop(page, "target", tmp_path / "gone.tif")
    qtbot.waitUntil(lambda: "does not exist" in page.rows["target"].message.text(), timeout=LONG_MS)

    page.project.open(tmp_path / "work")
    project = page.session.project
    assert project.folder == tmp_path / "work" and "Project work" in page.project.state.text()
    project.pages.set("data", page.memo())
    page.project.open(tmp_path)
    assert page.project.state.is_error and "not empty" in page.project.state.text()
    assert page.session.project is project

    viewer.layers.clear()
    settle(page, qtbot)
    assert page.session.classes == {}
    page.restore(project.pages.get("data"))
    qtbot.waitUntil(lambda: {"raw", "cells"} <= {layer.name for layer in viewer.layers}, timeout=LONG_MS)
    settle(page, qtbot)
    assert tuple(viewer.layers["raw"].scale) == (40, 5, 5) and page.session.voxel == {"source": (40, 5, 5)}
    assert page.session.classes == {"mito": (3,), "class 7": (7,)}
    assert viewer.layers["cells"].editable and not page.rows["labels"].lock.isChecked()
    memo = page.memo()
    memo["roles"] = {"target": {"name": "lost", "path": str(tmp_path / "lost.tif"), "locked": True}}
    page.restore(memo)
    assert "lost.tif is not there" in page.rows["target"].message.text()
    project.close()


def test_a_file_that_says_no_voxel_size(page: Any, viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer.layers.clear()
    for name, data in (("plain", grey(0)), ("marks", cells())):
        Volume.from_array(data).save(tmp_path / f"{name}.zarr")
    drop(page, "source", tmp_path / "plain.zarr")
    drop(page, "labels", tmp_path / "marks.zarr")
    qtbot.waitUntil(lambda: None not in (page.rows["source"].layer, page.rows["labels"].layer), timeout=LONG_MS)
    settle(page, qtbot)
    voxel = page.voxels["source"]
    assert voxel.message.text() == UNKNOWN and voxel.line.text() == "" and page.session.voxel == {}
    assert any("size of plain is unknown" in text for text in page.findings.texts())
    qtbot.keyClicks(voxel.line, "30, 8, 8")
    qtbot.keyClick(voxel.line, Qt.Key.Key_Return)
    settle(page, qtbot)
    for name in ("plain", "marks"):
        assert tuple(viewer.layers[name].scale) == (30, 8, 8)
        assert [str(unit) for unit in viewer.layers[name].units] == ["nanometer"] * 3
    assert page.session.voxel == {"source": (30, 8, 8)} and not voxel.message.text()
    assert page.findings.found == []


def held_by(folder: Path, pid: int, host: str) -> None:
    (folder / "project.lock").write_text(json.dumps({"pid": pid, "host": host, "since": 1.7e9, "token": "theirs"}))


def test_a_project_that_another_program_holds(page: Any, tmp_path: Path, monkeypatch: Any) -> None:
    folder, row, asked = tmp_path / "p", page.project, []
    Project.create(folder).close()
    held_by(folder, 7, "microscope-pc")
    assert not row.take_button.isVisibleTo(row)
    row.open(folder)
    assert "process 7 on microscope-pc since 2023-11-1" in row.state.text() and page.session.project is None
    assert row.take_button.isVisibleTo(row) and row.take_button.text() == "Open it here"

    answer = False
    monkeypatch.setattr(project_row, "ask", lambda _parent, text: (asked.append(text), answer)[1])
    row.take_button.click()
    assert page.session.project is None and "may still be running" in asked[-1]
    assert json.loads((folder / "project.lock").read_text())["token"] == "theirs", "No means no"
    answer = True
    row.take_button.click()
    project = page.session.project
    assert project.folder == folder and project.lock().held and not row.take_button.isVisibleTo(row)
    row.open(folder)
    assert "this program itself" in row.state.text() and not row.take_button.isVisibleTo(row)
    project.close()

    page.session.set_project(None)
    held_by(folder, os.getppid(), socket.gethostname())
    row.open(folder)
    assert "is running" in row.state.text()
    row.take_button.click()
    assert "still running" in asked[-1] and page.session.project.lock().held
    page.session.project.close()
    page.session.set_project(None)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    held_by(folder, child.pid, socket.gethostname())
    row.open(folder)
    assert page.session.project.lock().held, "a program that is gone holds nothing"
    page.session.project.close()


def test_the_copied_call_finds_the_same(page: Any, viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    choose(page, qtbot, source="A", labels="A labels", target="B")
    page.copy_python()
    assert page.copied.is_error and "No file holds the layer 'A' as it is now" in page.copied.text()
    viewer.layers["B"].data = 255 - viewer.layers["B"].data
    for name in ("A", "A labels", "B"):
        layer = viewer.layers[name]
        Volume.from_array(layer.data, voxel_nm=(30, 8, 8)).save(tmp_path / f"{name}.tif")
        layer.metadata = {"path": str(tmp_path / f"{name}.tif")}
    settle(page, qtbot)
    name, config = page.call()
    assert name == "check"
    shown = [finding.text for finding in page.findings.found]
    assert [finding.text for finding in run(em.check(config)).findings] == shown != []


def test_a_closed_page_adds_no_layer_that_waited_for_its_turn(page: Any, viewer: Any, qtbot: Any) -> None:
    there = list(viewer.layers)
    page.rows["target"].turns.later(lambda: viewer.add_image(grey(1)))
    page.close_jobs()
    qtbot.wait(50)
    assert list(viewer.layers) == there
