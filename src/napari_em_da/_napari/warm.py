"""What would stop the window when it is needed for the first time, done in a thread before."""

from __future__ import annotations

import threading

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

_begun = threading.Event()


def warm_up() -> None:
    """Compile in a thread what napari needs to draw classes in their colours; only once, however often it is called."""
    if not _begun.is_set():
        _begun.set()
        threading.Thread(target=compile_colours, name="em-da-colours").start()


def compile_colours() -> None:
    """Colour a label by a table of colours: the first time, numba compiles for a second or two, where this is called.

    Class labels are 8 bits wide; napari compiles for each width.
    """
    DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: "red"}).map(np.zeros(1, np.uint8))


__all__ = ["compile_colours", "warm_up"]
