"""The page that scores a segmentation, in a real viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QPoint, Qt

import napari_em_da as em
from napari_em_da._napari.evaluate_page import EvaluatePage
from napari_em_da._napari.session import Session
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.jobs import run
from napari_em_da.volume import Volume

PLACE: dict[str, Any] = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}
LONG_MS = 60_000


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    """A square of class 7, found too large in the last sections; section 1 is not annotated."""
    viewer = make_napari_viewer()
    truth, guess = np.zeros((5, 24, 32), np.uint8), np.zeros((5, 24, 32), np.uint8)
    truth[:, 4:12, 4:12], guess[:, 4:12, 4:12] = 7, 7
    guess[3:, 4:12, 12:20] = 7
    guess[4, 4:12, 20:28] = 7
    truth[1] = 255
    viewer.add_labels(guess, name="guess", features={"index": [0, 7], "class": ["background", "mito"]}, **PLACE)
    viewer.add_labels(truth, name="truth", **PLACE)
    return viewer


@pytest.fixture
def page(viewer: Any, qtbot: Any) -> Any:
    session = Session(viewer)
    session.assign("prediction", viewer.layers["guess"])
    session.assign("truth", viewer.layers["truth"])
    page = EvaluatePage(viewer, session)
    viewer.window.add_dock_widget(page, name="Evaluate")
    qtbot.waitUntil(lambda: bool(page.metrics.docs), timeout=LONG_MS)
    yield page
    page.close_jobs()
    qtbot.waitUntil(lambda: not any(r.running for r in page._runners), timeout=LONG_MS)


def score(page: Any, qtbot: Any) -> str:
    page.panel.buttons["Score"].click()
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    return str(page.panel.message.text())


IOU = [1.0, np.nan, 1.0, 1 / 2, 1 / 3]


def test_scores_table_and_curve(page: Any, viewer: Any, qtbot: Any) -> None:
    assert page.metrics.names() == ("iou", "dice", "precision", "recall")
    assert page.about.read().classes == {"mito": (7,)}, "named as the segmentation names them"
    assert score(page, qtbot) == ""
    assert page.table.value("iou/mito") == f"{4 * 64 / (64 * (1 + 1 + 2 + 3)):.4g}"
    assert page.table.value("recall/mito") == "1"
    item = page.table.topLevelItem(0)
    assert item.text(2) == "higher" and "Intersection over union" in item.toolTip(0)
    np.testing.assert_allclose(page._scored.sections["iou/mito"], IOU)
    page._show_curve("iou/mito")
    assert page.curve.series["iou/mito"] == [(z, pytest.approx(v)) for z, v in enumerate(IOU) if not np.isnan(v)]
    assert page.curve.isVisibleTo(page)

    page.curve.resize(300, 110)
    area = page.curve._area()
    for z in (0, 3, 4):
        x = area.left() + area.width() * z / 4
        assert page.curve.section_at(x) == z
        qtbot.mouseClick(page.curve, Qt.MouseButton.LeftButton, pos=QPoint(round(x), 60))
        assert viewer.dims.current_step[0] == z
    assert page.curve.section_at(area.left() + area.width() / 4 + 2) in (0, 2), "a section without a score is passed"


def test_undefined_scores_say_why(page: Any, qtbot: Any) -> None:
    page.about.editors["classes"].set({"mito": (7,), "golgi": (9,)})
    score(page, qtbot)
    assert page.table.value("iou/golgi") == "–"
    found = page.table.findItems("no voxel of it", Qt.MatchFlag.MatchContains | Qt.MatchFlag.MatchRecursive, 0)
    assert found and "golgi" in found[0].text(0)


def test_the_copied_call_gives_the_same_scores(page: Any, viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No file holds the layer 'guess'"):
        page.call()
    for name in ("guess", "truth"):
        layer = viewer.layers[name]
        Volume.from_array(layer.data, voxel_nm=(30, 8, 8)).save(tmp_path / f"{name}.tif")
        layer.metadata = {"path": str(tmp_path / f"{name}.tif")}
    score(page, qtbot)
    name, config = page.call()
    assert name == "evaluate"
    assert run(em.evaluate(config)).scores == pytest.approx(dict(page._scored.scores), nan_ok=True)


def test_kinds_bring_their_scores(page: Any, qtbot: Any) -> None:
    page.kind.setCurrentIndex(page.kind.findData("instances"))
    assert set(page.metrics.names()) == {"pq", "f1", "vi_split", "vi_merge", "arand"}
    assert page.about.read().ignore_label is None
    assert page.buttons["Splits and merges"].isEnabled()
    page.about.editors["ignore_label"].set(255)
    score(page, qtbot)
    assert page.table.value("vi_split") == "0"
    item = next(page.table.topLevelItem(i) for i in range(5) if page.table.topLevelItem(i).text(0) == "arand")
    assert item.text(2) == "lower"
    page.metrics.tick(())
    assert "Tick at least one score" in score(page, qtbot)


def test_maps_of_errors(page: Any, viewer: Any, qtbot: Any) -> None:
    assert not page.buttons["Splits and merges"].isEnabled(), "of classes there are none"
    shown = []
    for _ in range(2):
        page.buttons["Hits and misses"].click()
        qtbot.waitUntil(lambda: "guess agreement" in viewer.layers and not page.mapper.running, timeout=LONG_MS)
        shown.append(viewer.layers["guess agreement"])
    assert shown[0] is shown[1], "napari takes long to remove a layer"
    guess, truth = viewer.layers["guess"].data, viewer.layers["truth"].data
    expected = np.where((truth == 7) & (guess == 7), 1, np.where((truth == 0) & (guess == 7), 3, 0))
    expected[truth == 255] = 0
    layer = viewer.layers["guess agreement"]
    np.testing.assert_array_equal(layer.data, expected)
    assert sum("agreement" in item.name for item in viewer.layers) == 1, "computed again, not one more"
    np.testing.assert_allclose(layer.extent.world, viewer.layers["truth"].extent.world)
    page.kind.setCurrentIndex(page.kind.findData("instances"))
    page.buttons["Splits and merges"].click()
    qtbot.waitUntil(lambda: "guess splits and merges" in viewer.layers, timeout=LONG_MS)


def test_export(page: Any, qtbot: Any, tmp_path: Path) -> None:
    page.export(tmp_path)
    assert "Press Score first" in page.state.text() and not list(tmp_path.iterdir())
    score(page, qtbot)
    page.export(tmp_path)
    qtbot.waitUntil(lambda: "Exported to" in page.state.text(), timeout=LONG_MS)
    saved = json.loads((tmp_path / "evaluation" / "scores.json").read_text())
    assert saved["scores"]["iou/mito"] == pytest.approx(4 / 7)
    assert saved["sections"]["iou/mito"][1] is None
    assert (tmp_path / "evaluation" / "sections-classes.png").stat().st_size > 1000
    page.export(tmp_path / "evaluation" / "scores.json")
    qtbot.waitUntil(lambda: "cannot be made" in page.state.text(), timeout=LONG_MS)


def test_layers_that_do_not_fit_are_refused_in_words(page: Any, viewer: Any, qtbot: Any) -> None:
    shifted = viewer.add_labels(viewer.layers["truth"].data, name="shifted", scale=PLACE["scale"], units=("nm",) * 3)
    page.truth.choose(shifted)
    assert "is shifted by 0 x 2 x 0 pixels" in score(page, qtbot) and page.panel.message.is_error
    small = viewer.add_labels(np.zeros((5, 4, 4), np.uint8), name="small", **PLACE)
    page.truth.choose(small)
    assert "has shape (5, 24, 32), but the ground truth 'small' (5, 4, 4)" in score(page, qtbot)
    coarse = {**PLACE, "scale": (30, 16, 16), "translate": (0, 32, 0)}
    page.truth.choose(viewer.add_labels(viewer.layers["truth"].data, name="coarse", **coarse))
    with pytest.raises(DataError, match="has voxels of 30 x 8 x 8 nm"):
        page.request()
    page.truth.choose(viewer.layers["guess"])
    assert "are the same layer" in page.need.text()
    page.buttons["Hits and misses"].click()
    assert "are the same layer" in page.state.text() and page.state.is_error


def test_layers_go_while_they_are_scored(page: Any, viewer: Any, qtbot: Any) -> None:
    page.panel.buttons["Score"].click()
    viewer.layers.remove("truth")
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    assert page.table.value("recall/mito") == "1", "what was taken at the start is scored"
    assert "Choose the ground truth" in page.need.text()
    page.go_to(3)
    viewer.layers["guess"].name = "renamed"
    assert page.prediction.currentText() == "renamed"
    assert page.session.layer("truth") is None


def test_cancel(page: Any, viewer: Any, qtbot: Any) -> None:
    page.panel.buttons["Score"].click()
    page.panel.cancel_button.click()
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    assert page.panel.message.text() in ("Cancelled.", "")


def test_probabilities_of_a_membrane_and_a_single_section(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    truth = np.zeros((24, 24), np.uint8)
    truth[:, 11:13] = 1
    viewer.add_image(truth.astype(np.float32) * 0.9, name="p")
    viewer.add_labels(truth, name="truth")
    session = Session(viewer)
    session.assign("prediction", viewer.layers["p"])
    session.assign("truth", viewer.layers["truth"])
    page = EvaluatePage(viewer, session)
    viewer.window.add_dock_widget(page)
    assert "holds float32 values" in score(page, qtbot)
    page.kind.setCurrentIndex(page.kind.findData("membrane"))
    assert score(page, qtbot) == ""
    assert page.table.value("vrand") == "1"
    assert not page.curve.isVisibleTo(page), "one section is no curve"
    page.close_jobs()
    qtbot.waitUntil(lambda: not any(r.running for r in page._runners), timeout=LONG_MS)


def test_state_is_kept(page: Any, viewer: Any, qtbot: Any) -> None:
    page.kind.setCurrentIndex(page.kind.findData("instances"))
    page.metrics.tick(("pq",))
    memo = json.loads(json.dumps(page.memo()))
    page.kind.setCurrentIndex(page.kind.findData(None))
    page.restore(memo)
    assert page.kind.currentData() == "instances" and page.metrics.names() == ("pq",)
