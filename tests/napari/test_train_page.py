"""The training page in a real viewer: what it asks for, pausing, cancelling, errors, and what is shown meanwhile."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("napari")
import napari_em_da as em
from napari_em_da import layers
from napari_em_da._napari.session import Session
from napari_em_da._napari.train_page import TrainPage
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event, Finished, Metric, Preview, Progress

PLACE = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}
LONG_MS = 60_000


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    """A viewer with a tiny phantom: a bright square, label 7."""
    viewer = make_napari_viewer()
    labels = np.zeros((4, 64, 96), np.uint8)
    labels[:, 16:48, 16:80] = 7
    labels[1, :8, :8] = 255
    noise = np.random.default_rng(0).integers(0, 60, labels.shape).astype(np.uint8)
    viewer.add_image(noise + 120 * (labels == 7).astype(np.uint8), name="raw", **PLACE)
    viewer.add_labels(labels, name="square", **PLACE)
    return viewer


def docked(viewer: Any, kind: type, session: Session | None = None) -> Any:
    """Open a page as a dock."""
    page = kind(viewer, session)
    viewer.window.add_dock_widget(page, name=kind.title)
    return page


@pytest.fixture
def training(viewer: Any, qtbot: Any, tmp_path: Path) -> Iterator[Any]:
    """A train dock that is filled in and ready to start."""
    dock = docked(viewer, TrainPage)
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
    assert not dock.panel.cancel_button.isEnabled() and not dock.panel.pause_button.isEnabled()
    return str(dock.panel.message.text())


def test_classes_are_read_from_the_labels(training: Any, viewer: Any, qtbot: Any) -> None:
    assert training.table.rows() == [(7, True, "class 7"), (255, False, "class 255")]
    training.table.item(0, 1).setText("mito")
    viewer.layers["square"].data[0, :4, :4] = 3
    training.read_button.click()
    qtbot.waitUntil(lambda: training.table.rowCount() == 3)
    assert training.table.rows()[1] == (7, True, "mito")
    training.table.item(0, 1).setText("mito")
    assert training.table.classes() == {"mito": (3, 7)}


def test_train_cancel_resume(training: Any, viewer: Any, qtbot: Any) -> None:
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
    assert training.live.losses.series["cross_entropy"][-1][0] == done + 6
    assert "iou" in training.live.scores.series
    assert training.session.trained == run


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


class Counting:
    """A job in the place of a training that counts its steps and says whether it was closed."""

    def __init__(self) -> None:
        self.steps = 0
        self.closed = threading.Event()

    def __call__(self, *args: Any, **sections: Any) -> Iterator[Event]:
        try:
            while True:
                self.steps += 1
                yield Progress(self.steps, 1000, "steps", "training")
                self.closed.wait(0.002)
        finally:
            self.closed.set()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    job = Counting()
    monkeypatch.setattr(layers, "train", job)
    return job


def test_a_paused_training_does_no_step_until_it_goes_on(training: Any, qtbot: Any, counting: Counting) -> None:
    assert not training.panel.pause_button.isEnabled()
    training.panel.buttons["Start"].click()
    qtbot.waitUntil(lambda: counting.steps > 5)
    training.panel.pause_button.click()
    qtbot.wait(50)  # the step it is in
    held = counting.steps
    qtbot.wait(200)
    assert counting.steps == held
    assert training.panel.bar.format().startswith("paused: training")
    assert "Paused" in training.panel.message.text()
    assert training.panel.pause_button.text() == "Continue"
    training.panel.pause_button.click()
    qtbot.waitUntil(lambda: counting.steps > held + 5)
    assert training.panel.pause_button.text() == "Pause" and "paused" not in training.panel.bar.format()
    training.panel.cancel_button.click()
    finish(training, qtbot)


def test_cancel_while_paused_closes_the_job(training: Any, qtbot: Any, counting: Counting) -> None:
    training.panel.buttons["Start"].click()
    qtbot.waitUntil(lambda: counting.steps > 2)
    training.panel.pause_button.click()
    qtbot.wait(50)
    held = counting.steps
    training.panel.cancel_button.click()
    qtbot.waitUntil(counting.closed.is_set)
    assert finish(training, qtbot).startswith("Cancelled")
    assert counting.steps == held, "not one more step"
    assert training.panel.pause_button.text() == "Pause"


def test_a_run_cancelled_in_a_pause_goes_on_where_it_stood(training: Any, viewer: Any, qtbot: Any) -> None:
    seen: list[int] = []
    original = training.panel._on_event

    def watch(event: Event) -> None:
        original(event)
        if isinstance(event, Progress) and event.stage == "training":
            seen.append(event.done)
            if event.done == 2:
                training.panel.pause_button.click()

    training.training.editors["steps"].set(9)
    training.panel._on_event = watch
    training.panel.buttons["Start"].click()
    qtbot.waitUntil(lambda: training.panel.runner.paused, timeout=LONG_MS)
    qtbot.wait(300)
    training.panel.cancel_button.click()
    finish(training, qtbot)
    assert max(seen) < 9 and (training.run.path / "last.safetensors").is_file()
    reached = max(seen)
    seen.clear()
    training.panel._on_event = lambda event: (original(event), seen.append(getattr(event, "done", 0)))
    training.panel.buttons["Resume"].click()
    assert finish(training, qtbot).startswith("Finished 9 steps")
    steps = [line["step"] for line in em_metrics(training.run.path) if "cross_entropy" in line]
    assert steps == list(range(1, 10)), "each step once"
    assert reached >= 2


def em_metrics(run: Path) -> list[dict[str, float]]:
    from napari_em_da.training.folder import RunFolder

    return RunFolder(run).metrics()


def test_the_section_in_view_is_predicted_where_it_lies(training: Any, viewer: Any, qtbot: Any) -> None:
    viewer.dims.set_current_step(0, 2)
    training.panel.buttons["Start"].click()
    finish(training, qtbot)
    raw, found = viewer.layers["raw"], viewer.layers["training prediction"]
    assert "training image" not in viewer.layers, "the image is there already"
    assert found.data.shape == (1, 64, 96)
    np.testing.assert_allclose(found.data_to_world((0, 0, 0)), raw.data_to_world((2, 0, 0)))
    np.testing.assert_allclose(found.data_to_world((0, 63, 95)), raw.data_to_world((2, 63, 95)))
    assert set(np.unique(found.data)) <= {0, 7}, "label values, not class indices"
    assert found.metadata["preview"] and training.image.findText("training prediction") < 0


def test_without_the_image_in_view_a_window_is_shown_beside_it(training: Any, viewer: Any, qtbot: Any) -> None:
    training.live.begin(viewer.layers["raw"], {"square": (7,)})
    training.live.look.region = None
    training.live.take(Preview("image", "image", np.ones((32, 32), np.float32), 3))
    training.live.take(Preview("prediction", "labels", np.ones((32, 32), np.uint8), 3))
    for name in ("training image", "training prediction"):
        assert viewer.layers[name].translate[-1] >= 96 * 8
    training.show_previews.setChecked(False)
    training.live.take(Preview("prediction", "labels", np.zeros((32, 32), np.uint8), 6))
    assert viewer.layers["training prediction"].data.all(), "switched off"


def test_curves_take_losses_scores_and_health_apart(training: Any) -> None:
    live = training.live
    live.take(Metric(1, {"cross_entropy": 0.5, "dice": 0.4}))
    live.take(
        Metric(
            1,
            {
                "val/iou": 0.6,
                "val_matched/iou": 0.3,
                "target/foreground": 0.2,
                "source/foreground": 0.1,
                "target/foreground/mito": 0.2,
                "source/foreground/mito": 0.1,
                "target/regions/mito": 3.0,
                "source/regions/mito": 2.0,
                "target/entropy": 0.7,
                "select/sizes": -2.0,
                "chosen_step": 0.0,
                "score": 0.6,
            },
        )
    )
    assert live.losses.series == {"cross_entropy": [(1, 0.5)], "dice": [(1, 0.4)]}
    assert live.scores.series == {
        "iou": [(1, 0.6)],
        "in the target's look": [(1, 0.3)],
        "undecided on the target": [(1, 0.7)],
    }
    assert live.health.series == {"share of mito": [(1, 2.0)], "regions of mito": [(1, 1.5)]}
    live.clear()
    assert live.losses.isHidden()


def test_paint_while_it_trains_does_not_change_the_run(training: Any, viewer: Any, qtbot: Any) -> None:
    def run_to(path: Path, paint: bool) -> str:
        training.run.path = path
        original = training.panel._on_event

        def watch(event: Event) -> None:
            original(event)
            if paint and isinstance(event, Progress):
                viewer.layers["square"].data[:] = 0
                viewer.layers["square"].refresh()

        training.panel._on_event = watch
        training.panel.buttons["Start"].click()
        finish(training, qtbot)
        training.panel._on_event = original
        from napari_em_da.training.folder import RunFolder

        return str(RunFolder(path).info()["result"]["digest"])

    first = run_to(training.run.path, paint=False)
    assert run_to(training.run.path.with_name("painted"), paint=True) == first


def test_a_layer_removed_while_it_trains(training: Any, viewer: Any, qtbot: Any) -> None:
    original = training.panel._on_event

    def watch(event: Event) -> None:
        original(event)
        if isinstance(event, Progress) and event.stage == "training" and "raw" in viewer.layers:
            viewer.layers.remove("raw")

    training.panel._on_event = watch
    training.panel.buttons["Start"].click()
    assert finish(training, qtbot).startswith("Finished 6 steps")
    assert training.image.layer is None
    assert "Choose an image" in training.need.text()
    training.panel.buttons["Start"].click()
    assert training.panel.message.is_error


def test_presets_fill_the_forms_and_a_change_makes_them_ones_own(training: Any) -> None:
    for form in (training.training, training.more_training):
        form.restore({"validate_every": 1})
    menu = training.preset.menu
    menu.setCurrentIndex(menu.findData("thorough"))
    values = {**training.training.values(), **training.more_training.values()}
    assert (values["steps"], values["validate_every"], values["checkpoint_every"]) == (4000, 400, 400)
    assert training.network.form.values()["features"] == 32
    menu.setCurrentIndex(menu.findData("quick"))
    assert training.training.values()["steps"] == 200 and training.network.form.values()["features"] == 16
    assert training.preset.name == "quick"
    training.training.editors["steps"].set(201)
    assert training.preset.name == "own"


def test_the_time_is_measured_on_this_machine(training: Any, qtbot: Any) -> None:
    training.training.editors["steps"].set(10_000_000)
    training.preset.button.click()
    qtbot.waitUntil(lambda: "on this machine" in training.preset.time.text(), timeout=LONG_MS)
    assert "CPU" in training.preset.time.text() and "hours" in training.preset.time.text()
    training.sampling.editors["patch_px"].set((1, 33, 32))
    assert not training.preset.time.text(), "what no longer holds is not shown"


def test_the_traceback_is_one_click_away(training: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **sections: Any) -> Iterator[Event]:
        yield Progress(0, 1, "steps", "training")
        raise ConfigError("Wrong; do it right.")

    monkeypatch.setattr(layers, "train", broken)
    training.panel.buttons["Start"].click()
    assert finish(training, qtbot) == "Wrong; do it right."
    assert training.panel.trace.isHidden() and not training.panel.trace_button.isHidden()
    training.panel.trace_button.click()
    assert not training.panel.trace.isHidden() and "in broken" in training.panel.trace.toPlainText()
    monkeypatch.setattr(layers, "train", lambda *_, **__: iter_done())
    training.panel.buttons["Start"].click()
    assert training.panel.trace.isHidden() and training.panel.trace_button.isHidden()
    qtbot.waitUntil(lambda: not training.panel.running)


def iter_done() -> Iterator[Event]:
    yield Progress(1, 1, "steps", "training")
    yield Finished(type("Done", (), {"steps": 1, "seconds": 1, "best_score": 0, "best_step": 1, "run": Path("x")}))


def test_a_copied_training_reads_the_files_that_a_start_has_saved(training: Any, viewer: Any, qtbot: Any) -> None:
    with pytest.raises(ConfigError, match="Save the layer first"):
        training.call()
    training.panel.buttons["Start"].click()
    finish(training, qtbot)
    call, config = training.call()
    started = em.TrainConfig(**yaml.safe_load((training.run.path / "config.yaml").read_text()))
    assert call == "train" and config.run.name == "run-2", "what was trained stays"
    assert config.source == started.source
    same = {"run", "augment"}  # what is left alone may adapt, and is saved as it was used
    assert config.model_dump(exclude=same) == started.model_dump(exclude=same)
    viewer.layers["square"].data[0, 0, 0] = 7
    with pytest.raises(ConfigError, match="'square'"):
        training.call()


def test_the_page_follows_the_session(viewer: Any, qtbot: Any) -> None:
    session = Session(viewer)
    page = docked(viewer, TrainPage, session)
    assert page.image.layer is None, "in the guide nothing is chosen for the user"
    session.assign("source", viewer.layers["raw"])
    session.assign("labels", viewer.layers["square"])
    session.set_classes({"square": (7,)})
    assert page.image.layer is viewer.layers["raw"] and page.labels.layer is viewer.layers["square"]
    assert page.classes() == {"square": (7,)} and page.table.isHidden()
    assert "square (7)" in page.classes_line.text()
    session.set_voxel("source", (40.0, 4.0, 4.0))
    assert page._taken()["image"].volume.voxel_nm == (40.0, 4.0, 4.0)
    viewer.layers.remove("raw")
    assert page.image.layer is None and "Choose an image" in page.need.text()
    page.close_jobs()
    qtbot.waitUntil(lambda: not page.reader.running)


def test_what_is_set_is_kept(training: Any, viewer: Any, qtbot: Any) -> None:
    training.training.editors["steps"].set(77)
    kept = training.memo()
    other = docked(viewer, TrainPage)
    other.restore(kept)
    assert other.training.values()["steps"] == 77 and other.run.path == training.run.path
    assert other.preset.name == "own" and other.network.options() == {"features": 4, "levels": 2}
    qtbot.waitUntil(lambda: other.network.form is not None and not other.reader.running, timeout=LONG_MS)
    assert other.network.options() == {"features": 4, "levels": 2}
    other.close_jobs()


def test_cancel_takes_less_than_two_seconds_after_a_step(training: Any, qtbot: Any) -> None:
    """The limit is generous: a step of this network takes milliseconds, and a busy machine is slow."""
    training.training.editors["steps"].set(100_000)
    training.panel.buttons["Start"].click()
    qtbot.waitUntil(lambda: "training" in training.panel.bar.format(), timeout=LONG_MS)
    asked = time.monotonic()
    training.panel.cancel_button.click()
    finish(training, qtbot)
    assert time.monotonic() - asked < 20
