"""The classes of the source labels: counted in the background, named and ticked by the user."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.class_table import ClassTable
from napari_em_da._napari.message import Message
from napari_em_da._napari.session import Session
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import EmDaError


class ClassRows(QWidget):
    """Lists the values of the session's labels, and sets its classes.

    Parameters
    ----------
    session : Session
    """

    edited = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._restored: list[Any] = []
        self.table, self.state = ClassTable(), Message()
        self.button = QPushButton("Count again")
        self.button.setToolTip("Read the label values again, after painting")
        self.runner = JobRunner(lambda _event: None, self._counted)
        self.button.clicked.connect(lambda _: self.count())
        self.table.itemChanged.connect(lambda _: self._tell())
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.table)
        column.addWidget(self.state)
        column.addWidget(self.button)

    def count(self) -> None:
        """Count the label values; those of a layer that is none are an error in words."""
        layer = self._session.layer("labels")
        self.button.setEnabled(layer is not None)
        if layer is None:
            self.runner.abandon()
            self.table.show_values({})
            self.state.info("Choose labels to see their classes.")
            self._session.set_classes({})
            return
        self.state.info("Counting the label values …")
        try:
            job = layers.label_values(layer)
        except EmDaError as error:
            self.runner.abandon()
            self._counted(None, error)
        else:
            self.runner.start(job, silent=True)

    def memo(self) -> list[list[Any]]:
        """Return the rows; those that were restored but not counted yet are not lost."""
        return [list(row) for row in (self._restored or self.table.memo())]

    def restore(self, rows: list[Any]) -> None:
        """Tick and name the values as they were, once they are counted."""
        self._restored = list(rows)
        if self._session.layer("labels") is not None:
            self.count()

    def _counted(self, counts: dict[int, int] | None, error: Exception | None) -> None:
        self.state.clear()
        self.table.blockSignals(True)
        self.table.show_values(counts or {})
        if counts:
            self.table.restore(self._restored)
            self._restored = []
        self.table.blockSignals(False)
        if error is not None:
            self.state.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
        if self.table.rowCount():
            self._tell()
            return
        self._session.set_classes({})
        if counts is not None:
            self.state.warn("Nothing is labelled yet: paint a class, then count again.")

    def _tell(self) -> None:
        try:
            classes = self.table.classes()
        except EmDaError as error:
            self.state.error(str(error))
        else:
            self.state.clear()
            self._session.set_classes(classes)
        self.edited.emit()
