"""What would stop the window when it is needed for the first time, done in a thread before."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_em_da._napari.sharing import give_way, short_turns

POLL_S = 0.05
MOST_S = 5.0  # that a job waits, in case the disk is slow

_begun: dict[Callable[[], None], threading.Thread] = {}
_one = threading.Lock()  # at a time: an import that waits for a library which another thread loads keeps Python's lock


def warm_up() -> None:
    """Load and compile in a thread what the first job and the first layer would wait for; only once.

    Call it when the settings are applied: torch's libraries read the number of threads as they are loaded.
    """
    _begin(_warm)


def warm_training() -> None:
    """Load in a thread what a process loads for its first training; only once.

    A round of corrections has a few seconds, and this takes three or more of them.
    """
    _begin(_warm_training)


def _begin(work: Callable[[], None]) -> None:
    if work not in _begun:
        _begun[work] = threading.Thread(target=work, name="em-da-warm")
        _begun[work].start()


def _warm() -> None:
    with _one:
        load_libraries()
        import_pages()
        compile_colours()


def wait_until_warm(given_up: Callable[[], bool]) -> None:
    """Let what ``warm_up`` has begun come to its end; for the thread of a job.

    A layer that the job adds would be added and drawn beside it, in twice the time.
    """
    warming, end = _begun.get(_warm), time.monotonic() + MOST_S
    while warming is not None and warming.is_alive() and not given_up() and time.monotonic() < end:
        warming.join(POLL_S)


def _warm_training() -> None:
    with _one, short_turns():
        give_way()
        importlib.import_module("napari_em_da.workflows.corrections")
        importlib.import_module("torch._dynamo")  # which the first step of an optimiser imports


def import_pages() -> None:
    """Import what the pages are made of: a click on a step would wait for it, and for jobs that import the same."""
    from napari_em_da._napari.guide import PAGES

    for name in PAGES:
        importlib.import_module(f"napari_em_da._napari.{name}_page")


def load_libraries() -> None:
    """Load the large shared libraries of torch and OpenCV, and leave Python's lock to others meanwhile.

    Importing them holds it while the system loads and links, 0.2 to 0.9 s, also in a thread, and so does
    ``ctypes.CDLL``. A call of the system's own dlopen is a foreign call like any other: it gives the lock away.
    """
    if sys.platform not in ("linux", "darwin"):
        return
    system = ctypes.CDLL(None)
    if not hasattr(system, "dlopen"):  # C libraries that have it in a file of its own
        return
    system.dlopen.restype, system.dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    for package, pattern in (("torch", "lib/libtorch_python.*"), ("cv2", "cv2*.so")):
        spec = None if package in sys.modules else importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations if spec is not None else None) or ():
            for library in Path(folder).glob(pattern):  # what is wrong with one, its import says better
                system.dlopen(str(library).encode(), os.RTLD_NOW)


def compile_colours() -> None:
    """Colour a label by a table of colours: the first time, numba compiles for a second or two, where this is called.

    Class labels are 8 bits wide; napari compiles for each width.
    """
    DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", 1: "red"}).map(np.zeros(1, np.uint8))


__all__ = ["compile_colours", "load_libraries", "wait_until_warm", "warm_training", "warm_up"]
