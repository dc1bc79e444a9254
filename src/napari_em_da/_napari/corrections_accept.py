"""Accept what is seen, with its corrections, as ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Labels
from qtpy.QtWidgets import QComboBox, QPushButton, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import PathLine
from napari_em_da._napari.form import add_row, form_layout
from napari_em_da._napari.growing import colours
from napari_em_da._napari.looks import add
from napari_em_da._napari.message import Message
from napari_em_da._napari.session import Session
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import ConfigError, EmDaError

SCOPES = {"window": "This place", "section": "This section", "volume": "The volume"}


class AcceptBox(QWidget):
    """Writes ground truth, and shows it as a locked layer.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._classes: dict[str, tuple[int, ...]] = {}
        self.scope = QComboBox()
        for key, text in SCOPES.items():
            self.scope.addItem(text, key)
        self.scope.setToolTip("What you have looked at and trust; the rest stays not annotated")
        self.output = PathLine("Label volume to write", "in the project", folder=False)
        self.button = QPushButton("Accept as ground truth")
        self.button.setToolTip("Write the segmentation with your corrections, and lock it")
        self.message = Message()
        self.runner = JobRunner(lambda _event: None, self._accepted)
        form = QWidget()
        rows = form_layout(form)
        add_row(rows, "Accept", self.scope)
        add_row(rows, "File to write", self.output)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (form, self.button, self.message):
            column.addWidget(widget)

    def start(self, box: Any, classes: dict[str, tuple[int, ...]]) -> None:
        """Write ground truth in the background: the segmentation of a box, with what is painted there."""
        if self.runner.running:
            return
        self._classes = classes
        try:
            prediction = self._session.layer("prediction")
            if not isinstance(prediction, Labels):
                raise ConfigError("Choose the segmentation to accept.")
            truth = self._session.layer("truth")
            before = truth if truth is not None and truth.metadata.get("accepted") else None
            job = layers.accept(prediction, self._session.layer("corrections"), self._path(), box=box, before=before)
        except EmDaError as error:
            self.message.error(str(error))
            return
        self.message.info("Writing …")
        self.runner.start(job, silent=True)

    def _path(self) -> Path:
        if self.output.path is not None:
            return self.output.path
        project = self._session.project
        if project is None:
            raise ConfigError("Choose the file to write, for example truth.tif, or open a project on the Data page.")
        return Path(project.new_export("ground truth.tif"))

    def _accepted(self, found: layers.LayerData | None, error: Exception | None) -> None:
        if error is not None:
            self.message.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
            return
        if found is None:
            self.message.clear()
            return
        data, about, kind = found
        look = layers.truth_look(self._classes)
        truth = self._session.layer("truth")
        if isinstance(truth, Labels) and truth.metadata.get("accepted") and truth.data.shape == data.shape:
            truth.data = data
            truth.metadata.update(about["metadata"])
        else:
            hidden = {**about, "features": look["features"], "colormap": colours(look), "visible": False}
            truth = add(self._session.viewer, data, hidden, kind)
            self._session.assign("truth", truth)
        truth.editable = False
        self.output.path = None  # the next one goes into a file of its own
        self.message.info(f"Saved as {about['metadata']['path']}. It is locked; Evaluate scores against it.")
