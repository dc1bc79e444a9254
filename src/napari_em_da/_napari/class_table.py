"""The label values of a layer, each a class to learn or not."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QTableWidget, QTableWidgetItem

from napari_em_da._napari.looks import TICKS
from napari_em_da.errors import ConfigError

VALUE, NAME, VOXELS = range(3)


class ClassTable(QTableWidget):
    """One row per label value: tick it to learn it, and name it. Rows of the same name are one class."""

    def __init__(self) -> None:
        super().__init__(0, 3)
        self.setStyleSheet(TICKS)
        self.setHorizontalHeaderLabels(["Value", "Class name", "Voxels"])
        self.setToolTip("Ticked values are learned, all others are background; values of the same name are one class")
        vertical, horizontal = self.verticalHeader(), self.horizontalHeader()
        if vertical is not None and horizontal is not None:
            vertical.hide()
            vertical.setDefaultSectionSize(24)
            horizontal.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            horizontal.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.show_values({})

    def show_values(self, counts: Mapping[int, int]) -> None:
        """List the values other than 0 with their voxels; names and ticks of values that stay are kept."""
        before = {value: (ticked, name) for value, ticked, name in self.rows()}
        found = [(value, count) for value, count in counts.items() if value != 0]
        self.setRowCount(len(found))
        for row, (value, count) in enumerate(found):
            ticked, name = before.get(value, (value != 255, f"class {value}"))
            tick = QTableWidgetItem(str(value))
            tick.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            tick.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
            voxels = QTableWidgetItem(f"{count:,}")
            voxels.setFlags(Qt.ItemFlag.ItemIsEnabled)
            voxels.setTextAlignment(int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter))
            for column, item in ((VALUE, tick), (NAME, QTableWidgetItem(name)), (VOXELS, voxels)):
                self.setItem(row, column, item)
        self.setFixedHeight(34 + 24 * min(max(len(found), 1), 6))

    def rows(self) -> list[tuple[int, bool, str]]:
        """Return (value, ticked, name) of every row."""
        found = []
        for row in range(self.rowCount()):
            tick, name = self.item(row, VALUE), self.item(row, NAME)
            if tick is not None and name is not None:
                found.append((int(tick.text()), tick.checkState() == Qt.CheckState.Checked, name.text().strip()))
        return found

    def memo(self) -> list[tuple[int, bool, str]]:
        """Return the rows."""
        return self.rows()

    def restore(self, rows: list[tuple[int, bool, str]]) -> None:
        """Tick and name the values as they were; those that are not listed are passed over."""
        places = {value: row for row, (value, _, _) in enumerate(self.rows())}
        for value, ticked, name in rows:
            row = places.get(value)
            tick, cell = (None, None) if row is None else (self.item(row, VALUE), self.item(row, NAME))
            if tick is not None and cell is not None:
                tick.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
                cell.setText(name)

    def classes(self) -> dict[str, tuple[int, ...]]:
        """Return {name: label values} of the ticked rows.

        Raises
        ------
        ConfigError
            If nothing is ticked or a name is empty.
        """
        found: dict[str, tuple[int, ...]] = {}
        for value, ticked, name in self.rows():
            if ticked and not name:
                raise ConfigError(f"The class of label value {value} has no name; type one into the table.")
            if ticked:
                found[name] = (*found.get(name, ()), value)
        if not found:
            raise ConfigError("No class is ticked; paint at least one label value, read the values and tick it.")
        return found
