"""Bad input in the guided window: each is refused in a sentence with its remedy, and nothing is lost."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

pytest.importorskip("napari")
from napari_em_da import layers
from napari_em_da._napari import graphics, guide, weights_page
from napari_em_da._napari.chain_editor import Item
from napari_em_da._napari.worker import advance
from napari_em_da.errors import ResourceError
from napari_em_da.events import Event, Progress
from napari_em_da.project import Project, files

PLACE: dict[str, Any] = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3}
LONG_MS = 120_000
TINY = {"steps": 2, "validate_every": 2, "checkpoint_every": 2, "precision": "fp32", "device": "cpu"}
WINDOWS = {"patch_px": (1, 32, 32), "batch": 2, "validation_patches": 2, "threads": 0}


def press(panel: Any, button: str, qtbot: Any) -> str:
    """Start a job, and return what the page says in the end."""
    panel.buttons[button].click()
    qtbot.waitUntil(lambda: not panel.running, timeout=LONG_MS)
    return str(panel.message.text())


def ready_to_train(dock: Any, qtbot: Any) -> Any:
    page = dock.show_page("train")
    page.network.prefer({"features": 4, "levels": 2})
    for form in (page.training, page.more_training, page.sampling, page.more_sampling):
        for name, editor in form.editors.items():
            if name in {**TINY, **WINDOWS}:
                editor.set({**TINY, **WINDOWS}[name])
    return page


def huge(dock: Any, name: str = "huge") -> Any:
    """Give the role of the target to an image of 1.6 TB that no file holds."""
    random = da.random.default_rng(0)  # zeros would be compressed to nothing
    data = random.integers(0, 255, (4_000, 20_000, 20_000), chunks=(1, 5_000, 5_000), dtype=np.uint8)
    layer = dock.session.viewer.add_image(data, name=name, contrast_limits=(0, 255), **PLACE)
    dock.session.assign("target", layer)
    return layer


def test_layers_removed_during_refining_measuring_and_weighing(
    dock: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = dock.session.viewer
    page = dock.show_page("refine")
    page.live.setChecked(False)
    page.editor.show_items([Item("remove_small", {"sections": True, "min_size_nm2": 128.0})])
    qtbot.waitUntil(lambda: len(page.editor.items()) == 1, timeout=LONG_MS)
    seg = dock.session.layer("prediction")
    expected = np.array(seg.data)
    page.panel.buttons["Apply to the volume"].click()
    viewer.layers.remove(seg)
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    assert page.panel.message.text().startswith("Saved as"), "what was taken at the start is refined"
    np.testing.assert_array_equal(viewer.layers["prediction refined"].data, expected)
    assert "Choose a segmentation" in page.need.text()

    page.tabs.setCurrentWidget(page.objects)
    page.objects.labels.choose(viewer.layers["truth"])
    page.objects.panel.buttons["Measure"].click()
    viewer.layers.remove("truth")
    qtbot.waitUntil(lambda: not page.objects.panel.running, timeout=LONG_MS)
    assert page.objects.panel.message.text() == "The layer was removed; choose another one."

    page = dock.show_page("weights")
    page.panel.buttons["Compute whole volume"].click()
    viewer.layers.remove("labels")
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    assert "labels entropy weights" in viewer.layers and "Choose a labels layer" in page.need.text()


def test_paint_during_a_round_does_not_change_it(dock: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = dock.show_page("correct")
    page.paint.new_button.click()
    paint = dock.session.layer("corrections")
    paint.paint((1, 10, 10), 7)
    taken: list[Any] = []
    correct = layers.corrections._correct

    def watched(image: Any, painted: Any, *args: Any) -> Iterator[Event]:
        yield Progress(0, 1, "steps", "working")
        while not (paint.data == 0).any():
            yield Progress(0, 1, "steps", "working")
        taken.append(np.array(painted.volume.read()))
        yield from correct(image, painted, *args)

    monkeypatch.setattr(layers.corrections, "_correct", watched)
    before = np.array(paint.data)
    page.panel.buttons["Learn from my corrections"].click()
    paint.paint((2, 20, 20), 0)
    qtbot.waitUntil(lambda: not page.panel.running, timeout=LONG_MS)
    np.testing.assert_array_equal(taken[0], before)
    assert (paint.data == 0).any(), "and the new paint stays for the next round"


def test_paint_of_no_class_is_refused_and_kept(dock: Any, qtbot: Any, quick_run: Path) -> None:
    page = dock.show_page("correct")
    page.paint.new_button.click()
    paint = dock.session.layer("corrections")
    paint.paint((1, 10, 10), 7)
    paint.paint((2, 30, 30), 9)  # the label that napari's own + button gives
    text = press(page.panel, "Learn from my corrections", qtbot)
    assert page.panel.message.is_error
    assert text.startswith(
        "The corrections 'corrections' hold 9 in section 2, which is no class of the run. Paint it over"
    )
    assert (paint.data == 9).any() and not (quick_run / "rounds").exists()


def test_labels_without_the_chosen_class_are_refused(dock: Any, qtbot: Any) -> None:
    page = ready_to_train(dock, qtbot)
    labels = dock.session.layer("labels")
    labels.data = np.where(labels.data == 7, 5, 0).astype(np.uint8)  # a script changed the values
    dock.session.set_classes({"class 7": (7,)})
    text = press(page.panel, "Start", qtbot)
    assert page.panel.message.is_error and "class 7" in text and "label value" in text, text
    assert not (page.run.path / "config.yaml").exists()


def test_a_target_larger_than_memory_and_disk(dock: Any, qtbot: Any) -> None:
    layer = huge(dock)
    viewer = dock.session.viewer
    data = dock.show_page("data")
    qtbot.waitUntil(lambda: not data.checker.running and not data._later.isActive(), timeout=LONG_MS)
    assert not data.findings.state.is_error
    page = dock.show_page("segment")
    assert page._box(layers.snapshot(layer), 1)[0] == slice(
        viewer.dims.current_step[0], viewer.dims.current_step[0] + 1
    )
    for name, button in (("segment", "Whole volume"), ("adapt", "Start")):
        page = dock.show_page(name)
        text = press(page.panel, button, qtbot)
        assert page.panel.message.is_error and "GB" in text and "free" in text, text
    page = dock.show_page("correct")
    page.paint.new_button.click()
    assert page.paint.message.is_error and "GiB of memory; crop the image" in page.paint.message.text()
    viewer.layers.remove(layer)


@pytest.mark.parametrize(
    "error, words",
    [
        (
            MemoryError("Unable to allocate 3.1 TiB for an array"),
            "not enough memory for this (Unable to allocate 3.1 TiB",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a/b.tif"),
            "'/a/b.tif'. Check that it is there and that you may write",
        ),
    ],
)
def test_what_the_machine_lacks_is_said_with_a_remedy(
    dock: Any, qtbot: Any, monkeypatch: Any, error: Exception, words: str
) -> None:
    def job(*args: Any) -> Iterator[Event]:
        yield Progress(0, 1, "steps", "working")
        raise error

    page = dock.show_page("weights")
    monkeypatch.setattr(weights_page, "volume_job", job)
    text = press(page.panel, "Compute whole volume", qtbot)
    assert page.panel.message.is_error and words in text
    running = job()
    next(running)
    with pytest.raises(ResourceError, match="lost|Check"):
        advance(running)


@pytest.mark.parametrize(
    "page, button",
    [
        ("segment", "This region"),
        ("segment", "Whole volume"),
        ("adapt", "Start"),
        ("train", "Resume"),
        ("correct", "Learn from my corrections"),
    ],
)
def test_a_run_of_another_version(dock: Any, qtbot: Any, quick_run: Path, page: str, button: str) -> None:
    config = {"run": str(quick_run), "source": [{"image": "a.tif", "labels": "b.tif"}], "classes": {"square": [7]}}
    (quick_run / "config.yaml").write_text(json.dumps({**config, "training": {"warp": 9}}))
    about = {"name": "unet9", "in_channels": 1, "classes": 2, "options": {}}
    (quick_run / "run.json").write_text(json.dumps({"classes": {"square": [7]}, "network": about, "pixel_nm": 8.0}))
    (quick_run / "last.safetensors").touch()
    before = {path: path.read_bytes() for path in quick_run.iterdir()}
    shown: Any = dock.show_page(page)
    if page == "train":
        shown.run.path = quick_run
    if page == "correct":
        shown.paint.new_button.click()
        dock.session.layer("corrections").paint((1, 10, 10), 7)
    text = press(shown.panel, button, qtbot)
    assert shown.panel.message.is_error and "made by another version" in text, text
    assert "again" in text and "nothing was changed" in text
    assert {path: path.read_bytes() for path in quick_run.iterdir() if path.is_file()} == before


def test_a_project_of_a_later_version(dock: Any, qtbot: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Project.create(other).close()
    about = json.loads((other / "project.json").read_text())
    text = json.dumps({**about, "schema": 99, "version": "9.0"})
    (other / "project.json").write_text(text)
    row = dock.pages["data"].project
    mine = dock.session.project
    row.open(other)
    assert row.state.is_error and "written by napari-em-da 9.0" in row.state.text()
    assert "Update napari-em-da" in row.state.text()
    assert (other / "project.json").read_text() == text
    assert dock.session.project is mine and dock.keeper.project is mine, "the open project stays open"


def test_a_new_project_and_a_training_on_a_full_disk(dock: Any, qtbot: Any, tmp_path: Path, monkeypatch: Any) -> None:
    mine = dock.session.project
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    page = ready_to_train(dock, qtbot)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: usage)
        text = press(page.panel, "Start", qtbot)
        assert page.panel.message.is_error and "MB free; free some space, or choose another run folder" in text, text
    with monkeypatch.context() as patch:

        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(files.os, "replace", full)
        row = dock.pages["data"].project
        row.open(tmp_path / "second")
        assert row.state.is_error and "full" in row.state.text(), row.state.text()
    assert dock.session.project is mine
    assert press(page.panel, "Start", qtbot).startswith("Finished 2 steps"), "with space again it goes on"


def test_without_opengl_it_is_said_and_the_pages_work(make_napari_viewer: Any, qtbot: Any, monkeypatch: Any) -> None:
    viewer = make_napari_viewer()
    assert graphics.opengl_found()
    found = guide.GuideDock(viewer)
    qtbot.addWidget(found)
    assert found.picture.isHidden() and not found.picture.text()
    monkeypatch.setattr(guide, "opengl_found", lambda: False)
    blind = guide.GuideDock(viewer)
    qtbot.addWidget(blind)
    assert "no OpenGL" in blind.picture.text() and "graphics driver" in blind.picture.text()
    assert "LIBGL_ALWAYS_SOFTWARE=1" in blind.picture.text() and not blind.picture.isHidden()
    for name in guide.PAGES:
        assert blind.show_page(name).need is not None
    for dock in (found, blind):
        dock.close_all()
        for page in dock.pages.values():
            qtbot.waitUntil(lambda page=page: not any(runner.running for runner in page._runners), timeout=LONG_MS)
