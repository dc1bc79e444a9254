"""Menus of layers, and lines for paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QWidget


class LayerChoice(QComboBox):
    """A menu of the viewer's layers of a type that follows the layer list.

    Parameters
    ----------
    viewer : napari.Viewer
    kind : type of layer, or several
    optional : bool
        Offer no layer first.
    empty : str
        What stands for no layer.
    """

    chosen = Signal()

    def __init__(
        self, viewer: Any, kind: type[Layer] | tuple[type[Layer], ...], *, optional: bool = False, empty: str = "none"
    ) -> None:
        super().__init__()
        self._empty = empty
        self._layers = viewer.layers
        self._kind = kind
        self._optional = optional
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)
        for name in ("inserted", "removed", "reordered", "renamed"):
            getattr(viewer.layers.events, name).connect(self.refresh)
        self.currentIndexChanged.connect(lambda _: self.chosen.emit())
        self.refresh()

    @property
    def layer(self) -> Layer | None:
        chosen = self.currentData()
        return chosen if chosen in self._layers else None

    def layers(self) -> list[Layer]:
        """Return the layers that the menu offers."""
        return [layer for layer in map(self.itemData, range(self.count())) if layer is not None]

    def choose(self, layer: Layer) -> None:
        """Choose a layer of the viewer."""
        self.setCurrentIndex(self._index_of(layer))

    def memo(self) -> str | None:
        """Return the name of the chosen layer."""
        return None if self.layer is None else str(self.layer.name)

    def restore(self, name: str | None) -> None:
        """Choose the layer of this name, if it is there."""
        if name is not None and name in self._layers:
            self.choose(self._layers[name])

    def refresh(self, event: Any = None) -> None:
        """List the layers again and keep the choice where that layer is still there."""
        before = self.currentData()
        self.blockSignals(True)
        self.clear()
        if self._optional:
            self.addItem(self._empty, None)
        for layer in self._layers:
            if isinstance(layer, self._kind) and not layer.metadata.get("preview"):
                self.addItem(layer.name, layer)
        index = self._index_of(before)
        self.setCurrentIndex(index if index >= 0 else (0 if self.count() else -1))
        self.blockSignals(False)
        if self.currentData() is not before:
            self.chosen.emit()

    def _index_of(self, layer: Any) -> int:
        layer = getattr(layer, "__wrapped__", layer)  # what a dock adds to the viewer comes back guarded by napari
        return next((i for i in range(self.count()) if self.itemData(i) is layer), -1)


class PathLine(QWidget):
    """A path to type or to browse for; empty means None.

    Parameters
    ----------
    title : str
        Of the dialog.
    placeholder : str
        Shown while the line is empty.
    folder : bool
        Choose a folder, else a file to write.
    """

    changed = Signal()

    def __init__(self, title: str, placeholder: str = "", *, folder: bool = True) -> None:
        super().__init__()
        self._title = title
        self._folder = folder
        self.line = QLineEdit()
        self.line.setPlaceholderText(placeholder)
        self.line.textChanged.connect(lambda _: self.changed.emit())
        button = QPushButton("…")
        button.setFixedWidth(32)
        button.setToolTip(title)
        button.clicked.connect(lambda _: self._browse())
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.line)
        layout.addWidget(button)

    @property
    def path(self) -> Path | None:
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    @path.setter
    def path(self, path: Path | None) -> None:
        self.line.setText("" if path is None else str(path))

    def memo(self) -> str:
        """Return what the line holds."""
        return self.line.text()

    def restore(self, text: str) -> None:
        """Show it again."""
        self.line.setText(text)

    def _browse(self) -> None:
        start = str(self.path or Path.home())
        if self._folder:
            text = QFileDialog.getExistingDirectory(self, self._title, start)
        else:
            text, _ = QFileDialog.getSaveFileName(self, self._title, start, "Volumes (*.tif *.zarr)")
        if text:
            self.path = Path(text)
