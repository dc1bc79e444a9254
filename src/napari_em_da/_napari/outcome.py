"""What came of an adaptation: which checkpoint was chosen and why, and before and after on the section in view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Layer
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QTextBrowser, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.live import box_in_view
from napari_em_da._napari.message import Message
from napari_em_da._napari.page import collapsible
from napari_em_da._napari.pair import Pair
from napari_em_da._napari.turns import Turns
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import VoxelSize
from napari_em_da.errors import DataError, EmDaError


class Outcome(QWidget):
    """The choice in words, the table of all candidates, and the comparison.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    button : QPushButton
        Asks for a comparison; the page knows of what.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.turns = Turns(self)
        self.pair = Pair(viewer, self.turns)
        self.chosen = Message()
        self.warning = Message()
        self.expected = Message()
        self.report = QTextBrowser()
        self.report.setFixedHeight(220)
        self.report.setLineWrapMode(QTextBrowser.LineWrapMode.NoWrap)
        self.candidates = collapsible("All candidates", self.report)
        self.candidates.hide()
        self.button = QPushButton("Compare on this section")
        self.button.setToolTip("Segment the section in view with the network before and after the adaptation")
        self.side = QCheckBox("Side by side")
        self.side.setToolTip("Otherwise both lie on the image")
        self.side.setChecked(True)
        self.side.toggled.connect(self.pair.set_apart)
        self.compared = Message()
        self.runner = JobRunner(lambda _event: None, self._show_pair)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        for widget in (self.chosen, self.warning, self.expected, self.candidates):
            rows.addWidget(widget)
        row = QHBoxLayout()
        row.addWidget(self.button, 1)
        row.addWidget(self.side)
        rows.addLayout(row)
        rows.addWidget(self.compared)
        self.hide()

    def forget(self) -> None:
        """Say nothing: another adaptation begins."""
        self.runner.abandon()
        for message in (self.chosen, self.warning, self.expected, self.compared):
            message.clear()
        self.candidates.hide()
        self.hide()

    @property
    def running(self) -> bool:
        """Whether a comparison is computed or being shown."""
        return self.runner.running or self.turns.isActive()

    def tell(self, found: layers.Adapted) -> None:
        """Say which checkpoint was chosen, why, and what to expect of it."""
        named = "" if found.why.startswith(found.chosen) else f"{found.chosen}. "
        self.chosen.info(f"Chosen without labels: {named}{found.why}")
        self.warning.warn(found.warning or "")
        if found.expected is not None:
            iou, low, high = found.expected
            self.expected.info(f"Expected IoU on this image: {iou:.2f}, most likely between {low:.2f} and {high:.2f}.")
        self.report.setMarkdown(found.report)
        self.candidates.setVisible(bool(found.report))
        self.show()

    def compare(self, image: Layer, runs: dict[str, Path], voxel_nm: VoxelSize | None) -> None:
        """Segment the section in view with both networks, in the background.

        Parameters
        ----------
        image : layer
        runs : {"before", "after": run folder}
        voxel_nm : (z, y, x), optional
            Where it is not the layer's own.
        """
        try:
            region = box_in_view(self.viewer, image)
            if region is None:
                raise DataError(f"The layer {image.name!r} has no sections to compare; choose one of (Z, Y, X).")
            classes = layers.run_classes(runs["after"])
            taken = layers.snapshot(image)
            corners = [(region[1].start, region[2].start), (region[1].stop - 1, region[2].stop - 1)]
            box = layers.view_box(taken.volume.shape, region[0].start, corners)
            job = layers.compare_section(taken, runs, box, voxel_nm=voxel_nm)
        except EmDaError as error:
            self.compared.error(str(error))
            return
        self.compared.info("Segmenting this section with both networks …")
        read = taken.volume.read  # in the job: a section may have to be decoded
        whole = layers.then(job, lambda found: (image, box, classes, {**found, "section": read(box)[0]}))
        self.runner.start(whole, silent=True)

    def _show_pair(self, result: Any, error: Exception | None) -> None:
        self.compared.clear()
        if error is not None:
            self.compared.error(str(error))
        elif result is not None:
            image, box, classes, found = result
            if image not in self.viewer.layers:
                self.compared.info("The image was removed; choose another one to compare.")
                return
            self.pair.show(image, box, classes, found)
            before, after = found["before"], found["after"]
            shares = [100 * part.mean() for part in (before > 0, after > 0, before != after)]
            self.compared.info(
                f"Section {box[0].start}: {shares[0]:.1f} % foreground before, {shares[1]:.1f} % after; "
                f"{shares[2]:.1f} % of the pixels changed."
            )
