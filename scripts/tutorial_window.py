"""A user of the guided window who is a script: opens it, clicks, waits, and takes pictures of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SIZE = 1600, 1000
CHECKED = [(size, theme) for size in (SIZE, (1280, 720)) for theme in ("dark", "light")]
WIDTH = 1200  # of the pictures that are kept
COLOURS = 128


class User:
    """Whoever sits before the real window.

    Parameters
    ----------
    pictures : Path
        Folder of the pictures that are kept.
    check : Path, optional
        Folder of the same pictures in both sizes and both themes, to look at.
    only : names
        Pictures to take; all if empty.

    Attributes
    ----------
    viewer : napari.Viewer
    dock : GuideDock
    """

    def __init__(self, pictures: Path, check: Path | None = None, only: Iterable[str] = ()) -> None:
        from qtpy.QtWidgets import QApplication

        import napari

        self.pictures, self.check, self.only = pictures, check, tuple(only)
        for folder in (pictures, check):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        self.viewer = napari.Viewer(title="napari")
        self._process = QApplication.processEvents
        self.window = self.viewer.window._qt_window
        self.window.resize(*SIZE)
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-em-da", "EM DA")
        self._began = time.monotonic()
        self.rest()

    def rest(self, seconds: float = 0.5) -> None:
        """Let the window work."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._process()
            time.sleep(0.01)

    def wait(self, done: Callable[[], bool], what: str, seconds: float = 600) -> None:
        """Let the window work until something is done; a TimeoutError says what was not."""
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(f"{what} did not end within {seconds:.0f} s")
            self._process()
            time.sleep(0.02)
        self.rest(0.2)

    def go(self, name: str) -> Any:
        """Click on a step and return its page."""
        self.dock.stepper.buttons[name].click()
        self.rest(1.0)
        return self.dock.pages[name]

    def run(self, panel: Any, button: str, minutes: float = 15) -> float:
        """Press a button of a job and return after how many seconds it ended; its error stops the script."""
        began = time.monotonic()
        panel.buttons[button].click()
        self.wait(lambda: not panel.running, button, 60 * minutes)
        seconds = time.monotonic() - began
        print(f"{button}: {seconds:.0f} s. {panel.message.text()}", flush=True)
        if panel.message.is_error:
            raise RuntimeError(panel.message.text())
        return seconds

    def show(self, *names: str) -> None:
        """Make these layers visible, and no others."""
        for layer in self.viewer.layers:
            layer.visible = layer.name in names
        self.rest()

    def settle(self, done: Callable[[], bool], what: str, seconds: float = 300) -> None:
        """Wait until something is done and stays so."""
        for _ in range(2):
            self.wait(done, what, seconds)
            self.rest(1)

    def centre(self, layer: Any, zoom: float = 1.0, columns: float = 1.0) -> None:
        """Put a layer, or so many beside each other, into the middle of the canvas."""
        import numpy as np

        shape = np.array(layer.data.shape[-2:]) * np.abs(layer.scale[-2:])
        corner = np.asarray(layer.translate[-2:])
        camera = getattr(self.viewer, "scene", self.viewer).camera  # moved there in napari 0.9
        camera.center = (0.0, *(corner + shape * (0.5, 0.5 * columns)))
        canvas = self.viewer.window._qt_viewer.canvas.size
        camera.zoom = 0.96 * zoom * min(canvas[0] / shape[0], canvas[1] / (shape[1] * columns))

    def picture(self, name: str, frame: Callable[[], None] = lambda: None) -> None:
        """Take a picture of the window; ``frame`` puts the content into the middle of the canvas."""
        if self.only and name not in self.only:
            return
        frame()
        self.rest()
        shot(self.window, self.pictures / f"{name}.png", WIDTH)
        if self.check is not None:
            for (width, height), theme in CHECKED:
                self.viewer.theme = theme
                self.window.resize(width, height)
                self.rest()
                frame()
                self.rest()
                shot(self.window, self.check / f"{name}-{height}-{theme}.png")
            self.viewer.theme = "dark"
            self.window.resize(*SIZE)
            self.rest()
            frame()
        print(f"{time.monotonic() - self._began:.0f} s: {name}", flush=True)

    def leave(self) -> None:
        """Close the window as a user does."""
        self.dock.close_all()
        self.viewer.close()
        self.rest(0.2)


def shot(window: Any, path: Path, width: int | None = None) -> None:
    """Save what a window shows; with a width, small, in a palette of few colours."""
    import numpy as np
    from PIL import Image
    from qtpy.QtGui import QImage

    grabbed = window.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    data = np.frombuffer(grabbed.constBits().asarray(grabbed.sizeInBytes()), np.uint8)
    rows = data.reshape(grabbed.height(), grabbed.bytesPerLine())[:, : 3 * grabbed.width()]
    picture = Image.fromarray(rows.reshape(grabbed.height(), grabbed.width(), 3).copy())
    if width is not None:
        size = width, round(picture.height * width / picture.width)
        small = picture.resize(size, Image.Resampling.LANCZOS)
        picture = small.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def own_settings(folder: Path) -> None:
    """Keep napari's settings here, so that nobody's own are read or changed; call it before napari is imported."""
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
