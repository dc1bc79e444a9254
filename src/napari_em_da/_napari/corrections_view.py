"""What is in view, and what a round of corrections makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_em_da import layers
from napari_em_da._napari.corrections_places import Window
from napari_em_da._napari.growing import GrowingLayer
from napari_em_da._napari.message import Message
from napari_em_da._napari.session import Session
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.volume import Volume

VIEW_PX = 512
Box = tuple[slice, slice, slice]


def section_box(viewer: Any, image: Layer) -> Box:
    """Return the section in view: whole, or of a large one what is seen.

    Raises
    ------
    ConfigError
        If no section along z is shown.
    """
    dims = viewer.dims
    if dims.ndisplay != 2 or tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
        raise ConfigError("Show the image section by section along z (2D view, axes not rolled).")
    shape = layers.snapshot(image).volume.shape
    depth = float(image.world_to_data(dims.point)[-3]) if image.ndim >= 3 else 0.0
    corners = np.asarray(image.corner_pixels)[:, -2:].astype(float)
    if getattr(image, "multiscale", False):
        corners *= np.asarray(image.downsample_factors[image.data_level])[-2:]
    return layers.view_box(shape, min(max(round(depth), 0), shape[0] - 1), corners)


def window_in_view(viewer: Any, image: Layer) -> Window:
    """Return 512 pixels (fewer of a small image) around the middle of the view; raises as ``section_box``."""
    section = section_box(viewer, image)[0].start
    shape = layers.snapshot(image).volume.shape
    world = list(viewer.dims.point)
    camera = getattr(viewer, "scene", viewer).camera  # moved there in napari 0.9
    for axis, value in zip(viewer.dims.displayed, camera.center[-2:], strict=True):
        world[axis] = value
    middle = image.world_to_data(world)[-2:]
    size = [min(VIEW_PX, n) for n in shape[1:]]
    y, x = (int(np.clip(c - s / 2, 0, n - s)) for c, s, n in zip(middle, size, shape[1:], strict=True))
    return section, y, x, size[0], size[1]


class RoundView:
    """Shows what a run makes of the section in view, in the layer that plays the role "prediction".

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    message : Message
        Says which run is seen.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.message = Message()
        self.runner = JobRunner(lambda _event: None, self._seen)
        self.result = GrowingLayer(session)
        self._of: tuple[layers.Snapshot, Path] | None = None

    def show_round(self, taken: layers.Snapshot, outcome: Any, **options: Any) -> None:
        """Show the view of a round at once, then all of its section."""
        z, y, x, size = outcome.view
        labels = Volume.open(outcome.view_labels).read()
        box = (slice(z, z + 1), slice(y, y + labels.shape[1]), slice(x, x + labels.shape[2]))
        self._show(taken, outcome.run, box, labels)
        corners = ((y, x), (y + size, x + size))
        self.look(taken, outcome.run, layers.view_box(taken.volume.shape, z, corners), **options)

    def look(self, taken: layers.Snapshot, run: Path, box: Box, **options: Any) -> None:
        """Segment a box in the background; raises where the run cannot."""
        job = layers.segment_view(taken, run, box[0], box[1:], **options)
        self._of = taken, run
        self.message.info(f"Section {box[0].start}: segmenting …")
        self.runner.start(job, silent=True)

    def _seen(self, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.message.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
        elif result is not None and self._of is not None:
            self._show(*self._of, result.box, result.labels)
            self.message.info(f"You see section {result.box[0].start} as {self._of[1].name} segments it.")

    def _show(self, taken: layers.Snapshot, run: Path, box: Box, labels: Any) -> None:
        older, mine = self._session.layer("prediction"), self.result.layer
        self.result.begin(taken, layers.run_classes(run), (taken.volume.name, id(taken.volume.source), run))
        self.result.put(box, labels)
        layer = self.result.layer
        if layer is not None and mine is None:
            paint = self._session.layer("corrections")
            if paint is not None and paint in self._session.viewer.layers:  # paint stays on top
                index = self._session.viewer.layers.index(paint)
                self._session.viewer.layers.move(self._session.viewer.layers.index(layer), index)
            if older is not None and older is not layer:
                older.visible = False  # two segmentations on top of each other cannot be read
