"""The Correct page in a real viewer: places, paint, operators with undo, rounds and the way back, ground truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
import torch
import zarr
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QWidget

import napari_em_da as em
from napari_em_da import layers
from napari_em_da._napari.correct_page import CorrectPage
from napari_em_da._napari.corrections_keys import KEYS
from napari_em_da._napari.operators import plane_of
from napari_em_da._napari.session import Session
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.project import Project
from napari_em_da.project.strokes import StrokeStore
from napari_em_da.volume import Volume

PLACE = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}
CLASSES = {"square": (7,), "mito": (3,)}
LONG_MS = 90_000


def tissue() -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((6, 48, 80), np.uint8)
    labels[:, 8:40, 8:40] = 7
    labels[:, 16:32, 48:72] = 3
    noise = np.random.default_rng(0).integers(0, 60, labels.shape)
    return (noise + 60 * (labels == 7) + 120 * (labels == 3)).astype(np.uint8), labels


def objects() -> np.ndarray:
    ids = np.zeros((6, 48, 80), np.uint16)
    ids[1:5, 4:20, 4:20] = 12
    ids[1:5, 4:20, 20:36] = 15
    ids[0:2, 24:44, 4:24] = 30
    ids[1, 30:34, 10:14] = 0
    ids[4, 24:44, 4:24] = 30
    return ids


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    image, labels = tissue()
    paths = []
    for name, data in (("image", image), ("labels", labels)):
        paths.append(Volume.from_array(data, voxel_nm=(30, 8, 8)).save(folder / f"{name}.tif"))
    training = em.TrainingConfig(steps=6, validate_every=3, checkpoint_every=3, precision="fp32", device="cpu")
    values = {
        "source": ({"image": paths[0], "labels": paths[1]},),
        "classes": CLASSES,
        "run": folder / "run",
        "network": {"options": {"features": 4, "levels": 2}},
        "sampling": {"patch_px": (1, 32, 32), "batch": 2, "validation_patches": 2, "threads": 0},
        "training": training,
    }
    em.run(em.train(em.TrainConfig(**values)))
    return folder / "run"


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    viewer = make_napari_viewer(ndisplay=2)
    viewer.add_image(tissue()[0], name="raw", **PLACE)
    return viewer


@pytest.fixture
def page(viewer: Any, run: Path, qtbot: Any) -> Iterator[CorrectPage]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    page = CorrectPage(viewer)
    viewer.window.add_dock_widget(page, name="Correct")
    page.run.path = run
    page.more.editors["precision"].set("fp32")
    page.more.editors["device"].set("cpu")
    page.more.editors["steps"].set(2)
    page.more.editors["batch"].set(2)
    yield page
    torch.set_num_threads(threads)
    page.close_jobs()
    qtbot.waitUntil(lambda: not any(runner.running for runner in page._runners), timeout=LONG_MS)


def idle(page: CorrectPage, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not any(runner.running for runner in page._runners), timeout=LONG_MS)


def press(page: CorrectPage, key: str) -> None:
    """Press a key of the page; a test window never has the focus that real keys need."""
    for shortcut in page._keys._shortcuts:
        if shortcut.key() == QKeySequence(key) and shortcut.isEnabled():
            shortcut.activated.emit()


def predict(page: CorrectPage, labels: np.ndarray | None = None) -> Any:
    layer = page.viewer.add_labels(tissue()[1] if labels is None else labels, name="predicted", **PLACE)
    page.labels.choose(layer)
    return layer


def stored(folder: Path) -> Path:
    """Save probabilities that are sure everywhere, but for two places."""
    foreground = np.zeros((6, 512, 512), np.float32)
    foreground[2, 300:400, 20:120] = 0.5
    foreground[4, 40:140, 300:400] = 0.45
    scores = np.stack([1 - foreground, foreground, np.zeros_like(foreground)], -1)
    return Volume.from_array(scores).save(folder / "scores.zarr")


def operate(page: CorrectPage, qtbot: Any, operator: str, *picks: tuple[int, int, int]) -> str:
    layer = page.operators.layer
    assert layer is not None
    for point in picks:
        data = np.asarray(layer.data[...])
        page.operators.pick(int(data[point[-data.ndim :]]), point)
    page.operators.buttons[operator].click()
    qtbot.waitUntil(lambda: not page.operators.runner.running, timeout=LONG_MS)
    return str(page.operators.message.text())


def test_places_are_walked_through_by_key_and_remembered(page: Any, viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    large = viewer.add_image(np.zeros((6, 512, 512), np.uint8), name="large", **PLACE)
    page.image.choose(large)
    page.probabilities.path = stored(tmp_path)
    page.places.find_button.click()
    idle(page, qtbot)
    table = page.places.table
    sections = [table.item(row, 1).text() for row in range(table.rowCount())]
    assert set(sections[:2]) == {"2", "4"}, page.places.message.text()
    assert "square" in table.item(0, 2).text()
    page._keys.enable(True)
    press(page, "N")
    first = page.places.places[0].box
    assert page.places.current == first and viewer.dims.current_step[0] == first[0]
    middle = large.data_to_world((first[0], first[1] + 127.5, first[2] + 127.5))
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], middle[1:], atol=8)
    qtbot.waitUntil(lambda: "suggestion" in viewer.layers, timeout=LONG_MS)
    frame = viewer.layers["suggestion"]
    corners, sides = np.moveaxis(np.asarray(frame.data), 1, 0)
    np.testing.assert_array_equal(corners + sides, np.roll(corners, -1, 0))
    assert corners[:, 0].tolist() == [first[0]] * 4
    assert corners[:, 1].min() == first[1] - 0.5 and corners[:, 1].max() == first[1] + first[3] - 0.5
    assert viewer.layers.selection.active is not frame
    press(page, "N")
    second = page.places.places[1].box
    assert page.places.current == second
    qtbot.waitUntil(lambda: page.places.frame.data[0, 0, 0] == second[0], timeout=LONG_MS)
    assert [layer.name for layer in viewer.layers].count("suggestion") == 1
    press(page, "Shift+N")
    assert page.places.current == first
    assert page.places.seen == [first, second]
    page.places.done_button.click()
    assert table.item(0, 0).text() == "✓" and page.places.current == second
    viewer.layers.remove("suggestion")
    page.places.step(-1)
    qtbot.waitUntil(lambda: "suggestion" in viewer.layers, timeout=LONG_MS)  # one that was removed comes back

    again = CorrectPage(viewer, page.session)
    qtbot.addWidget(again)
    again.restore(json.loads(json.dumps(page.memo())))
    assert again.places.seen == [first, second] and again.probabilities.path == tmp_path / "scores.zarr"
    again.close_jobs()
    page.places.find_button.click()
    idle(page, qtbot)
    assert not {place.box for place in page.places.places} & {first, second}, "what was seen never comes back"
    viewer.layers.remove("large")
    page.places.places = [SimpleNamespace(box=first)]
    page.places.go(0)
    assert "removed" in page.places.message.text()


def test_without_stored_probabilities_the_section_in_view_is_predicted(page: Any, viewer: Any, qtbot: Any) -> None:
    viewer.dims.set_current_step(0, 3)
    page.places.find_button.click()
    idle(page, qtbot)
    assert not page.places.message.is_error, page.places.message.text()
    assert {place.section for place in page.places.places} <= {3}


def test_keys_are_given_back(page: Any) -> None:
    calls: list[str] = []
    page.places.step = lambda by: calls.append(f"step {by}")
    page._keys.enable(True)
    page.hide()
    page.hideEvent(None)
    press(page, "N")
    assert not calls
    page.showEvent(None)
    press(page, "N")
    assert calls == ["step 1"]
    assert {QKeySequence(key).toString() for key in KEYS} == {s.key().toString() for s in page._keys._shortcuts}
    page.close_jobs()
    press(page, "N")
    assert calls == ["step 1"]


def test_painting_starts_empty_and_takes_the_prediction(page: Any, viewer: Any, qtbot: Any) -> None:
    predicted = predict(page)
    page.paint.choose(7)
    assert "corrections layer first" in page.paint.message.text()
    page.paint.new_button.click()
    paint = viewer.layers["corrections"]
    assert page.session.layer("corrections") is paint and page.paint_layer.layer is paint
    assert paint.data.shape == (6, 48, 80) and (paint.data == 255).all() and paint.data.dtype == np.uint8
    np.testing.assert_allclose(paint.extent.world, viewer.layers["raw"].extent.world)
    assert [button.text() for button in page.paint.buttons.values()] == ["background", "square", "mito", "erase"]
    colours = layers.class_colours(CLASSES)
    for value, colour in ((7, colours[7]), (3, colours[3])):
        shown = (np.asarray(paint.colormap.color_dict[value][:3]) * 255).round().astype(int)
        assert "#" + bytes(shown.tolist()).hex() == colour
    assert paint.colormap.color_dict[255][3] == 0

    page.paint.buttons[3].click()
    assert (paint.selected_label, paint.mode, viewer.layers.selection.active) == (3, "paint", paint)
    page.paint.next_class()
    assert paint.selected_label == 255
    page.paint.next_class()
    assert paint.selected_label == 0

    viewer.dims.set_current_step(0, 2)
    page.places.image, page.places.current = page.image.layer, (2, 10, 20, 16, 32)
    page.paint.take_button.click()
    expected = np.full((6, 48, 80), 255, np.uint8)
    expected[2, 10:26, 20:52] = predicted.data[2, 10:26, 20:52]
    np.testing.assert_array_equal(paint.data, expected)
    paint.undo()
    assert (paint.data == 255).all(), "napari's own undo knows of it"
    viewer.dims.set_current_step(0, 4)
    page.take()
    assert (paint.data[4] == predicted.data[4]).all() and (paint.data[:4] == 255).all(), "elsewhere: what is in view"

    predicted.data = np.full((6, 48, 80), 9, np.uint8)
    page.take()
    assert page.paint.message.is_error and "'predicted' holds 9" in page.paint.message.text()
    viewer.layers.remove(predicted)
    assert not page.paint.take_button.isEnabled()
    viewer.layers.remove(paint)
    assert page.paint.layer is None
    page.panel.buttons["Learn from my corrections"].click()
    assert "Nothing is painted yet" in page.panel.message.text()


MERGED = objects()
MERGED[MERGED == 15] = 12
FILLED = objects()
FILLED[1, 30:34, 10:14] = 30
DELETED = objects()
DELETED[DELETED == 15] = 0
LINED = objects()
LINED[1:5, 4:20, 13:20][LINED[1:5, 4:20, 13:20] == 12] = 31
BETWEEN = objects()
BETWEEN[2:4, 24:44, 4:24] = 30
CUTS = {
    "merge": (MERGED, [(2, 8, 8), (2, 8, 30)]),
    "fill": (FILLED, [(0, 30, 10)]),
    "delete": (DELETED, [(2, 8, 30)]),
    "split_by_plane": (LINED, [(2, 4, 12), (2, 19, 12)]),
    "split_by_seeds": (None, [(2, 10, 5), (2, 10, 18)]),
    "interpolate": (None, [(0, 26, 6)]),
}


@pytest.mark.parametrize("kind", ["numpy", "zarr", "edited"])
def test_operators_are_undone_byte_by_byte(page: Any, viewer: Any, qtbot: Any, tmp_path: Path, kind: str) -> None:
    before = objects()
    data: Any = before.copy()
    if kind == "zarr":
        data = zarr.create_array(tmp_path / "ids.zarr", shape=before.shape, chunks=(2, 16, 16), dtype=before.dtype)
        data[...] = before
    elif kind == "edited":
        store = StrokeStore.create(tmp_path / "ids.zarr", before, edits_only=True)
        data = store.load()
    layer = viewer.add_labels(data, name="ids", **PLACE)
    page.operators.labels.choose(layer)
    assert not page.operators.undo_button.isEnabled()
    told: list[str] = []
    layer.events.data.connect(lambda _event: told.append("data"))
    for operator, (expected, picks) in CUTS.items():
        text = operate(page, qtbot, operator, *picks)
        assert "voxels" in text, text
        changed = np.asarray(layer.data[...])
        assert not np.array_equal(changed, before)
        if expected is not None:
            np.testing.assert_array_equal(changed, expected)
        if operator == "split_by_seeds":
            assert changed[2, 10, 5] == 12 and changed[2, 10, 18] == 31
            np.testing.assert_array_equal(changed > 0, before > 0)
        if operator == "interpolate":
            assert (changed[2:4, 30, 6] == 30).all() and not changed[5].any()
        assert told and not page.operators.picks
        page.operators.undo_button.click()
        assert np.asarray(layer.data[...]).tobytes() == before.tobytes()
        page.operators.redo_button.click()
        assert np.asarray(layer.data[...]).tobytes() == changed.tobytes()
        page.operators.undo_button.click()
        assert np.asarray(layer.data[...]).tobytes() == before.tobytes()
        assert np.asarray(layer.data[...]).dtype == np.uint16
    assert not page.operators.undo_button.isEnabled() and page.operators.redo_button.isEnabled()


def test_the_plane_of_two_clicks_is_perpendicular_in_space() -> None:
    point, normal = plane_of([(1, 0, 0), (3, 10, 20)], [30.0, 4.0, 8.0])
    assert point == (1, 0, 0)
    along = np.array([0, 10 * 4, 20 * 8])
    assert normal[0] == 0 and np.dot(along, normal) == 0 and any(normal)
    with pytest.raises(ConfigError, match="two places"):
        plane_of([(1, 5, 5), (2, 5, 5)], [1, 1, 1])


def test_operators_refuse_in_words(page: Any, viewer: Any, qtbot: Any) -> None:
    tool = page.operators
    tool.buttons["merge"].click()
    assert "Choose the labels layer" in tool.message.text()
    layer = viewer.add_labels(objects(), name="ids", **PLACE)
    tool.buttons["merge"].click()
    assert "Pick an object first" in tool.message.text()
    assert "only one is picked" in operate(page, qtbot, "merge", (2, 8, 8))
    tool.forget()
    assert "in two places" in operate(page, qtbot, "split_by_seeds", (2, 8, 8))
    layer.editable = False
    assert "'ids' is locked" in operate(page, qtbot, "delete")
    layer.editable = True
    assert "Delete 12" in operate(page, qtbot, "delete")
    layer.data[2, 8, 8] = 77
    tool.undo_button.click()
    assert tool.message.is_error and "changed by something else" in tool.message.text()
    assert layer.data[2, 8, 8] == 77
    layer.name = "renamed"
    assert tool.labels.currentText() == "renamed"
    tool.pick(15, (2, 8, 30))
    tool.buttons["delete"].click()
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: not tool.runner.running, timeout=LONG_MS)
    assert "removed meanwhile" in tool.message.text() and (layer.data == 15).any()
    for data, why in (
        (np.zeros((2, 3, 4, 5), np.int32), "has the shape"),
        (layers.GrowingLabels((6, 48, 80), CLASSES), "still being made"),
    ):
        with pytest.raises(DataError, match=why):
            layers.edit_labels("fill", SimpleNamespace(data=data, name="other"), 1)
    with pytest.raises(ConfigError, match="no operator"):
        layers.edit_labels("melt", layer, 1)


def test_a_click_picks_and_the_mouse_is_given_back(page: Any, viewer: Any) -> None:
    layer = viewer.add_labels(objects(), name="ids", **PLACE)
    count = len(viewer.mouse_drag_callbacks)
    page.operators.pick_button.setChecked(True)
    assert len(viewer.mouse_drag_callbacks) == count + 1
    for point in ((2, 8, 8), (2, 40, 70), (2, 8, 30)):
        viewer.mouse_drag_callbacks[-1](viewer, SimpleNamespace(position=layer.data_to_world(point), button=1))
    assert page.operators.picks == [(12, (2, 8, 8)), (15, (2, 8, 30))], "the background is no object"
    assert page.operators.message.text() == "Picked: 12, 15"
    page.hide()
    page.operators.release()
    assert len(viewer.mouse_drag_callbacks) == count


def test_a_section_alone_can_be_edited(page: Any, viewer: Any, qtbot: Any) -> None:
    flat = objects()[2]
    layer = viewer.add_labels(flat.copy(), name="flat", scale=(8, 8))
    page.operators.labels.choose(layer)
    operate(page, qtbot, "merge", (0, 8, 8), (0, 8, 30))
    np.testing.assert_array_equal(layer.data, MERGED[2])
    page.operators.undo_button.click()
    assert layer.data.tobytes() == flat.tobytes()


def test_rounds_are_learned_shown_and_taken_back(page: Any, viewer: Any, qtbot: Any, run: Path, tmp_path: Path) -> None:
    page.session.set_run("trained", run)
    older = predict(page)
    learn = page.panel.buttons["Learn from my corrections"]
    page.paint.new_button.click()
    paint = viewer.layers["corrections"]
    viewer.dims.set_current_step(0, 3)
    learn.click()
    idle(page, qtbot)
    assert page.panel.message.is_error and "no painted voxel" in page.panel.message.text()
    assert page.session.adapted is None and not page.rounds.rows

    paint.data[3, 10:20, 10:20] = 7
    paint.data[3, 20:28, 50:60] = 3
    learn.click()
    idle(page, qtbot)
    text = page.panel.message.text()
    first = page.session.adapted
    assert first is not None and (first / "best.safetensors").is_file() and first.parent.parent == run, text
    info = json.loads((first / "run.json").read_text())["result"]
    right = [f"{100 * share:.0f}" for share in info["accuracy"]]
    changed = f"Round 1: {100 * info['changed']['all']:.1f} % of the view changed."
    assert text.startswith(f"{changed} Right on your paint: {right[0]} → {right[1]} %. IoU on the labelled source")
    assert f"on the labelled source {info['source_iou'][0]:.2f} → {info['source_iou'][1]:.2f}" in text
    assert info["view"] == [3, 0, 0, 80]
    assert page.run.path == first and [path for path, _ in page.rounds.rows] == [run, first]
    shown = page.session.layer("prediction")
    assert shown is not older and not older.visible and shown.visible
    output = tmp_path / "whole.tif"
    em.run(layers.segment(viewer.layers["raw"], first, output, precision="fp32", device="cpu"))
    np.testing.assert_array_equal(shown.data[3], Volume.open(output).read()[3])
    assert list(viewer.layers).index(paint) > list(viewer.layers).index(shown), "paint stays on top"

    paint.data[4, 10:20, 10:20] = 7
    viewer.layers["raw"].name = "renamed"
    learn.click()
    idle(page, qtbot)
    second = page.session.adapted
    assert second is not None and second.parent == first.parent and second != first
    assert page.panel.message.text().startswith("Round 2")
    page.rounds.list.setCurrentRow(1)
    assert page.rounds.button.text() == "Back to round 1"
    page.rounds.button.click()
    idle(page, qtbot)
    assert page.session.adapted == first and page.run.path == first and second.is_dir()
    assert f"as {first.name} segments it" in page.view.message.text()
    page.rounds.list.setCurrentRow(0)
    page.rounds.button.click()
    assert page.session.adapted is None and page.run.path == run
    idle(page, qtbot)

    with pytest.raises(ConfigError, match="No file holds the image 'renamed' as it is now"):
        page.call()


def test_the_copied_call_learns_the_same(page: Any, viewer: Any, qtbot: Any, run: Path, tmp_path: Path) -> None:
    path = Volume.from_array(tissue()[0], voxel_nm=(30, 8, 8)).save(tmp_path / "image.tif")
    (opened,) = viewer.open(path, plugin="napari")
    opened.scale, opened.units = PLACE["scale"], PLACE["units"]
    page.image.choose(opened)
    with pytest.raises(ConfigError, match="Nothing is painted yet"):
        page.call()
    page.paint.new_button.click()
    viewer.layers["corrections"].data[2, 4:12, 4:12] = 7
    page.copy_command()
    assert not page.copied.is_error, page.copied.text()
    name, config = page.call()
    assert (name, config.image, config.out) == ("correct", path, None)
    assert config.corrections.is_relative_to(run), "paint of no file lies beside the round"
    page.panel.buttons["Learn from my corrections"].click()
    idle(page, qtbot)
    assert page.run.path != run, page.panel.message.text()
    again = em.run(em.correct(config))
    assert again.run != page.run.path
    for name in ("best", "last"):
        window, copied = (folder / f"{name}.safetensors" for folder in (page.run.path, again.run))
        assert window.read_bytes() == copied.read_bytes()


def test_a_round_is_cancelled_and_survives_the_removal_of_its_layers(
    page: Any, viewer: Any, qtbot: Any, run: Path
) -> None:
    page.paint.new_button.click()
    viewer.layers["corrections"].data[2, 4:12, 4:12] = 7
    page.more.editors["steps"].set(500)
    original = page.panel._on_event

    def stop(event: Any) -> None:
        original(event)
        viewer.layers.clear()
        page.panel.cancel_button.click()

    page.panel._on_event = stop
    page.panel.buttons["Learn from my corrections"].click()
    idle(page, qtbot)
    assert page.panel.message.text() == "Cancelled." and page.session.adapted is None
    assert "Choose the image" in str(page.missing())


def test_ground_truth_is_written_grows_and_is_locked(page: Any, viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    predicted = predict(page)
    page.accept.button.click()
    assert "Choose the file to write" in page.accept.message.text()
    page.paint.new_button.click()
    paint = viewer.layers["corrections"]
    paint.data[2, 0:4, 0:4] = 3
    paint.data[3, 0:4, 0:4] = 3
    viewer.dims.set_current_step(0, 2)
    page.places.image, page.places.current = page.image.layer, (2, 0, 0, 20, 20)
    page.accept.output.path = tmp_path / "truth.tif"
    page.accept.button.click()
    idle(page, qtbot)
    expected = np.full((6, 48, 80), 255, np.uint8)
    expected[2, :20, :20] = predicted.data[2, :20, :20]
    expected[2, 0:4, 0:4] = 3
    saved = Volume.open(tmp_path / "truth.tif")
    np.testing.assert_array_equal(saved.read(), expected)
    assert saved.voxel_nm == (30, 8, 8)
    truth = page.session.layer("truth")
    assert truth is viewer.layers["ground truth"] and not truth.editable
    np.testing.assert_array_equal(np.asarray(truth.data), expected)

    page.accept.output.path = tmp_path / "truth.tif"
    page.accept.button.click()
    assert page.accept.message.is_error and "exists already" in page.accept.message.text()

    page.session.set_project(Project.create(tmp_path / "project"))
    page.accept.output.path = None
    page.accept.scope.setCurrentIndex(page.accept.scope.findData("section"))
    viewer.dims.set_current_step(0, 3)
    page.accept.button.click()
    idle(page, qtbot)
    expected[3] = predicted.data[3]
    expected[3, 0:4, 0:4] = 3
    assert page.session.layer("truth") is truth and not truth.editable, "it grows in the same layer"
    np.testing.assert_array_equal(np.asarray(truth.data), expected)
    path = Path(truth.metadata["path"])
    assert path.parent == tmp_path / "project" / "exports"
    np.testing.assert_array_equal(Volume.open(path).read(), expected)
    page.session.project.close()

    growing = layers.GrowingLabels((6, 48, 80), CLASSES)
    growing.put((slice(0, 1), slice(0, 48), slice(0, 80)), np.zeros((1, 48, 80), np.uint8))
    half = SimpleNamespace(data=growing, name="half")
    with pytest.raises(DataError, match="Not all of this was segmented in 'half'"):
        layers.accept(half, None, tmp_path / "no.tif")
    em.run(layers.accept(half, None, tmp_path / "one.tif", box=(slice(0, 1), slice(0, 48), slice(0, 80))))
    assert (Volume.open(tmp_path / "one.tif").read()[1:] == 255).all()


def test_the_page_follows_the_session(viewer: Any, qtbot: Any, run: Path, tmp_path: Path) -> None:
    session = Session(viewer)
    page = CorrectPage(viewer, session)
    qtbot.addWidget(page)
    assert "Choose the image" in page.need.text()
    session.assign("target", viewer.layers["raw"])
    assert page.image.layer is viewer.layers["raw"] and "run folder" in page.need.text()
    session.set_classes({"nucleus": (5,)})
    assert 5 in page.paint.buttons
    session.set_run("trained", run)
    assert page.run.path == run and page.missing() is None and set(page.paint.buttons) == {0, 7, 3, 255}
    scores = str(stored(tmp_path))
    labels = viewer.add_labels(tissue()[1], name="seg", metadata={"probabilities": scores}, **PLACE)
    session.assign("prediction", labels)
    assert page.probabilities.memo() == scores
    with pytest.raises(DataError, match="means not painted"):
        layers.blank_corrections(viewer.layers["raw"], {"other": (255,)})
    page.probabilities.path = Path(scores)
    page.find_places()
    qtbot.waitUntil(lambda: not page.places.runner.running, timeout=LONG_MS)
    assert "choose its own" in page.places.message.text(), "probabilities of another image"
    viewer.dims.ndisplay = 3
    page.find_places()
    assert "section by section" in page.places.message.text()
    page.close_jobs()
    assert isinstance(page, QWidget)
