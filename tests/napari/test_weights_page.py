"""The Weights page in a real viewer: the preview is the map that training uses, and it follows every change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
import napari_em_da as em
from napari_em_da._napari.form import Form, span_of
from napari_em_da._napari.session import Session
from napari_em_da._napari.sliding import SlidingLine
from napari_em_da._napari.weights_page import EARLY, WeightsPage
from napari_em_da.config import WeightConfig
from napari_em_da.copying import as_python
from napari_em_da.errors import ConfigError
from napari_em_da.volume import Volume

PLACE = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}


@pytest.fixture
def viewer(make_napari_viewer: Any) -> Any:
    """A viewer with a labelled square, label 7, a small one of label 4, and a corner that nobody annotated."""
    viewer = make_napari_viewer()
    labels = np.zeros((4, 64, 96), np.uint8)
    labels[:, 16:48, 16:80] = 7
    labels[2:, 52:60, 20:30] = 4
    labels[1, :8, :8] = 255
    viewer.add_labels(labels, name="square", **PLACE)
    return viewer


@pytest.fixture
def page(viewer: Any, qtbot: Any) -> Any:
    page = WeightsPage(viewer)
    viewer.window.add_dock_widget(page, name="Weights")
    yield page
    page.close_jobs()
    qtbot.waitUntil(lambda: not (page.previewer.running or page.panel.running))


def shows(viewer: Any, expected: Any) -> Any:
    def check() -> None:
        assert "weights preview" in viewer.layers
        np.testing.assert_array_equal(viewer.layers["weights preview"].data, expected)

    return check


def test_preview_is_the_weight_map_of_the_volume(page: Any, viewer: Any, qtbot: Any) -> None:
    labels = viewer.layers["square"]

    def now(z: int, kind: str, **params: Any) -> Any:
        return shows(viewer, em.weight_map(labels.data, kind, **params)[z])

    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(now(2, "entropy"))
    shown = viewer.layers["weights preview"]
    viewer.dims.set_current_step(0, 1)
    qtbot.waitUntil(now(1, "entropy"))
    page.options.editors["window"].set((1, 9, 9))
    qtbot.waitUntil(now(1, "entropy", window=(1, 9, 9)))
    page.kind.setCurrentIndex(page.kind.findData("frequency"))
    qtbot.waitUntil(now(1, "frequency"))
    page.common.editors["floor"].widget.setText("0.9")
    qtbot.waitUntil(now(1, "frequency", floor=0.9))
    labels.paint((1, 60, 60), 7)
    qtbot.waitUntil(now(1, "frequency", floor=0.9))
    assert viewer.layers["weights preview"] is shown, "the layer is updated, not replaced"
    np.testing.assert_allclose(shown.scale, labels.scale[-2:])
    assert viewer.layers.selection.active is labels, "painting goes on"

    page.common.editors["floor"].widget.setText("-1")
    qtbot.waitUntil(lambda: page.state.is_error)
    with pytest.raises(ConfigError, match="floor"):
        page.request()


def test_the_preview_is_made_of_the_classes_of_the_session(page: Any, viewer: Any, qtbot: Any) -> None:
    viewer.dims.set_current_step(0, 3)
    raw = viewer.layers["square"].data
    page.kind.setCurrentIndex(page.kind.findData("frequency"))
    qtbot.waitUntil(shows(viewer, em.weight_map(raw, "frequency")[3]))
    page.session.set_classes({"square": (7,)})
    indices = np.where(raw == 255, 255, (raw == 7).astype(np.uint8)).astype(np.uint8)
    expected = em.weight_map(indices, "frequency")
    assert not np.array_equal(expected, em.weight_map(raw, "frequency"))
    qtbot.waitUntil(shows(viewer, expected[3]))
    assert "square" in page.made_of.text()
    page.panel.buttons["Compute whole volume"].click()
    qtbot.waitUntil(lambda: not page.panel.running)
    layer = viewer.layers["square frequency weights"]
    np.testing.assert_array_equal(layer.data, expected)
    np.testing.assert_allclose(layer.extent.world, viewer.layers["square"].extent.world)


def test_a_slider_moves_the_preview(page: Any, viewer: Any, qtbot: Any) -> None:
    page.kind.setCurrentIndex(page.kind.findData("distance"))
    page.options.editors["boundary"].set((7,))
    slider = page.options.editors["sigma"].widget
    assert isinstance(slider, SlidingLine)
    slider.slider.setValue(4.0)
    assert slider.text() == "4" and page.options.read().sigma == 4
    expected = em.weight_map(viewer.layers["square"].data, "distance", boundary=(7,), sigma=4.0)
    z = viewer.dims.current_step[0]
    qtbot.waitUntil(shows(viewer, expected[z]))
    slider.setText("250")
    assert slider.slider.value() == 30 and page.options.read().sigma == 250, "the line takes what the slider cannot"


def test_a_map_that_all_sections_scale_is_shown_early_and_then_exactly(page: Any, viewer: Any, qtbot: Any) -> None:
    labels = viewer.layers["square"]
    qtbot.waitUntil(lambda: "weights preview" in viewer.layers and not page.previewer.running, timeout=60_000)
    viewer.dims.set_current_step(0, 0)
    expected = em.weight_map(labels.data, "frequency", scale="max1", floor=0.0)[0]
    assert expected.max() < 0.9, "the rarest class is in other sections"
    texts: list[str] = []
    shown: list[Any] = []
    note = page._show_section

    def watch(z: int, section: Any, *more: Any) -> None:
        note(z, section, *more)
        texts.append(page.state.text())
        shown.append(section)

    page._show_section = watch
    page.kind.setCurrentIndex(page.kind.findData("frequency"))
    page.common.editors["floor"].set(0.0)
    page.common.editors["scale"].set("max1")
    qtbot.waitUntil(shows(viewer, expected), timeout=60_000)
    early = [section for section, text in zip(shown, texts, strict=True) if EARLY in text]
    assert any(np.allclose(section, expected / expected.max(), atol=1e-6) for section in early)
    assert EARLY not in page.state.text()


def test_the_preview_does_not_wait_for_the_slider_to_stop(page: Any, viewer: Any, qtbot: Any) -> None:
    page.kind.setCurrentIndex(page.kind.findData("distance"))
    page.options.editors["boundary"].set((7,))
    qtbot.waitUntil(lambda: not page._wait.isActive() and not page.previewer.running, timeout=60_000)
    begun: list[float] = []
    start = page.previewer.start
    page.previewer.start = lambda *job, **how: (begun.append(page.options.read().sigma), start(*job, **how))
    slider = page.options.editors["sigma"].widget.slider
    for position in range(2, 12):  # a position every 15 ms: no pause is as long as the page waits
        slider.setValue(float(position))
        qtbot.wait(15)
    assert begun and begun[0] < 11


def test_sliders_are_for_numbers_with_two_bounds() -> None:
    from napari_em_da.weights.diffusion import DiffusionOptions

    fields = DiffusionOptions.model_fields
    assert span_of(fields["c_decay"]) == (0, 1)
    assert span_of(fields["max_weight"]) is None and span_of(fields["n_steps"]) is None


def test_forms_without_sliders_stay_as_they_are(qtbot: Any) -> None:
    from napari_em_da.weights.diffusion import DiffusionOptions

    form, sliding = Form(DiffusionOptions()), Form(DiffusionOptions(), sliders={"max_weight": (0, 50)})
    qtbot.addWidget(form)
    qtbot.addWidget(sliding)
    assert not any(isinstance(e.widget, SlidingLine) for e in form.editors.values())
    found = {name for name, e in sliding.editors.items() if isinstance(e.widget, SlidingLine)}
    assert found == {"max_weight", "c_diffuse", "c_decay", "threshold"}
    assert sliding.memo() == form.memo()


def test_the_map_is_used_in_training(viewer: Any, qtbot: Any) -> None:
    session = Session(viewer)
    page = WeightsPage(viewer, session)
    qtbot.addWidget(page)
    heard: list[str] = []
    session.changed.connect(heard.append)
    page.kind.setCurrentIndex(page.kind.findData("distance"))
    page.options.editors["sigma"].set(3.0)
    page.common.editors["floor"].set(0.2)
    assert session.weights is None
    page.use_button.click()
    assert session.weights == WeightConfig(kind="distance", floor=0.2, params={"sigma": 3.0})
    assert session.ignore_label == 255 and heard == ["weights"]
    assert page.used.text() == "Training uses this map."
    page.options.editors["sigma"].set(5.0)
    assert page.used.text().startswith("Training uses another distance map")

    memo = page.memo()
    session.set_weights(None)
    page.kind.setCurrentIndex(0)
    page.restore(memo)
    assert page.kind.currentData() == "distance" and page.options.read().sigma == 5
    assert session.weights is not None and session.weights.params == {"sigma": 3.0}
    page.close_jobs()


def test_the_call_makes_the_map_of_the_file(page: Any, viewer: Any, qtbot: Any, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="are in no file"):
        page.call()
    path = Volume.from_array(viewer.layers["square"].data).save(tmp_path / "labels.tif")
    (opened,) = viewer.open(path, plugin="napari", layer_type="labels")
    page.labels.choose(opened)
    page.options.editors["window"].set((1, 7, 7))
    name, config = page.call()
    assert name == "weight_map" and config.labels == path
    text = as_python("weight_map", config)
    assert "window" in text and "entropy" in text
    page.session.set_classes({"square": (7,)})
    with pytest.raises(ConfigError, match="copy the training instead"):
        page.call()


def test_labels_that_go_away(page: Any, viewer: Any, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: "weights preview" in viewer.layers)
    viewer.layers.remove("square")
    assert "Choose a labels layer" in page.need.text()
    page.panel.buttons["Compute whole volume"].click()
    assert page.panel.message.is_error and "no labels layer" in page.panel.message.text()
    page.live.setChecked(False)
    assert "weights preview" not in viewer.layers


def test_training_takes_the_chosen_map(make_napari_viewer: Any) -> None:
    from napari_em_da._napari.session import Session
    from napari_em_da._napari.train_page import TrainPage
    from napari_em_da.config import WeightConfig

    session = Session(make_napari_viewer())
    first = WeightConfig(kind="distance", scale="max1", floor=0.2, params={"mode": "decay"})
    session.set_weights(first, 255)
    page = TrainPage(session.viewer, session)
    assert page.weights.read() == first and page.annotation.read().ignore_label == 255
    second = WeightConfig(kind="entropy", params={})
    session.set_weights(second, None)
    assert page.weights.read() == second and page.annotation.read().ignore_label is None
    page.close_jobs()
    page.deleteLater()
