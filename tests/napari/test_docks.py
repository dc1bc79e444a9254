"""The real docks in a real viewer."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("napari")
import napari_em_da as em
from napari_em_da import layers
from napari_em_da._napari import SegmentDock, TrainDock, WeightMapsDock
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event, Progress

PLACE = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}
NAMES = {WeightMapsDock: "Weight maps", TrainDock: "Train", SegmentDock: "Segment"}
LONG_MS = 60_000


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    """A viewer with a tiny phantom: a bright square, label 7."""
    viewer = make_napari_viewer()
    labels = np.zeros((4, 64, 96), np.uint8)
    labels[:, 16:48, 16:80] = 7
    labels[1, :8, :8] = 255
    image = np.random.default_rng(0).integers(0, 60, labels.shape).astype(np.uint8) + 120 * (labels == 7).astype(
        np.uint8
    )
    viewer.add_image(image, name="raw", **PLACE)
    viewer.add_labels(labels, name="square", **PLACE)
    return viewer


def docked(viewer: Any, kind: type) -> Any:
    """Open a dock as the plugin menu does."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-em-da", NAMES[kind])
    assert isinstance(dock, kind)
    return dock


@pytest.fixture
def training(viewer: Any, qtbot: Any, tmp_path: Path) -> Iterator[Any]:
    """A train dock that is filled in and ready to start."""
    dock = docked(viewer, TrainDock)
    qtbot.waitUntil(lambda: dock.table.rowCount() > 0 and not dock.reader.running)
    dock.run.path = tmp_path / "run"
    dock.network.section.expand(animate=False)
    qtbot.waitUntil(lambda: dock.network.form is not None, timeout=LONG_MS)  # imports torch
    dock.network.form.editors["features"].set(4)
    dock.network.form.editors["levels"].set(2)
    settings = {"steps": 6, "validate_every": 3, "checkpoint_every": 3, "precision": "fp32", "device": "cpu"}
    settings |= {"patch_px": (1, 32, 32), "batch": 2, "validation_patches": 2, "threads": 0}
    for form in (dock.training, dock.sampling, dock.more_training, dock.more_sampling):
        for name, editor in form.editors.items():
            if name in settings:
                editor.set(settings[name])
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine cost more than such a small network
    yield dock
    torch.set_num_threads(threads)
    dock.close_jobs()
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=LONG_MS)


def finish(dock: Any, qtbot: Any) -> str:
    qtbot.waitUntil(lambda: not dock.panel.running, timeout=LONG_MS)
    assert dock.panel.bar.format() in ("done", "failed", "cancelled")
    assert all(button.isEnabled() for button in dock.panel.buttons.values())
    assert not dock.panel.cancel_button.isEnabled()
    return str(dock.panel.message.text())


def test_menus_follow_the_layer_list(viewer: Any, qtbot: Any) -> None:
    dock = docked(viewer, SegmentDock)
    assert [dock.image.itemText(i) for i in range(dock.image.count())] == ["raw"]
    added = viewer.add_image(np.zeros((2, 4, 4)), name="second")
    dock.image.choose(added)
    viewer.layers["raw"].name = "renamed"
    assert dock.image.layer is added
    assert {dock.image.itemText(i) for i in range(2)} == {"renamed", "second"}
    viewer.layers.remove(added)
    assert dock.image.layer is viewer.layers["renamed"]
    viewer.layers.clear()
    assert dock.image.layer is None


def test_classes_are_read_from_the_labels(training: Any, viewer: Any, qtbot: Any) -> None:
    assert training.table.rows() == [(7, True, "class 7"), (255, False, "class 255")]
    training.table.item(0, 1).setText("mito")
    viewer.layers["square"].data[0, :4, :4] = 3
    training.read_button.click()
    qtbot.waitUntil(lambda: training.table.rowCount() == 3)
    assert training.table.rows()[1] == (7, True, "mito")
    training.table.item(0, 1).setText("mito")
    assert training.table.classes() == {"mito": (3, 7)}


def test_train_cancel_resume_then_segment(training: Any, viewer: Any, qtbot: Any) -> None:
    seen: list[Event] = []
    original = training.panel._on_event

    def watch(event: Event) -> None:
        seen.append(event)
        original(event)
        if isinstance(event, Progress) and event.stage == "training" and event.done == 2:
            training.panel.cancel_button.click()

    training.training.editors["steps"].set(400)
    training.panel._on_event = watch
    training.panel.buttons["Start"].click()
    assert not training.panel.buttons["Start"].isEnabled()
    assert finish(training, qtbot) == "Cancelled; Resume goes on from the last step."
    run = training.run.path
    assert (run / "last.safetensors").is_file(), "a cancelled training keeps its last step"
    done = max(e.done for e in seen if isinstance(e, Progress) and e.stage == "training")
    assert done < 400

    config = run / "config.yaml"
    config.write_text(config.read_text().replace("steps: 400", f"steps: {done + 6}"))
    seen.clear()
    training.panel._on_event = lambda event: (seen.append(event), original(event))
    training.panel.buttons["Resume"].click()
    assert finish(training, qtbot).startswith(f"Finished {done + 6} steps")
    first = next(e.done for e in seen if isinstance(e, Progress) and e.stage == "training")
    assert first > 2, "a resumed training does not begin again"
    assert training.loss_curve.series["cross_entropy"][-1][0] == done + 6
    assert "iou" in training.score_curve.series
    assert {"training image", "training prediction"} <= {layer.name for layer in viewer.layers}
    assert viewer.layers["training image"].translate[-1] >= 96 * 8, "previews stand beside the image, not on it"

    dock = docked(viewer, SegmentDock)
    dock.run.path = run
    dock.options.editors["precision"].set("fp32")
    dock.image.choose(viewer.layers["raw"])
    dock.panel.buttons["Segment"].click()
    assert "class 7" in finish(dock, qtbot)
    found = viewer.layers["raw segmentation"]
    raw = viewer.layers["raw"]
    np.testing.assert_allclose(found.extent.world, raw.extent.world)
    assert found.units == raw.units
    assert set(np.unique(found.data)) <= {0, 7}
    assert (run / "segmentations" / "raw.tif").is_file()


def test_options_follow_the_menu(training: Any, qtbot: Any) -> None:
    assert training.network.options() == {"features": 4, "levels": 2}
    training.network.menu.setCurrentIndex(training.network.menu.findData("unet3d"))
    assert training.network.options() == {}
    qtbot.waitUntil(lambda: training.network.form is not None)
    training.network.form.editors["features"].set(6)
    assert training.network.options() == {"features": 6}
    assert training.method.options() == {}, "options that nobody has opened are the defaults"


def test_adapt_to_another_image(training: Any, viewer: Any, qtbot: Any) -> None:
    target = viewer.add_image(255 - viewer.layers["raw"].data, name="other microscope", **PLACE)
    training.target.choose(target)
    training.method.menu.setCurrentIndex(training.method.menu.findData("adversarial"))
    training.panel.buttons["Start"].click()
    assert finish(training, qtbot).startswith("Finished 6 steps")
    config = em.TrainConfig(**yaml.safe_load((training.run.path / "config.yaml").read_text()))
    assert config.method.name == "adversarial"
    assert [item.image.name for item in config.target] == ["target.tif"]
    assert [item.voxel_nm for item in config.target] == [(30, 8, 8)]


def test_what_is_wrong_is_said_in_the_dock(training: Any, qtbot: Any) -> None:
    training.sampling.editors["patch_px"].set((1, 33, 32))
    training.panel.buttons["Start"].click()
    message = finish(training, qtbot)
    assert training.panel.message.is_error and "is not divisible by" in message and "32" in message
    assert not training.run.path.exists(), "a job that cannot start leaves no folder"
    training.run.path = None
    training.panel.buttons["Start"].click()
    assert "Choose a run folder" in training.panel.message.text()
    training.training.editors["learning_rate"].widget.setText("fast")
    training.run.path = Path("anywhere")
    training.panel.buttons["Start"].click()
    assert "learning_rate" in training.panel.message.text()


def test_a_runtime_error_reaches_the_dock_and_the_dock_lives_on(
    training: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: Any, **sections: Any) -> Iterator[Event]:
        yield Progress(0, 1, "steps", "training")
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)")

    with monkeypatch.context() as patch:
        patch.setattr(layers, "train", broken)
        training.panel.buttons["Start"].click()
        message = finish(training, qtbot)
    assert training.panel.message.is_error and "mat1 and mat2" in message
    assert "JobFailed" in "".join(capsys.readouterr()), "napari is told too, with the traceback"
    training.panel.buttons["Start"].click()
    assert finish(training, qtbot).startswith("Finished 6 steps")
    assert not training.panel.message.is_error


def test_preview_is_the_weight_map_of_the_volume(viewer: Any, qtbot: Any) -> None:
    dock = docked(viewer, WeightMapsDock)
    labels = viewer.layers["square"]

    def shows(z: int, kind: str, **params: Any) -> Any:
        expected = em.weight_map(labels.data, kind, **params)[z]

        def check() -> None:
            assert "weights preview" in viewer.layers
            np.testing.assert_allclose(viewer.layers["weights preview"].data, expected, rtol=1e-6)

        return check

    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(shows(2, "entropy"))
    shown = viewer.layers["weights preview"]
    viewer.dims.set_current_step(0, 1)
    qtbot.waitUntil(shows(1, "entropy"))
    dock.options.editors["window"].set((1, 9, 9))
    qtbot.waitUntil(shows(1, "entropy", window=(1, 9, 9)))
    dock.kind.setCurrentIndex(dock.kind.findData("frequency"))
    qtbot.waitUntil(shows(1, "frequency"))
    dock.common.editors["floor"].widget.setText("0.9")
    qtbot.waitUntil(shows(1, "frequency", floor=0.9))
    labels.paint((1, 60, 60), 7)
    qtbot.waitUntil(shows(1, "frequency", floor=0.9))
    assert viewer.layers["weights preview"] is shown, "the layer is updated, not replaced"
    np.testing.assert_allclose(shown.scale, labels.scale[-2:])
    assert viewer.layers.selection.active is labels, "painting goes on"

    dock.common.editors["floor"].widget.setText("-1")
    qtbot.waitUntil(lambda: dock.state.is_error)
    with pytest.raises(ConfigError, match="floor"):
        dock.request()


def test_whole_weight_map(viewer: Any, qtbot: Any) -> None:
    dock = docked(viewer, WeightMapsDock)
    labels = viewer.layers["square"]
    dock.panel.buttons["Compute whole volume"].click()
    finish(dock, qtbot)
    layer = viewer.layers["square entropy weights"]
    np.testing.assert_array_equal(layer.data, em.weight_map(labels.data, "entropy"))
    np.testing.assert_allclose(layer.extent.world, labels.extent.world)


@pytest.mark.parametrize("how", ["dock", "viewer"])
def test_closing_cancels_the_job(training: Any, viewer: Any, qtbot: Any, monkeypatch: Any, how: str) -> None:
    closed, begun = threading.Event(), threading.Event()

    def endless(*args: Any, **sections: Any) -> Iterator[Event]:
        try:
            while True:
                yield Progress(0, 1, "steps")
                begun.set()
                closed.wait(0.005)
        finally:
            closed.set()

    monkeypatch.setattr(layers, "train", endless)
    training.panel.buttons["Start"].click()
    qtbot.waitUntil(begun.is_set)
    if how == "dock":
        viewer.window.remove_dock_widget(training)
    else:
        viewer.close()
        gc.collect()
    qtbot.waitUntil(closed.is_set)
    qtbot.waitUntil(lambda: not training.panel.runner.running)


def test_the_manifest_leads_to_the_samples(make_napari_viewer: Any) -> None:
    opened = make_napari_viewer().open_sample("napari-em-da", "flyem")
    assert [layer.name for layer in opened] == ["FlyEM image", "FlyEM instances"]
    assert [str(unit) for unit in opened[0].units] == ["nanometer"] * 3


def test_docks_open_without_torch() -> None:
    """In a process of its own, since other tests here have loaded torch."""
    code = (
        "import sys, napari; from napari.components import ViewerModel\n"
        "from qtpy.QtWidgets import QApplication; app = QApplication([])\n"
        "from napari_em_da._napari import SegmentDock, TrainDock, WeightMapsDock\n"
        "docks = [kind(ViewerModel()) for kind in (SegmentDock, TrainDock, WeightMapsDock)]\n"
        "print(*{'torch', 'matplotlib'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert not out.stdout.split(), f"opening the docks loads {out.stdout.strip()}"
