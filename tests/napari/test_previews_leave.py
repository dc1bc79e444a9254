"""What one page previews does not cover what another page shows, and words can be read in both themes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
from napari.layers import Labels
from napari.utils._proxies import PublicOnlyProxy
from napari.utils.colormaps import DirectLabelColormap, direct_colormap
from qtpy.QtGui import QColor

from napari_em_da._napari import GuideDock
from napari_em_da._napari.choice import LayerChoice
from napari_em_da._napari.message import Message
from napari_em_da._napari.section_preview import SectionPreview

SEEN = 4.5  # contrast that WCAG 2.1 asks of text


def contrast(one: QColor, other: QColor) -> float:
    """Contrast ratio of WCAG 2.1: 1 for equal colours, 21 for black on white."""
    lights = []
    for colour in (one, other):
        parts = np.array(colour.getRgbF()[:3])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_a_preview_leaves_with_its_page_and_comes_back(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    layer = viewer.add_image(np.zeros((3, 32, 32), np.uint8))
    dock = GuideDock(viewer)
    qtbot.addWidget(dock)
    page = dock.show_page("weights")
    preview = viewer.add_image(np.zeros((32, 32), np.uint8), metadata={"preview": True})

    dock.show_page("data")
    assert not preview.visible
    assert layer.visible, "what is no preview stays"
    page._wait.stop()
    viewer.dims.set_current_step(0, 2)
    assert not page._wait.isActive(), "nobody sees what would be computed"

    dock.show_page("weights")
    assert preview.visible
    assert page._wait.isActive(), "the section in view is another one now"

    preview.visible = False  # by the user
    dock.show_page("data")
    dock.show_page("weights")
    assert not preview.visible
    dock.close_all()


def test_numbers_of_objects_are_not_shown_in_the_colours_of_classes(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    classes = viewer.add_labels(np.ones((4, 4), np.uint8), colormap=direct_colormap({None: "transparent", 1: "red"}))
    preview = SectionPreview(viewer, "refined preview")
    objects = np.arange(16, dtype=np.int32).reshape(4, 4)
    preview.show((np.ones((4, 4), np.int32), {}, "labels"), classes)
    layer = preview.layer
    assert layer is not None and isinstance(layer.colormap, DirectLabelColormap)
    preview.show((objects, {}, "labels"), None)
    assert preview.layer is layer
    assert not isinstance(layer.colormap, DirectLabelColormap)
    assert all(layer.get_color(int(number))[3] > 0 for number in objects.ravel()[1:]), "none of them is transparent"


def test_a_layer_that_napari_guards_can_be_chosen(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer()
    choice = LayerChoice(viewer, Labels)
    qtbot.addWidget(choice)
    viewer.add_labels(np.zeros((4, 4), np.uint8), name="first")
    guarded = PublicOnlyProxy(viewer).add_labels(np.zeros((4, 4), np.uint8), name="second")
    assert guarded is not viewer.layers["second"], "napari hands docks that it opens a guarded viewer"
    choice.choose(guarded)
    assert choice.layer is viewer.layers["second"]


@pytest.mark.parametrize("say", ["warn", "error"])
def test_warnings_and_errors_can_be_read_in_both_themes(make_napari_viewer: Any, qtbot: Any, say: str) -> None:
    viewer = make_napari_viewer()
    message = Message()
    viewer.window.add_dock_widget(message, name="words")
    getattr(message, say)("Something is to be done.")

    def seen() -> float:
        return contrast(message.palette().windowText().color(), message.palette().window().color())

    for theme, light in (("dark", False), ("light", True), ("dark", False)):
        viewer.theme = theme
        qtbot.waitUntil(lambda light=light: (message.palette().window().color().lightness() > 128) == light)
        qtbot.waitUntil(lambda: seen() > SEEN)
