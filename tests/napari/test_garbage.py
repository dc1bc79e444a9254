"""What the collector passes over while the window is open, and what it must find all the same."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np

from napari_em_da._napari.garbage import LARGE_BYTES
from napari_em_da._napari.guide import GuideDock


class Ring:
    """Something that only the collector can free: it refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def gone(thing: weakref.ref[Any]) -> bool:
    gc.collect()
    return thing() is None


def test_what_is_there_is_passed_over_until_the_dock_closes(make_napari_viewer: Any) -> None:
    viewer, ring = make_napari_viewer(), Ring()
    dock, there = GuideDock(viewer), weakref.ref(ring)
    viewer.window.add_dock_widget(dock)
    dock.garbage.settle()
    frozen = gc.get_freeze_count()
    assert frozen > 100_000
    dock.garbage.settle()
    assert gc.get_freeze_count() <= frozen, "nothing new is frozen while nothing was imported"
    del ring
    assert not gone(there)
    later = weakref.ref(Ring())
    assert gone(later), "what came after is found as ever"
    dock.close_all()
    assert gc.get_freeze_count() == 0 and gone(there)


def test_a_layer_that_was_there_is_freed_with_its_volume(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    layer = viewer.add_image(np.zeros((LARGE_BYTES // 2**18 + 1, 256, 256), np.float32), name="old")
    small = viewer.add_image(np.zeros((4, 16, 16), np.float32), name="small")
    layer.metadata["ring"] = ring = Ring()
    held = weakref.ref(ring)
    dock = GuideDock(viewer)
    viewer.window.add_dock_widget(dock)
    new = viewer.add_image(np.zeros((4, 16, 16), np.float32), name="new")
    dock.garbage.settle()
    late = viewer.add_image(np.zeros((4, 16, 16), np.float32), name="late")
    viewer.layers.remove(late)
    viewer.layers.remove(small)
    assert gc.get_freeze_count() > 0, "neither one that came after nor a small one changes anything"
    viewer.layers.remove(layer)
    dock.garbage.settle()
    assert gc.get_freeze_count() == 0, "nothing is frozen while the layer is still there to be freed"
    del layer, ring
    assert gone(held)
    del new, late
    dock.garbage.settle()
    assert gc.get_freeze_count() > 0
    dock.close_all()
