"""The page that refines a segmentation and measures its objects, in a real viewer."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("napari")
from qtpy.QtCore import Qt

import napari_em_da as em
from napari_em_da import layers
from napari_em_da._napari.chain_editor import Item
from napari_em_da._napari.objects_table import ObjectsModel, ObjectsTable
from napari_em_da._napari.refine_page import RefinePage
from napari_em_da.errors import ConfigError
from napari_em_da.jobs import run
from napari_em_da.layers.objects import Objects
from napari_em_da.volume import Volume
from napari_em_da.workflows.sidecar import write_sidecar

PLACE: dict[str, Any] = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}
LONG_MS = 60_000


@pytest.fixture
def viewer(make_napari_viewer: Any, tmp_path: Path) -> Any:
    """A segmentation of two blocks and a speck (7, mito), and the probabilities it came from."""
    viewer = make_napari_viewer()
    p = np.full((5, 32, 40), 0.1, np.float32)
    p[:, 4:14, 4:14], p[1:, 18:28, 20:36], p[2, 2, 30] = 0.9, 0.7, 0.8
    path = tmp_path / "p.tif"
    Volume.from_array(p, voxel_nm=(30, 8, 8)).save(path)
    write_sidecar(path, {"mito": (7,)}, "probabilities")
    labels = np.where(p > 0.5, 7, 0).astype(np.uint8)
    viewer.add_image(p, name="raw", **PLACE)
    viewer.add_labels(labels, name="seg", metadata={"probabilities": str(path)}, **PLACE)
    return viewer


@pytest.fixture
def page(viewer: Any, qtbot: Any) -> Any:
    page = RefinePage(viewer)
    viewer.window.add_dock_widget(page, name="Refine")
    yield page
    page.close_jobs()
    qtbot.waitUntil(lambda: not any(r.running for r in page._runners), timeout=LONG_MS)


def centre(viewer: Any) -> Any:
    return getattr(viewer, "scene", viewer).camera.center[1:]


def steps(page: Any, qtbot: Any, *items: Item) -> None:
    page.editor.show_items(items)
    qtbot.waitUntil(lambda: len(page.editor.items()) == len(items), timeout=LONG_MS)


def test_the_chain_is_what_the_editor_shows(page: Any, qtbot: Any, tmp_path: Path) -> None:
    editor = page.editor
    with pytest.raises(ConfigError, match="has no step"):
        editor.chain()
    steps(page, qtbot, Item("threshold", {}), Item("z_filter", {"radius": 2}))
    editor.add("components")
    qtbot.waitUntil(lambda: len(editor.items()) == 3, timeout=LONG_MS)
    assert [s.name for s in editor.chain().steps] == ["threshold", "z_filter", "components"]
    assert editor.chain().steps[1].options == {"radius": 2}
    editor.buttons["↑"].click()
    assert [i.name for i in editor.items()] == ["threshold", "components", "z_filter"]
    editor.buttons["↓"].click()
    editor.list.item(1).setCheckState(Qt.CheckState.Unchecked)
    assert [s.name for s in editor.chain().steps] == ["threshold", "components"]
    memo = editor.memo()
    editor.save(tmp_path / "chain.yaml")
    assert yaml.safe_load((tmp_path / "chain.yaml").read_text()) == {"steps": ["threshold", "components"]}
    editor.buttons["Remove"].click()
    assert [i.name for i in editor.items()] == ["threshold", "z_filter"]
    editor.load(tmp_path / "chain.yaml")
    qtbot.waitUntil(lambda: [i.name for i in editor.items()] == ["threshold", "components"], timeout=LONG_MS)
    editor.restore(memo)
    qtbot.waitUntil(lambda: len(editor.items()) == 3, timeout=LONG_MS)
    assert [(i.name, i.on) for i in editor.items()] == [("threshold", True), ("z_filter", False), ("components", True)]
    assert editor.items()[1].options["radius"] == 2
    (tmp_path / "bad.yaml").write_text("steps: [treshold]")
    editor.load(tmp_path / "bad.yaml")
    assert editor.state.is_error and "threshold" in editor.state.text(), "the nearest name is offered"
    assert len(editor.items()) == 3


def test_preview_follows_section_and_options_and_is_the_volume(
    page: Any, viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    assert page.probabilities.path == tmp_path / "p.tif", "found beside the segmentation"
    steps(page, qtbot, Item("threshold", {}))
    p = Volume.open(tmp_path / "p.tif").read()

    def shows(expected: Any) -> Any:
        def check() -> None:
            assert "refined preview" in viewer.layers
            np.testing.assert_array_equal(viewer.layers["refined preview"].data, expected)

        return check

    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(shows(np.where(p[2] > 0.5, 7, 0)), timeout=LONG_MS)
    shown = viewer.layers["refined preview"]
    viewer.dims.set_current_step(0, 0)
    qtbot.waitUntil(shows(np.where(p[0] > 0.5, 7, 0)), timeout=LONG_MS)
    page.editor._forms[0].editors["levels"].widget.setText("mito=0.75")
    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(shows(np.where(p[2] > 0.75, 7, 0)), timeout=LONG_MS)
    assert viewer.layers["refined preview"] is shown and shown.metadata["preview"]
    np.testing.assert_allclose(shown.translate, (16, 0))
    page.editor.add("z_filter", mode="veto")
    qtbot.waitUntil(lambda: len(page.editor.items()) == 2, timeout=LONG_MS)
    expected = np.where(p > 0.75, 7, 0)
    expected[2, 2, 30] = 0
    qtbot.waitUntil(shows(expected[2]), timeout=LONG_MS)
    assert "as in the volume" in page.state.text()

    page.panel.buttons["Apply to the volume"].click()
    assert "Choose the file to write" in page.panel.message.text()
    page.output.path = tmp_path / "out" / "refined.tif"
    name, config = page.call()
    page.panel.buttons["Apply to the volume"].click()
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    assert not page.panel.message.is_error, page.panel.message.text()
    refined = viewer.layers["seg refined"]
    np.testing.assert_array_equal(refined.data, expected)
    np.testing.assert_allclose(refined.extent.world, viewer.layers["seg"].extent.world)
    assert "refined preview" not in viewer.layers and not page.live.isChecked()
    assert page.objects.labels.layer is refined
    assert name == "postprocess"
    run(em.run_chain(config.model_copy(update={"output": tmp_path / "again.tif"})))
    np.testing.assert_array_equal(Volume.open(tmp_path / "again.tif").read(), expected)
    page.panel.buttons["Apply to the volume"].click()
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    assert "exists already" in page.panel.message.text(), "nothing is overwritten"


def test_what_is_wrong_is_said_on_the_page(page: Any, viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    steps(page, qtbot, Item("remove_small", {}))
    qtbot.waitUntil(lambda: "min_size_nm3" in page.state.text(), timeout=LONG_MS)
    steps(page, qtbot, Item("components", {}))
    qtbot.waitUntil(lambda: "takes labels, but would be given probabilities" in page.state.text(), timeout=LONG_MS)
    assert page.state.is_error and "refined preview" not in viewer.layers
    Volume.from_array(np.zeros((2, 4, 4), np.float32)).save(tmp_path / "other.tif")
    page.probabilities.path = tmp_path / "other.tif"
    qtbot.waitUntil(lambda: "choose the probabilities that were stored" in page.state.text(), timeout=LONG_MS)
    page.probabilities.path = None
    qtbot.waitUntil(
        lambda: "from sections" in page.state.text() or "in the volume" in page.state.text(), timeout=LONG_MS
    )
    with pytest.raises(ConfigError, match="Choose the file to write"):
        page.call()
    page.output.path = tmp_path / "x.tif"
    with pytest.raises(ConfigError, match="No file holds the layer 'seg'"):
        page.call()


def test_painting_and_removing_the_segmentation(page: Any, viewer: Any, qtbot: Any) -> None:
    page.probabilities.path = None
    steps(page, qtbot, Item("remove_small", {"sections": True, "min_size_nm2": 128.0}))
    seg = viewer.layers["seg"]
    viewer.dims.set_current_step(0, 2)

    def holds(count: int) -> Any:
        def check() -> None:
            assert "refined preview" in viewer.layers
            assert (viewer.layers["refined preview"].data > 0).sum() == count

        return check

    qtbot.waitUntil(holds(260), timeout=LONG_MS)  # without the speck
    seg.data_setitem((np.full(3, 2), np.full(3, 30), np.arange(3)), 7)
    qtbot.waitUntil(holds(263), timeout=LONG_MS)
    viewer.layers.remove(seg)
    qtbot.waitUntil(lambda: "refined preview" not in viewer.layers)
    assert "Choose a segmentation" in page.need.text()
    page.panel.buttons["Apply to the volume"].click()
    assert "Choose a segmentation to refine" in page.panel.message.text()


def test_a_single_section(make_napari_viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer = make_napari_viewer()
    labels = np.zeros((20, 24), np.uint8)
    labels[4:10, 4:10], labels[15, 15] = 1, 1
    viewer.add_labels(labels, name="flat", scale=(8, 8), units=("nm", "nm"))
    page = RefinePage(viewer)
    viewer.window.add_dock_widget(page)
    steps(page, qtbot, Item("remove_small", {"sections": True, "min_size_nm2": 128.0}), Item("components", {}))
    page.output.path = tmp_path / "flat.tif"
    page.panel.buttons["Apply to the volume"].click()
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    found = viewer.layers["flat refined"]
    assert found.data.shape == (20, 24) and found.data.sum() == 36
    page.objects.panel.buttons["Measure"].click()
    qtbot.waitUntil(lambda: page.objects.table.objects is not None, timeout=LONG_MS)
    page.objects.table.go_to(0)
    assert centre(viewer) == pytest.approx((6.5 * 8, 6.5 * 8))
    page.close_jobs()
    qtbot.waitUntil(lambda: not any(r.running for r in page._runners), timeout=LONG_MS)


@pytest.fixture
def table(viewer: Any, page: Any, qtbot: Any) -> Any:
    """The table of three objects: 3, 5 and 9."""
    ids = np.zeros((5, 32, 40), np.uint32)
    ids[0:2, 2:6, 2:8], ids[3, 20:30, 20:40], ids[4, 0, 0] = 5, 3, 9
    layer = viewer.add_labels(ids, name="ids", **PLACE)
    page.tabs.setCurrentWidget(page.objects)
    page.objects.labels.choose(layer)
    page.objects.panel.buttons["Measure"].click()
    qtbot.waitUntil(lambda: page.objects.table.objects is not None, timeout=LONG_MS)
    return page.objects.table


def test_table_holds_what_measure_layer_measures(table: Any, page: Any, viewer: Any) -> None:
    _, about, _ = layers.measure_layer(viewer.layers["ids"], columns=page.objects.columns())
    expected = about["features"]
    assert table.shown()["id"].tolist() == expected.pop("index").tolist() == [3, 5, 9]
    assert list(table.shown())[1:] == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(table.shown()[name], values)
    column = list(table.shown()).index("volume_nm3")
    model = table.model
    assert model.headerData(column, Qt.Orientation.Horizontal) == "volume (nm³)"
    assert model.data(model.index(0, column)) == f"{200 * 1920:.4g}"


def test_a_row_leads_to_its_object_and_back(table: Any, viewer: Any) -> None:
    layer = viewer.layers["ids"]
    table.view.selectRow(0)  # object 3, section 3
    assert viewer.dims.current_step[0] == 3 and layer.selected_label == 3
    assert centre(viewer) == pytest.approx((24.5 * 8 + 16, 29.5 * 8))
    layer.selected_label = 5
    assert table.view.currentIndex().row() == 1, "picked in the layer, chosen in the table"
    assert viewer.dims.current_step[0] == 3, "the viewer stays where the user picked"
    layer.selected_label = 77
    assert not table.view.selectionModel().hasSelection()
    viewer.layers["ids"].name = "renamed"
    table.view.selectRow(2)
    assert layer.selected_label == 9 and viewer.dims.current_step[0] == 4


def test_sort_filter_and_save(table: Any, page: Any, tmp_path: Path) -> None:
    column = list(table.shown()).index("voxels")
    table.view.sortByColumn(column, Qt.SortOrder.DescendingOrder)
    assert table.shown()["id"].tolist() == [3, 5, 9]
    table.view.sortByColumn(column, Qt.SortOrder.AscendingOrder)
    assert table.shown()["id"].tolist() == [9, 5, 3]
    table.filter.setText("voxels > 1")
    assert table.shown()["id"].tolist() == [5, 3] and table.count.text() == "2 of 3 objects"
    table.view.selectRow(0)
    assert page.viewer.layers["ids"].selected_label == 5
    table.filter.setText("voxles > 1")
    assert table.message.is_error and "voxels" in table.message.text()
    table.filter.setText("voxels > 1")
    table.save(tmp_path / "objects.csv")
    with (tmp_path / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["5", "3"]
    assert float(rows[0]["volume_nm3"]) == 48 * 1920


def test_measure_as_a_call(table: Any, page: Any, viewer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No file holds the layer 'ids'"):
        page.call()
    layer = viewer.layers["ids"]
    Volume.from_array(layer.data, voxel_nm=(30, 8, 8)).save(tmp_path / "ids.tif")
    layer.metadata = {"path": str(tmp_path / "ids.tif")}
    name, config = page.call()
    assert name == "measure"
    table.save(tmp_path / "shown.csv")
    run(em.measure(config))
    assert config.output.read_text() == (tmp_path / "shown.csv").read_text()


def test_the_table_says_when_it_is_out_of_date(table: Any, viewer: Any) -> None:
    viewer.layers["ids"].paint((2, 15, 15), 4)
    assert "measure again" in table.message.text()
    viewer.layers.remove("ids")
    assert table.model.rowCount() == 0 and "was removed" in table.message.text()


def test_descending_order_keeps_ties_in_order() -> None:
    model = ObjectsModel()
    model.show_table({"id": np.arange(1, 6), "n": np.array([2, 1, 2, 1, 3])}, np.arange(5))
    model.sort(1, Qt.SortOrder.DescendingOrder)
    assert (model.rows + 1).tolist() == [5, 1, 3, 2, 4]
    model.sort(1, Qt.SortOrder.AscendingOrder)
    assert (model.rows + 1).tolist() == [2, 4, 1, 3, 5]


def test_a_hundred_thousand_rows_are_not_copied(viewer: Any, qtbot: Any) -> None:
    count = 100_000
    rng = np.random.default_rng(0)
    columns = {"id": np.arange(1, count + 1), "volume_px3": rng.random(count)}
    columns |= {f"centroid_{a}_px": np.zeros(count) for a in "zyx"}
    table = ObjectsTable(viewer)
    qtbot.addWidget(table)
    table.show_objects(Objects(columns, "px", (1, 1, 1)), viewer.layers["seg"])
    table.filter.setText("volume < 0.5")
    kept = np.flatnonzero(columns["volume_px3"] < 0.5)
    assert table.model.rowCount() == len(kept)
    table.model.sort(1, Qt.SortOrder.AscendingOrder)
    np.testing.assert_array_equal(table.model.rows, kept[np.argsort(columns["volume_px3"][kept])])
    assert table.select(int(kept[7]) + 1) and table.model.rows[table.view.currentIndex().row()] == kept[7]
    table.clear()
