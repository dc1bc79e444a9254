"""The adaptation page in a real viewer: the portfolio, what was chosen and why, before and after, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
import napari_em_da as em
from napari_em_da import layers
from napari_em_da._napari.adapt_page import AdaptPage
from napari_em_da._napari.live import box_in_view
from napari_em_da._napari.message import ORANGE
from napari_em_da._napari.session import Session
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event, Notice, Progress
from napari_em_da.training.folder import RunFolder

LONG_MS = 120_000
PLACE = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 8.0)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run: bright squares of label 7."""
    folder = tmp_path_factory.mktemp("source")
    labels = np.zeros((4, 64, 96), np.uint8)
    labels[:, 16:48, 16:92] = 7
    em.Volume.from_array(picture(labels), voxel_nm=(30, 8, 8)).save(folder / "image.tif")
    em.Volume.from_array(labels, voxel_nm=(30, 8, 8)).save(folder / "labels.tif")
    config = em.TrainConfig(
        run=folder / "run",
        source=({"image": folder / "image.tif", "labels": folder / "labels.tif"},),
        classes={"mito": (7,)},
        network={"options": {"features": 4, "levels": 2}},
        sampling={"patch_px": (1, 32, 32), "batch": 2, "validation_patches": 2, "selection_patches": 4, "threads": 0},
        training={"steps": 8, "validate_every": 8, "precision": "fp32", "device": "cpu"},
    )
    em.run(em.train(config))
    return folder / "run"


def picture(labels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 60, labels.shape).astype(np.uint8)
    return noise + 120 * (labels > 0).astype(np.uint8)


@pytest.fixture
def page(make_napari_viewer: Any, source: Path, tmp_path: Path, qtbot: Any) -> Iterator[AdaptPage]:
    """A page that is filled in and ready to start; its target has a square elsewhere."""
    viewer = make_napari_viewer()
    labels = np.zeros((4, 64, 96), np.uint8)
    labels[:, 8:40, 30:90] = 1
    viewer.add_image(255 - picture(labels), name="target", **PLACE)
    session = Session(viewer)
    session.set_run("trained", source)
    page = AdaptPage(viewer, session)
    viewer.window.add_dock_widget(page, name="Adapt")
    session.assign("target", viewer.layers["target"])
    page.run.path = tmp_path / "adapted"
    settings = {"steps": 4, "validate_every": 2, "checkpoint_every": 2, "precision": "fp32", "device": "cpu"}
    for form in (page.training, page.more_training):
        form.restore(settings)
    yield page
    page.close_jobs()
    qtbot.waitUntil(lambda: not any(part.running for part in (page.panel, page.outcome)), timeout=LONG_MS)


def finish(page: AdaptPage, qtbot: Any) -> str:
    qtbot.waitUntil(lambda: not any(part.running for part in (page.panel, page.outcome)), timeout=LONG_MS)
    assert all(button.isEnabled() for button in page.panel.buttons.values())
    return str(page.panel.message.text())


def test_auto_names_its_entries_chooses_and_shows_before_and_after(page: AdaptPage, source: Path, qtbot: Any) -> None:
    viewer, seen = page.viewer, []
    original = page.panel._on_event

    def watch(event: Event) -> None:
        original(event)
        if isinstance(event, Progress) and event.stage == "training":
            page.panel._show_progress()
            seen.append(page.panel.bar.format())

    page.panel._on_event = watch
    assert page.source.path == source, "from the session"
    page.budget.editors["minutes"].widget.setText("30")
    page.method._wanted = {"entries": ["adabn", "coarse"]}
    viewer.dims.set_current_step(0, 2)
    page.panel.buttons["Start"].click()
    assert finish(page, qtbot).startswith("Finished in")
    assert {text.split(":")[0] for text in seen} == {"adabn (1 of 2)", "coarse (2 of 2)"}
    run = page.run.path
    assert run is not None and page.session.adapted == run
    info = RunFolder(run).info()
    assert page.outcome.chosen.text().startswith(f"Chosen without labels: {info['chosen']}, step {info['step']}")
    assert "source_only" in page.outcome.report.toPlainText(), "the table of all candidates"
    assert "Expected IoU" in page.outcome.expected.text()

    before, after = viewer.layers["before adaptation"], viewer.layers["after adaptation"]
    target = viewer.layers["target"]
    np.testing.assert_allclose(before.data_to_world((0, 0, 0)), target.data_to_world((2, 0, 0)))
    assert after.translate[-1] > target.extent.world[1][-1], "beside it"
    assert viewer.layers["section after adaptation"].visible
    shown = {layer.name for layer in viewer.layers if layer.visible}
    assert shown == {"target", "before adaptation", "after adaptation", "section after adaptation"}, (
        "nothing covers them"
    )
    for layer, which in ((before, source), (after, run)):
        whole = layers.segment_layers(target, which, run.parent / f"{layer.name}.tif", device="cpu")[0][0]
        np.testing.assert_array_equal(layer.data[0], whole[2], "exactly as the whole segmentation has it")
    page.outcome.side.setChecked(False)
    np.testing.assert_allclose(after.translate, before.translate)
    assert not viewer.layers["section after adaptation"].visible
    assert {"share of mito"} <= set(page.live.health.series), "against the source's"


def test_the_section_in_view_is_compared_again(page: AdaptPage, source: Path, qtbot: Any) -> None:
    page.session.set_run("adapted", source)
    assert not page.outcome.isHidden()
    page.viewer.dims.set_current_step(0, 1)
    page.outcome.button.click()
    finish(page, qtbot)
    before, after = (page.viewer.layers[f"{which} adaptation"] for which in ("before", "after"))
    np.testing.assert_array_equal(before.data, after.data)
    assert "0.0 % of the pixels changed" in page.outcome.compared.text()
    first = before.translate.copy()
    page.viewer.dims.set_current_step(0, 3)
    page.outcome.button.click()
    finish(page, qtbot)
    assert page.viewer.layers["before adaptation"] is before
    np.testing.assert_allclose(before.translate - first, (60, 0, 0))


def test_a_single_method_is_told_as_well(page: AdaptPage, qtbot: Any) -> None:
    page.method.menu.setCurrentIndex(page.method.menu.findData("adabn"))
    assert not page.budget.editors["minutes"].widget.isEnabled()
    page.training.restore({"steps": 2})
    page.more_training.restore({"validate_every": 1, "precision": "fp32", "device": "cpu"})
    page.panel.buttons["Start"].click()
    finish(page, qtbot)
    assert page.outcome.chosen.text().startswith("Chosen without labels: ")
    assert not page.outcome.expected.text()
    _, config = copied(page)
    assert isinstance(config, em.AdaptConfig) and config.method.name == "adabn" and config.training.steps == 2
    assert config.target[0].image.name == "target.tif" and config.out.name == "adapted-2"
    assert config.sampling.model_fields_set == set(), "the rest comes from the trained run"


def copied(page: AdaptPage) -> tuple[str, Any]:
    call, config = page.call()
    assert call == "adapt"
    return call, config


def test_collapse_is_said_in_orange(page: AdaptPage, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    release: list[bool] = []

    def job(*args: Any, **sections: Any) -> Iterator[Event]:
        yield Progress(1, 4, "adaptations", "matched")
        yield Notice("Stopped at step 60: mito vanished on the target.", "warning")
        while not release:
            yield Progress(1, 2, "steps", "training")

    monkeypatch.setattr(layers, "adapt", job)
    page.panel.buttons["Start"].click()
    qtbot.waitUntil(lambda: "vanished" in page.panel.message.text())
    assert "matched (2 of 4)" in page.panel.message.text()
    assert any(colour in page.panel.message.styleSheet() for colour in ORANGE), "dark or light, as the theme needs"
    page.panel.cancel_button.click()
    release.append(True)
    finish(page, qtbot)


def test_cancel_then_resume(page: AdaptPage, qtbot: Any) -> None:
    page.method.menu.setCurrentIndex(page.method.menu.findData("supervised"))
    page.training.restore({"steps": 30})
    page.more_training.restore({"validate_every": 30, "precision": "fp32", "device": "cpu"})
    original = page.panel._on_event

    def watch(event: Event) -> None:
        original(event)
        if isinstance(event, Progress) and event.stage == "training" and event.done == 3:
            page.panel.cancel_button.click()

    page.panel._on_event = watch
    page.panel.buttons["Start"].click()
    assert finish(page, qtbot).startswith("Cancelled")
    assert page.session.adapted is None
    page.panel._on_event = original
    page.panel.buttons["Resume"].click()
    assert finish(page, qtbot).startswith("Finished")
    assert page.session.adapted == page.run.path


def test_an_error_of_torch_leaves_a_usable_page(page: AdaptPage, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **sections: Any) -> Iterator[Event]:
        yield Progress(0, 1, "steps", "training")
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(layers, "adapt", broken)
        page.panel.buttons["Start"].click()
        assert "illegal memory access" in finish(page, qtbot)
    assert page.panel.message.is_error and "in broken" in page.panel.trace.toPlainText()
    page.source.path = Path("nowhere")
    page.panel.buttons["Start"].click()
    assert "is no run folder" in page.panel.message.text() and not page.panel.running


def test_the_target_removed_meanwhile(page: AdaptPage, qtbot: Any) -> None:
    page.method.menu.setCurrentIndex(page.method.menu.findData("adabn"))
    page.training.restore({"steps": 2})
    page.more_training.restore({"precision": "fp32", "device": "cpu"})
    original = page.panel._on_event

    def watch(event: Event) -> None:
        original(event)
        if isinstance(event, Progress) and event.stage == "training" and "target" in page.viewer.layers:
            page.viewer.layers.remove("target")

    page.panel._on_event = watch
    page.panel.buttons["Start"].click()
    assert finish(page, qtbot).startswith("Finished")
    assert "before adaptation" not in page.viewer.layers
    assert page.missing() == "Choose the image to segment."


def test_what_is_missing_is_said(make_napari_viewer: Any, source: Path) -> None:
    viewer = make_napari_viewer()
    page = AdaptPage(viewer)
    viewer.window.add_dock_widget(page, name="Adapt")
    assert "Train a network first" in page.need.text()
    page.source.path = source
    assert "image to segment" in page.need.text()
    viewer.add_image(np.zeros((2, 8, 8)), name="x")
    page.target.choose(viewer.layers["x"])
    page.refresh()
    assert "run folder" in page.need.text()
    with pytest.raises(ConfigError, match="run folder"):
        page.call()
    assert page.method.name == "auto" and "without labels" in page.method.menu.itemData(0, 3)
    page.close_jobs()


def test_the_box_in_view_of_a_scaled_layer(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    layer = viewer.add_image(np.zeros((5, 20, 30), np.uint8), **PLACE)
    viewer.dims.set_point(0, 90)
    box = box_in_view(viewer, layer)
    assert box is not None and box[0] == slice(3, 4)
    assert 0 <= box[1].start < box[1].stop <= 20 and 0 <= box[2].start < box[2].stop <= 30
    assert box_in_view(viewer, viewer.add_image(np.zeros((2, 2, 4, 4)))) is None
