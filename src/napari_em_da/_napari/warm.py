"""What would stop the window when it is needed for the first time, done in a thread before."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

_begun = threading.Event()


def warm_up() -> None:
    """Load and compile in a thread what the first job and the first layer would wait for; only once.

    Call it when the settings are applied: torch's libraries read the number of threads as they are loaded.
    """
    if not _begun.is_set():
        _begun.set()
        threading.Thread(target=warm, name="em-da-warm").start()


def warm() -> None:
    """Do all of it."""
    load_torch_libraries()
    compile_colours()


def load_torch_libraries() -> None:
    """Load torch's shared libraries, and leave Python's lock to others meanwhile.

    ``import torch`` holds it while the system loads and links them, for 0.2 to 0.5 s, also where a thread imports it.
    """
    ending = {"linux": "so", "darwin": "dylib"}.get(sys.platform)
    found = importlib.util.find_spec("torch")
    if ending is None or found is None or "torch" in sys.modules:
        return
    for folder in found.submodule_search_locations or ():
        with suppress(OSError):  # torch says itself, and better, what is wrong with it
            ctypes.CDLL(str(Path(folder) / "lib" / f"libtorch_python.{ending}"))


def compile_colours() -> None:
    """Colour a label by a table of colours: the first time, numba compiles for a second or two, where this is called.

    Class labels are 8 bits wide; napari compiles for each width.
    """
    DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: "red"}).map(np.zeros(1, np.uint8))


__all__ = ["compile_colours", "load_torch_libraries", "warm_up"]
