"""Scores of a volume as a table: value, what it means, which direction is better, and why some have no value."""

from __future__ import annotations

import math
from collections.abc import Mapping

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_em_da._napari.metric_choice import direction, meaning

MOST_ROWS = 14


class ScoreTable(QTreeWidget):
    """One row per score, below it one per class; choosing a row says which score."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.setHeaderLabels(["Score", "Value", "Better"])
        self.setRootIsDecorated(True)
        header = self.header()
        if header is not None:
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
            for column in (1, 2):
                header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
            header.setStretchLastSection(False)
        self.currentItemChanged.connect(lambda item, _: self._choose(item))
        self.hide()

    def show_scores(self, scores: Mapping[str, float], undefined: Mapping[str, str], docs: Mapping[str, str]) -> None:
        """Show scores; ``name/class`` below ``name``."""
        self.clear()
        tops: dict[str, QTreeWidgetItem] = {}
        for name, value in scores.items():
            base, _, part = name.partition("/")
            doc = docs.get(base, "")
            defined = math.isfinite(value)
            item = QTreeWidgetItem([part or base, f"{value:.4g}" if defined else "–", direction(doc)])
            item.setData(0, Qt.ItemDataRole.UserRole, name)
            item.setTextAlignment(1, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter))
            why = "" if defined else f"Undefined: {undefined.get(name, 'it has no value here')}."
            for column in range(3):
                item.setToolTip(column, " ".join(t for t in (meaning(doc), why) if t))
            if part and base in tops:
                tops[base].addChild(item)
            else:
                tops[base] = item
                self.addTopLevelItem(item)
            if why:
                reason = QTreeWidgetItem([why])
                reason.setFlags(Qt.ItemFlag.ItemIsEnabled)
                item.addChild(reason)
                reason.setFirstColumnSpanned(True)
                item.setExpanded(True)
        if len(scores) <= MOST_ROWS:
            self.expandAll()
        self.show()
        rows = len(scores) + sum(not math.isfinite(v) for v in scores.values())
        header = self.header()
        top = 0 if header is None else header.sizeHint().height()
        self.setFixedHeight(top + 6 + max(12, self.sizeHintForRow(0)) * min(max(rows, 3), MOST_ROWS))
        first = self.topLevelItem(0)
        if first is not None:
            self.setCurrentItem(first)

    def value(self, name: str) -> str:
        """Return the text that is shown for a score."""
        found = self.findItems("", Qt.MatchFlag.MatchContains | Qt.MatchFlag.MatchRecursive, 0)
        return next(item.text(1) for item in found if item.data(0, Qt.ItemDataRole.UserRole) == name)

    def _choose(self, item: QTreeWidgetItem | None) -> None:
        name = None if item is None else item.data(0, Qt.ItemDataRole.UserRole)
        if name:
            self.chosen.emit(str(name))
