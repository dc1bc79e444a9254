"""Keep Python's garbage collections short, which stop the interpreter and the window with it.

Once napari, torch and what they bring are loaded, a full collection looks at some 700 000 objects that will never be
garbage, for 0.4 to 0.5 s, and napari asks for one whenever a layer goes. Python can be told to pass over what exists
(``gc.freeze``). The price: of that, what refers to itself is not found when it goes; for a volume in memory that would
be a leak, so the removal of a layer that was there and holds one takes it back.
"""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import numpy as np

NEW_MODULES = 100  # so many more than the last time are worth it
LARGE_BYTES = 16 << 20  # more than a section, which a preview holds


class Garbage:
    """What the collector passes over while a dock is open; ``settle`` is called again and again.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._modules = 0
        self._there: weakref.WeakSet[Any] = weakref.WeakSet()
        self._going: weakref.WeakSet[Any] = weakref.WeakSet()
        viewer.layers.events.removing.connect(self._removing)

    def settle(self) -> None:
        """Let the collector pass over what exists, once more after many modules were imported."""
        if len(sys.modules) < self._modules + NEW_MODULES or len(self._going):
            return
        self._modules = len(sys.modules)
        self._there.update(self._viewer.layers)
        gc.freeze()

    def close(self) -> None:
        """Let the collector look at everything again."""
        self._viewer.layers.events.removing.disconnect(self._removing)
        self._thaw()

    def _removing(self, event: Any) -> None:
        layer = self._viewer.layers[event.index]
        if layer in self._there and held_bytes(layer) > LARGE_BYTES:
            self._going.add(layer)  # nothing is frozen again before the collector has taken it
            self._thaw()

    def _thaw(self) -> None:
        self._modules = 0
        self._there.clear()
        gc.unfreeze()


def held_bytes(layer: Any) -> int:
    """Return the memory that the data of a layer takes; lazy arrays take none."""
    levels = layer.data if getattr(layer, "multiscale", False) else [layer.data]
    return sum(level.nbytes for level in levels if isinstance(level, np.ndarray))


__all__ = ["LARGE_BYTES", "NEW_MODULES", "Garbage", "held_bytes"]
