"""Segment an image layer with a run folder; the result becomes a labels layer at the image's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Image, Layer
from qtpy.QtWidgets import QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import LayerChoice, PathLine
from napari_em_da._napari.dock import Dock, collapsible
from napari_em_da._napari.form import Form, add_row, form_layout
from napari_em_da._napari.job_panel import JobPanel
from napari_em_da.config import SegmentConfig
from napari_em_da.errors import ConfigError
from napari_em_da.jobs import Job

MAIN = ("tta", "precision", "checkpoint")
MORE = ("tile_px", "batch", "device", "overwrite")


class SegmentDock(Dock):
    """Choose an image and a run, segment, look.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.image = LayerChoice(napari_viewer, Image)
        self.run = PathLine("Run folder", "folder that a training made")
        self.output = PathLine("Label volume to write", "in the run folder", folder=False)
        self.probabilities = PathLine("Probability volume to write", "not written", folder=False)
        nowhere = SegmentConfig(image=Path("layer"), run=Path("run"), output=Path("labels.tif"))
        titles = {"tta": "Average over 8 symmetries (slower)"}
        self.options = Form(nowhere, only=MAIN, titles=titles)
        self.more = Form(nowhere, only=MORE)
        self.panel = JobPanel("Segmentation", {"Segment": self._start}, self._show)
        top = QWidget()
        rows = form_layout(top)
        add_row(rows, "Image", self.image)
        add_row(rows, "Run folder", self.run)
        add_row(rows, "Labels file", self.output)
        add_row(rows, "Probabilities", self.probabilities)
        self.lay_out([top, self.options, collapsible("More", self.more)], [self.panel])
        self.cancel_with_me(self.panel)

    def _start(self) -> Job:
        if self.image.layer is None:
            raise ConfigError("Choose an image layer to segment.")
        if self.run.path is None:
            raise ConfigError("Choose the run folder of a trained or adapted network.")
        self.options.read()
        self.more.read()
        options = {**self.options.values(), **self.more.values(), "probabilities": self.probabilities.path}
        taken = layers.snapshot(self.image.layer)
        job = layers.segment(taken, self.run.path, self.output.path, **options)
        return layers.then(job, lambda result: (result, layers.result_layers(result, taken)))

    def _show(self, outcome: Any) -> None:
        result, found = outcome
        for data in found:
            self.viewer.add_layer(Layer.create(*data))
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result.foreground.items())
        self.panel.message.info(f"{shares} of the voxels, in {result.seconds:.0f} s. Saved as {result.output}.")
