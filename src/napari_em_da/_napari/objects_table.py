"""The measurements of objects as a table that follows the labels layer, and leads to each object in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels
from qtpy.QtCore import QAbstractTableModel, QItemSelectionModel, QModelIndex, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_em_da._napari.looks import centre
from napari_em_da._napari.message import Message
from napari_em_da.errors import EmDaError
from napari_em_da.layers.objects import Objects, heading, rows_where

Rows = npt.NDArray[np.int64]
RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
COLUMN_PX = 96


class ObjectsModel(QAbstractTableModel):
    """Columns of arrays, of which some rows are shown, in some order; nothing is copied into Qt."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Mapping[str, npt.NDArray[Any]] = {}
        self.names: tuple[str, ...] = ()
        self.rows: Rows = np.zeros(0, np.int64)  # of the table, as shown
        self._kept: Rows = self.rows
        self._order: tuple[int, bool] = (0, False)

    def show_table(self, table: Mapping[str, npt.NDArray[Any]], kept: Rows) -> None:
        """Show these rows of a table in the order that was chosen."""
        self.beginResetModel()
        if tuple(table) != self.names:
            self._order = (0, False)
        self.table, self.names, self._kept = table, tuple(table), kept
        self.rows = self._sorted()
        self.endResetModel()

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008  # as Qt declares it
        return 0 if parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self.names)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return RIGHT
        if role != Qt.ItemDataRole.DisplayRole or not index.isValid():
            return None
        return cell_text(self.table[self.names[index.column()]][self.rows[index.row()]])

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        wanted = (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole)
        if role not in wanted or orientation != Qt.Orientation.Horizontal or section >= len(self.names):
            return None
        return heading(self.names[section])

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; equal values stay in the order of their ids."""
        self.layoutAboutToBeChanged.emit()
        self._order = (max(0, column), order == Qt.SortOrder.DescendingOrder)
        self.rows = self._sorted()
        self.layoutChanged.emit()

    def _sorted(self) -> Rows:
        column, falling = self._order
        if not self.names or not len(self._kept):
            return self._kept
        values = np.asarray(self.table[self.names[column]])[self._kept]
        values = values.astype(np.int8) if values.dtype == np.bool_ else values
        order = np.argsort(values, kind="stable")
        if falling:
            order = len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]
        return self._kept[order]


class ObjectsTable(QWidget):
    """Rows that can be sorted and filtered; click one to go to its object, pick a label to find its row.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    went = Signal(int)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.objects: Objects | None = None
        self.layer: Labels | None = None
        self._leading = False  # whether the table moves the layer now, or the other way round
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter, for example: volume > 1e6 and sphericity < 0.5")
        self.filter.setToolTip("Conditions on columns, joined by 'and'; a column may be named by its beginning")
        self.filter.setClearButtonEnabled(True)
        self.model = ObjectsModel()
        self.view = QTableView()
        self.view.setModel(self.model)
        self.view.setSortingEnabled(True)
        self.view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.view.setMinimumHeight(300)
        vertical, horizontal = self.view.verticalHeader(), self.view.horizontalHeader()
        if vertical is not None and horizontal is not None:
            vertical.hide()
            vertical.setDefaultSectionSize(22)
            vertical.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
            horizontal.setDefaultSectionSize(COLUMN_PX)
            horizontal.setSortIndicator(0, Qt.SortOrder.AscendingOrder)
        self.count = QLabel()
        self.save_button = QToolButton()
        self.save_button.setText("Save as CSV…")
        self.save_button.setToolTip("Write the rows that are shown, in their order")
        self.save_button.clicked.connect(lambda _=False: self._ask_save())
        self.saved: Path | None = None
        below = QHBoxLayout()
        below.addWidget(self.count)
        below.addStretch(1)
        below.addWidget(self.save_button)
        self.message = Message()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.filter)
        column.addWidget(self.view)
        column.addLayout(below)
        column.addWidget(self.message)
        self.filter.textChanged.connect(lambda _: self._refill())
        selection = self.view.selectionModel()
        if selection is not None:
            selection.currentRowChanged.connect(self._row_chosen)
        viewer.layers.events.removed.connect(self._removed)
        self.destroyed.connect(lambda *_: viewer.layers.events.removed.disconnect(self._removed))
        self._refill()

    def show_objects(self, objects: Objects, layer: Labels) -> None:
        """Show the measurements of a layer, and follow the label that is picked in it."""
        self._unlink()
        self.objects, self.layer = objects, layer
        layer.events.selected_label.connect(self._label_picked)
        for name in ("paint", "data"):
            getattr(layer.events, name).connect(self._stale)
        self.message.clear()
        self._refill()

    def clear(self, why: str = "") -> None:
        """Show nothing."""
        self._unlink()
        self.objects = self.layer = None
        self._refill()
        self.message.info(why)

    def shown(self) -> dict[str, npt.NDArray[Any]]:
        """Return the table as it is shown: its rows, in their order."""
        return {name: np.asarray(column)[self.model.rows] for name, column in self.model.table.items()}

    def save(self, path: Path) -> None:
        """Write what is shown as CSV.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        from napari_em_da.measurements import write_csv

        write_csv(self.shown(), path, overwrite=True)
        self.saved = path
        self.message.info(f"Saved {self.model.rowCount()} rows as {path}.")

    def go_to(self, row: int) -> None:
        """Show the object of a row of the view: its section, and its centre in the middle."""
        if self.objects is None or self.layer is None or self.layer not in self.viewer.layers:
            return
        at = int(self.model.rows[row])
        layer = self.layer
        centre(self.viewer, layer, self.objects.place(at)[-layer.ndim :])
        self._leading = True
        layer.selected_label = int(self.objects.table["id"][at])
        self._leading = False
        self.went.emit(at)

    def select(self, label: int) -> bool:
        """Select the row of an object; False if it is not shown."""
        if self.objects is None:
            return False
        ids = np.asarray(self.objects.table["id"])[self.model.rows]
        found = np.flatnonzero(ids == label)
        if not len(found):
            self.view.clearSelection()
            return False
        index = self.model.index(int(found[0]), 0)
        flags = QItemSelectionModel.SelectionFlag
        selection = self.view.selectionModel()
        if selection is not None:
            self._leading = True
            selection.setCurrentIndex(index, flags.ClearAndSelect | flags.Rows)
            self._leading = False
        self.view.scrollTo(index)
        return True

    def _row_chosen(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if current.isValid() and not self._leading:
            self.go_to(current.row())

    def _label_picked(self, event: Any = None) -> None:
        if not self._leading and self.layer is not None:
            self.select(int(self.layer.selected_label))

    def _refill(self) -> None:
        table: Mapping[str, npt.NDArray[Any]] = {} if self.objects is None else self.objects.table
        total = 0 if self.objects is None else self.objects.count
        kept = np.arange(total)
        try:
            kept = rows_where(table, self.filter.text()) if total else kept
        except EmDaError as error:
            self.message.error(str(error))
        else:
            if self.message.is_error:
                self.message.clear()
        self.model.show_table(table, kept)
        for widget in (self.filter, self.view, self.count, self.save_button):
            widget.setVisible(self.objects is not None)
        self.count.setText(f"{total:,} objects" if len(kept) == total else f"{len(kept):,} of {total:,} objects")

    def _ask_save(self) -> None:
        text, _ = QFileDialog.getSaveFileName(self, "Save the table", str(self.saved or Path.home()), "Tables (*.csv)")
        if text:
            try:
                self.save(Path(text))
            except EmDaError as error:
                self.message.error(str(error))

    def _stale(self, event: Any = None) -> None:
        self.message.warn("The labels were changed since; measure again.")

    def _removed(self, event: Any) -> None:
        if self.layer is not None and event.value is self.layer:
            self.clear("The layer of this table was removed.")

    def _unlink(self) -> None:
        if self.layer is not None:
            self.layer.events.selected_label.disconnect(self._label_picked)
            for name in ("paint", "data"):
                getattr(self.layer.events, name).disconnect(self._stale)


def cell_text(value: Any) -> str:
    """Write a value: whole numbers in full, others with four digits."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return str(int(value)) if isinstance(value, int | np.integer) else f"{float(value):.4g}"
