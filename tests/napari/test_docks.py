"""The real docks in a real viewer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")
from napari_em_da._napari import SegmentPage, TrainPage, WeightsPage

PLACE = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}
NAMES = {WeightsPage: "Weight maps", TrainPage: "Train", SegmentPage: "Segment"}


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


@pytest.mark.parametrize("kind", NAMES)
def test_each_entry_of_the_menu_opens_its_page(viewer: Any, qtbot: Any, kind: type) -> None:
    dock = docked(viewer, kind)
    dock.close_jobs()
    qtbot.waitUntil(lambda: not any(runner.running for runner in dock._runners), timeout=60_000)


def test_menus_follow_the_layer_list(viewer: Any, qtbot: Any) -> None:
    dock = docked(viewer, SegmentPage)
    assert [dock.image.itemText(i) for i in range(dock.image.count())] == ["choose a layer …", "raw"]
    added = viewer.add_image(np.zeros((2, 4, 4)), name="second")
    dock.image.choose(added)
    viewer.layers["raw"].name = "renamed"
    assert dock.image.layer is added
    assert {dock.image.itemText(i) for i in (1, 2)} == {"renamed", "second"}
    viewer.layers.remove(added)
    assert dock.image.layer is None, "nobody chose the other layer"
    viewer.layers.clear()
    assert dock.image.layer is None


def test_the_manifest_leads_to_the_samples(make_napari_viewer: Any) -> None:
    opened = make_napari_viewer().open_sample("napari-em-da", "flyem")
    assert [layer.name for layer in opened] == ["FlyEM image", "FlyEM instances"]
    assert [str(unit) for unit in opened[0].units] == ["nanometer"] * 3


def test_docks_open_without_torch() -> None:
    """In a process of its own, since other tests here have loaded torch."""
    code = (
        "import sys, napari; from napari.components import ViewerModel\n"
        "from qtpy.QtWidgets import QApplication; app = QApplication([])\n"
        "from napari_em_da._napari import SegmentPage, TrainPage, WeightsPage\n"
        "docks = [kind(ViewerModel()) for kind in (SegmentPage, TrainPage, WeightsPage)]\n"
        "print(*{'torch', 'matplotlib'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert not out.stdout.split(), f"opening the docks loads {out.stdout.strip()}"
