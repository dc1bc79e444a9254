"""The Segment page in a real viewer: sections at once, the volume block by block, cancel, resume, and bad input."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
import napari_em_da as em
from napari_em_da import layers
from napari_em_da._napari.segment_page import SegmentPage
from napari_em_da._napari.session import Session
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event, Progress
from napari_em_da.inference.store import Store
from napari_em_da.io import working_store
from napari_em_da.volume import Volume

torch = pytest.importorskip("torch")

PLACE = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}
LONG_MS = 60_000
CLASSES = {"square": (7,), "mito": (3,)}


def tissue() -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros((6, 48, 80), np.uint8)
    labels[:, 8:40, 8:40] = 7
    labels[:, 16:32, 48:72] = 3
    noise = np.random.default_rng(0).integers(0, 60, labels.shape)
    return (noise + 60 * (labels == 7) + 120 * (labels == 3)).astype(np.uint8), labels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    image, labels = tissue()
    training = em.TrainingConfig(steps=6, validate_every=3, checkpoint_every=3, precision="fp32", device="cpu")
    job = layers.train(
        (image, {**PLACE, "name": "raw"}, "image"),
        (labels, {**PLACE, "name": "truth"}, "labels"),
        CLASSES,
        folder,
        network=em.NetworkConfig(options={"features": 4, "levels": 2}),
        sampling=em.SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=2, threads=0),
        training=training,
    )
    em.run(job)
    return folder


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    viewer = make_napari_viewer(ndisplay=2)
    viewer.add_image(tissue()[0], name="raw", **PLACE)
    return viewer


@pytest.fixture
def page(viewer: Any, run: Path, qtbot: Any) -> Iterator[SegmentPage]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    page = SegmentPage(viewer)
    viewer.window.add_dock_widget(page, name="Segment")
    page.run.path = run
    page.options.editors["precision"].set("fp32")
    page.more.editors["device"].set("cpu")
    yield page
    torch.set_num_threads(threads)
    page.close_jobs()
    qtbot.waitUntil(lambda: not (page.panel.running or page.looker.running or page.counter.running), timeout=LONG_MS)


@pytest.fixture(scope="module")
def expected(run: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    output = tmp_path_factory.mktemp("whole") / "whole.tif"
    image = (tissue()[0], {**PLACE, "name": "raw"}, "image")
    em.run(layers.segment(image, run, output, precision="fp32", device="cpu"))
    return Volume.open(output).read()


def finish(page: SegmentPage, qtbot: Any) -> str:
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    return str(page.panel.message.text())


def look(page: SegmentPage, qtbot: Any) -> str:
    page.section_button.click()
    qtbot.waitUntil(lambda: not page.looker.running, timeout=LONG_MS)
    return str(page.state.text())


def test_the_section_in_view_then_a_region(page: Any, viewer: Any, qtbot: Any, expected: np.ndarray) -> None:
    viewer.dims.set_current_step(0, 2)
    assert look(page, qtbot).startswith("Section 2: square")
    found = viewer.layers["raw segmentation"]
    np.testing.assert_array_equal(found.data[2], expected[2])
    assert not found.data[3].any()
    np.testing.assert_allclose(found.extent.world, viewer.layers["raw"].extent.world)
    assert found.units == viewer.layers["raw"].units
    assert list(found.features["class"]) == ["background", "square", "mito"]
    colours = layers.class_colours(CLASSES)
    for value in (3, 7):
        assert (
            "#" + bytes((found.colormap.color_dict[value][:3] * 255).round().astype(int).tolist()).hex()
            == colours[value]
        )
    assert page.session.layer("prediction") is found
    assert not found.editable, "what is still being made cannot be painted on"
    assert viewer.layers.selection.active is viewer.layers["raw"]

    viewer.dims.set_current_step(0, 4)
    look(page, qtbot)
    assert viewer.layers["raw segmentation"] is found and len(viewer.layers) == 2
    np.testing.assert_array_equal(found.data[4], expected[4])
    np.testing.assert_array_equal(found._slice.image.raw, expected[4])

    page.sections.setValue(4)
    page.panel.buttons["This region"].click()
    assert finish(page, qtbot).startswith("Sections 2 to 5: ")
    rows, columns = (
        slice(*axis) for axis in np.clip(viewer.layers["raw"].corner_pixels[:, 1:].T + [0, 1], 0, (48, 80))
    )
    np.testing.assert_array_equal(found.data[2:6, rows, columns], expected[2:6, rows, columns])
    assert not found.data[:2].any()


def test_following_the_view_segments_each_section_once(page: Any, viewer: Any, qtbot: Any, expected: Any) -> None:
    viewer.dims.set_current_step(0, 1)
    page.following.setChecked(True)
    qtbot.waitUntil(lambda: page.state.text().startswith("Section 1: square"), timeout=LONG_MS)
    for z in (2, 3, 5):
        viewer.dims.set_current_step(0, z)
    qtbot.waitUntil(lambda: page.state.text().startswith("Section 5: square"), timeout=LONG_MS)
    found = viewer.layers["raw segmentation"]
    np.testing.assert_array_equal(found.data[5], expected[5])
    assert not found.data[3].any(), "sections that were only passed cost nothing"
    starts: list[Any] = []
    page.looker.start = lambda *args, **more: starts.append(args)
    viewer.dims.set_current_step(0, 1)
    qtbot.wait(400)
    assert not starts


def test_the_volume_appears_block_by_block_and_a_cancelled_one_goes_on(
    page: Any, viewer: Any, qtbot: Any, tmp_path: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled, written, write = threading.Event(), [], Store.write

    def held(self: Store, *args: Any) -> None:
        """Write three blocks, and the fourth when the test has seen them."""
        if len(written) == 3:
            cancelled.wait(LONG_MS / 1000)
        written.append(args)
        write(self, *args)

    monkeypatch.setattr(Store, "write", held)
    output = tmp_path / "labels.tif"
    page.output.path = output
    page.more.editors["batch"].set(1)
    page.scores.setChecked(True)
    shown: list[np.ndarray] = []
    original = page.panel._on_event

    def watch(event: Event) -> None:
        original(event)
        if isinstance(event, Progress) and event.unit == "blocks" and event.done >= 2 and not shown:
            shown.append(np.asarray(viewer.layers["raw segmentation"].data))
            page.panel.cancel_button.click()
            cancelled.set()

    page.panel._on_event = watch
    page.panel.buttons["Whole volume"].click()
    assert finish(page, qtbot).startswith("Cancelled. Finished blocks are kept")
    np.testing.assert_array_equal(shown[0][:2], expected[:2])
    share = layers.finished_share(output)
    assert share is not None and 2 / 6 <= share < 1
    page.refresh()
    qtbot.waitUntil(lambda: f"{100 * share:.0f} % of the volume is finished already" in page.kept.text())

    page.panel._on_event = original
    page.panel.buttons["Whole volume"].click()
    assert f"Saved as {output}" in finish(page, qtbot)
    qtbot.waitUntil(lambda: not page.turns.isActive())
    found = viewer.layers["raw segmentation"]
    np.testing.assert_array_equal(found.data, expected)
    assert found.editable and isinstance(found.data, np.ndarray)
    assert page.session.layer("prediction") is found
    names = [layer.name for layer in viewer.layers]
    assert names == ["raw", "raw segmentation", "p(square)", "p(mito)", "raw uncertainty"]
    scores = Volume.open(tmp_path / "labels-probabilities.zarr").read()
    doubt = viewer.layers["raw uncertainty"]
    np.testing.assert_allclose(np.asarray(doubt.data), 1 - scores.max(-1), atol=1e-6)
    assert not doubt.visible and not isinstance(doubt.data, np.ndarray)
    assert not working_store(output).exists() and not page.kept.text()

    look(page, qtbot)
    assert "raw segmentation [1]" in viewer.layers, "a finished segmentation is never written into"


def test_layers_that_go_away_during_the_job(page: Any, viewer: Any, qtbot: Any, tmp_path: Path, expected: Any) -> None:
    page.output.path = tmp_path / "labels.tif"
    original = page.panel._on_event

    def watch(event: Event) -> None:
        original(event)
        if "raw segmentation" in viewer.layers:
            viewer.layers.remove("raw segmentation")
        if "raw" in viewer.layers:
            viewer.layers.remove("raw")

    page.panel._on_event = watch
    page.panel.buttons["Whole volume"].click()
    assert "Saved as" in finish(page, qtbot)
    np.testing.assert_array_equal(viewer.layers["raw segmentation"].data, expected)
    assert page.missing() is not None and page.need.text()


def test_the_page_follows_the_session(viewer: Any, run: Path, qtbot: Any, tmp_path: Path) -> None:
    session = Session(viewer)
    page = SegmentPage(viewer, session)
    qtbot.addWidget(page)
    assert session.layer("target") is viewer.layers["raw"]
    assert "run folder" in str(page.missing())
    session.set_run("trained", run)
    assert page.run.path == run and page.missing() is None
    session.set_run("adapted", tmp_path)
    assert page.run.path == tmp_path
    page.run.path = run
    session.set_run("adapted", tmp_path / "other")
    assert page.run.path == run, "what the user typed stays"
    viewer.layers["raw"].name = "other name"
    assert page.image.currentText() == "other name"
    memo = page.memo()
    again = SegmentPage(viewer, session)
    qtbot.addWidget(again)
    again.restore(memo)
    assert again.run.path == run
    page.close_jobs()
    again.close_jobs()


def test_the_call_is_the_segmentation_of_the_volume(
    page: Any, viewer: Any, run: Path, tmp_path: Path, expected: Any
) -> None:
    with pytest.raises(ConfigError, match="is in no file; save it"):
        page.call()
    path = Volume.from_array(tissue()[0], voxel_nm=(30, 8, 8)).save(tmp_path / "image.tif")
    (opened,) = viewer.open(path, plugin="napari")
    opened.scale, opened.units = PLACE["scale"], PLACE["units"]
    page.image.choose(opened)
    page.output.path = tmp_path / "out.tif"
    name, config = page.call()
    assert name == "segment"
    assert (config.image, config.run, config.output) == (path, run, tmp_path / "out.tif")
    assert config.voxel_nm == (30, 8, 8) and config.precision == "fp32" and config.probabilities is None
    em.run(em.segment(config))
    np.testing.assert_array_equal(Volume.open(config.output).read(), expected)
    page.session.set_voxel("target", (40.0, 8.0, 8.0))
    page.scores.setChecked(True)
    config = page.call()[1]
    assert config.voxel_nm == (40, 8, 8) and config.probabilities == tmp_path / "out-probabilities.zarr"


def test_bad_input_is_said_in_words(page: Any, viewer: Any, qtbot: Any, tmp_path: Path, run: Path) -> None:
    page.run.path = tmp_path
    page.section_button.click()
    assert page.state.is_error and "is no run folder" in page.state.text()
    page.panel.buttons["Whole volume"].click()
    assert page.panel.message.is_error and "is no run folder" in page.panel.message.text()
    page.run.path = run
    photo = viewer.add_image(np.zeros((30, 40, 3), np.uint8), rgb=True, name="photo")
    page.image.choose(photo)
    page.section_button.click()
    assert "'photo' is a colour picture" in page.state.text()
    page.image.choose(viewer.layers["raw"])
    viewer.dims.ndisplay = 3
    page.section_button.click()
    assert "section by section along z" in page.state.text()
    assert not [layer for layer in viewer.layers if "segmentation" in layer.name]


def test_flat_and_multiscale_images(make_napari_viewer: Any, run: Path, qtbot: Any, expected: np.ndarray) -> None:
    viewer = make_napari_viewer()
    image = tissue()[0]
    viewer.add_image(image[1], name="flat", scale=(8, 8), units=("nm",) * 2)
    page = SegmentPage(viewer)
    viewer.window.add_dock_widget(page, name="Segment")
    page.run.path = run
    page.options.editors["precision"].set("fp32")
    assert look(page, qtbot).startswith("Section 0")
    assert viewer.layers["flat segmentation"].data.shape == (48, 80)
    page.panel.buttons["Whole volume"].click()
    assert "Saved as" in finish(page, qtbot)
    whole = viewer.layers["flat segmentation"].data
    assert whole.shape == (48, 80)
    np.testing.assert_array_equal(whole, Volume.open(run / "segmentations" / "flat.tif").read()[0])

    levels = viewer.add_image([image, image[:, ::2, ::2]], name="levels", multiscale=True, **PLACE)
    page.image.choose(levels)
    viewer.dims.set_current_step(0, 3)
    look(page, qtbot)
    found = viewer.layers["levels segmentation"]
    assert found.data.shape == image.shape
    np.testing.assert_array_equal(found.data[3], expected[3])
    page.close_jobs()
