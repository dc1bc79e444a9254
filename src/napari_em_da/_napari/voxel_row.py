"""The voxel size and the order of the axes of a layer, to see and to change."""

from __future__ import annotations

import itertools
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.form import to_text
from napari_em_da._napari.message import Message
from napari_em_da.config import VoxelSize
from napari_em_da.errors import DataError
from napari_em_da.volume import check_voxel_size

UNKNOWN = "Size unknown: type it, as 30, 8, 8."


class VoxelRow(QWidget):
    """Shows a layer's voxel size in nm and its axes; says what the user wants instead."""

    size_set = Signal(object)
    axes_set = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.line = QLineEdit()
        self.line.setPlaceholderText("z, y, x")
        self.line.setToolTip("How many nanometres a voxel measures along z (between sections), y and x")
        self.line.editingFinished.connect(self._typed)
        self.axes = QComboBox()
        self.axes.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.axes.setMinimumContentsLength(5)
        self.axes.setMaximumWidth(84)
        self.axes.setToolTip("What the axes of the data are, first to last; napari-em-da works on z, y, x")
        self.axes.activated.connect(lambda _: self.axes_set.emit(self.axes.currentData()))
        self.message = Message()
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(self.axes)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(self.message)
        self.show_layer(None)

    def show_layer(self, layer: Layer | None) -> None:
        """Show what a layer's scale, units and axis labels say."""
        self.setEnabled(layer is not None)
        self._orders("zyx" if layer is None else layers.axis_order(layer))
        self.message.clear()
        size: VoxelSize | None = None
        try:
            size = None if layer is None else layers.layer_voxel(layer)
        except DataError as error:
            self.message.warn(str(error))
        else:
            if layer is not None and size is None:
                self.message.warn(UNKNOWN)
        self._shown = to_text(None if size is None else [float(f"{s:g}") for s in size])
        if not (self.line.hasFocus() and self.line.isModified()):
            self.line.setText(self._shown)

    def _orders(self, order: str) -> None:
        if self.axes.currentData() == order:
            return
        self.axes.clear()
        for axes in itertools.permutations(sorted(order, reverse=True)):
            self.axes.addItem(", ".join(axes), "".join(axes))
        self.axes.setCurrentIndex(self.axes.findData(order))

    def _typed(self) -> None:
        text = self.line.text().strip()
        if not self.line.isModified() or text == self._shown:
            return
        self.line.setModified(False)
        try:
            size = parse_size(text)
        except DataError as error:
            self.message.error(str(error))
        else:
            self.size_set.emit(size)


def parse_size(text: str) -> VoxelSize:
    """Return what was typed as (z, y, x) in nm; a single number counts for all three.

    Raises
    ------
    DataError
        If these are not three positive numbers.
    """
    parts: list[Any] = text.replace(",", " ").replace("nm", " ").split()
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise DataError(f"{text!r} is no voxel size; type three numbers in nm, for example 30, 8, 8.") from None
    return check_voxel_size(numbers * 3 if len(numbers) == 1 else numbers)
