"""A row for one role: the menu of layers, a button and drag and drop to open files, and a lock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QCheckBox, QFileDialog, QHBoxLayout, QMenu, QPushButton, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.looks import add
from napari_em_da._napari.message import Message
from napari_em_da._napari.role_choice import RoleChoice
from napari_em_da._napari.session import Role, Session
from napari_em_da._napari.turns import Turns
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import EmDaError

FILES = "Volumes (*.tif *.tiff *.btf *.tf8);;All files (*)"


class RoleRow(QWidget):
    """Choose, open or drop the layer of a role.

    Parameters
    ----------
    session : Session
    role : str
        Of an image ("source", "target") or of labels ("labels", "truth"), which are locked when they are chosen.
    optional : bool
    """

    opened = Signal()

    def __init__(self, session: Session, role: Role, *, optional: bool = False) -> None:
        super().__init__()
        self._session = session
        self.wanted_lock = True
        self._locking: Layer | None = None
        self.kind: Literal["image", "labels"] = "labels" if role in ("labels", "truth") else "image"
        # labels opened by other means come as images; the checks of the page offer to convert them
        kinds = (Labels, Image) if self.kind == "labels" else (Image,)
        self.choice = RoleChoice(session, role, kinds, optional=optional)
        self.message = Message()
        self.runner, self.turns = JobRunner(lambda _event: None, self._opened), Turns(self)
        self.lock = QCheckBox("Lock")
        self.lock.setToolTip("Protects these labels from being painted on; untick it to change them")
        self.lock.setVisible(self.kind == "labels")
        self.lock.setChecked(True)
        self.lock.toggled.connect(lambda _: self._apply_lock())
        self.choice.chosen.connect(self.follow)
        self._lay_out()
        self.setAcceptDrops(True)
        self.follow()

    def _lay_out(self) -> None:
        self.button = QPushButton("…")
        self.button.setFixedWidth(32)
        self.button.setToolTip("Open a file or a folder of sections; files may be dropped here too")
        self.menu = QMenu(self)
        for text, folder in (("Open a TIFF file …", False), ("Open a folder of sections or a .zarr …", True)):
            action = self.menu.addAction(text)
            if action is not None:
                action.triggered.connect(lambda _=False, folder=folder: self._browse(folder=folder))
        self.button.clicked.connect(lambda _: self.menu.popup(self.button.mapToGlobal(self.button.rect().bottomLeft())))
        self.choice.setMinimumContentsLength(6)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.choice, 1)
        row.addWidget(self.lock)
        row.addWidget(self.button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(self.message)

    @property
    def layer(self) -> Layer | None:
        return self.choice.layer

    def open(self, path: Path, name: str | None = None) -> None:
        """Open a file or folder in the background, add it to the viewer and give it the role."""
        self.message.info(f"Opening {path.name} …")
        self.runner.start(layers.open_layer(path, self.kind, name=name), silent=True)

    def show_layer(self, data: Any) -> Layer:
        """Add LayerData to the viewer and give the layer the role."""
        layer = add(self._session.viewer, *data, select=True)
        self.choice.choose(layer)
        return layer

    def follow(self) -> None:
        """Lock the layer that was chosen, and let go of the one before."""
        layer = self.layer
        if layer is not None:
            self.message.clear()
        self.lock.setEnabled(isinstance(layer, Labels))
        if layer is self._locking or self.kind != "labels":
            return
        if self._locking is not None:
            self._locking.events.editable.disconnect(self._apply_lock)
            if not any(self._session.layer(role) is self._locking for role in ("labels", "truth")):
                self._locking.editable = True
        self._locking = layer if isinstance(layer, Labels) else None
        if self._locking is not None:
            self._locking.events.editable.connect(self._apply_lock)  # napari unlocks a layer that gets other data
            self.lock.setChecked(self.wanted_lock)
            self.wanted_lock = True
            self._apply_lock()

    def _apply_lock(self, _event: Any = None) -> None:
        if self._locking is not None:
            self._locking.editable = not self.lock.isChecked()

    def _opened(self, data: Any, error: Exception | None) -> None:
        self.message.clear()
        if error is not None:
            self.message.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
        elif data is not None:
            self.turns.later(partial(self._show, data))

    def _show(self, data: Any) -> None:
        try:
            self.show_layer(data)
        except (ValueError, TypeError) as refused:
            self.message.error(f"napari cannot show this file: {refused}")
        else:
            self.turns.later(self.opened.emit)

    def _browse(self, *, folder: bool) -> None:
        if folder:
            text = QFileDialog.getExistingDirectory(self, "Folder of sections, or .zarr", str(Path.home()))
        else:
            text, _ = QFileDialog.getOpenFileName(self, "Open a stack", str(Path.home()), FILES)
        if text:
            self.open(Path(text))

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files."""
        if event is not None and dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Open the file or folder that was dropped."""
        if event is None:
            return
        event.acceptProposedAction()
        self.drop(dropped(event))

    def drop(self, paths: Sequence[Path]) -> None:
        """Open one file or folder."""
        if len(paths) == 1:
            self.open(paths[0])
        else:
            self.message.error(f"{len(paths)} files were dropped; drop one file, or the folder of all sections.")


def dropped(event: QDragEnterEvent | QDropEvent) -> list[Path]:
    """Return the local files that are dragged."""
    mime = event.mimeData()
    return [Path(url.toLocalFile()) for url in (mime.urls() if mime is not None else []) if url.isLocalFile()]
