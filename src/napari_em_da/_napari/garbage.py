"""Keep Python's garbage collections short, which stop the interpreter and the window with it.

Once napari, torch and what they bring are loaded, a full collection looks at some 700 000 objects that will never be
garbage, for 0.4 to 0.5 s, and napari asks for one whenever a layer goes. Python can be told to pass over what exists
(``gc.freeze``). The price: of that, what refers to itself is not found when it goes; for layers and their volumes that
would be a leak, so the removal of a layer that was there takes it back.
"""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

NEW_MODULES = 100  # so many more than the last time are worth it


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
        if layer in self._there:
            self._going.add(layer)  # nothing is frozen again before the collector has taken it
            self._thaw()

    def _thaw(self) -> None:
        self._modules = 0
        self._there.clear()
        gc.unfreeze()


__all__ = ["NEW_MODULES", "Garbage"]
