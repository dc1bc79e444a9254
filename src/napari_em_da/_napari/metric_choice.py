"""The scores of the catalog to tick, in their families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QAbstractItemView, QTreeWidget, QTreeWidgetItem

from napari_em_da._napari.looks import TICKS
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job

HEIGHT = 190
TITLES = {
    "overlap": "Overlap of classes",
    "partition": "Splits and merges (Rand, information)",
    "matching": "Objects found (quality, precision)",
    "surface": "Boundaries and distances",
    "topology": "Topology",
    "pixel_error": "Pixel error (ISBI 2012)",
    "warping": "Warping error (ISBI 2012)",
}
Families = Mapping[str, Mapping[str, str]]


class MetricChoice(QTreeWidget):
    """Families of scores, closed; each score has its meaning as a tooltip. Filled once they are looked up."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.docs: dict[str, str] = {}
        self._wanted: tuple[str, ...] = ()
        self.setStyleSheet(TICKS)
        self.setHeaderHidden(True)
        self.setFixedHeight(HEIGHT)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.itemChanged.connect(lambda *_: self._told())

    def show_families(self, families: Families) -> None:
        """List the scores, and tick those that are wanted."""
        self.blockSignals(True)
        self.clear()
        for family, scores in families.items():
            group = QTreeWidgetItem([TITLES.get(family, family.replace("_", " "))])
            group.setFlags(Qt.ItemFlag.ItemIsEnabled)
            self.addTopLevelItem(group)
            for name, doc in scores.items():
                item = QTreeWidgetItem([name])
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
                item.setData(0, Qt.ItemDataRole.UserRole, name)
                item.setToolTip(0, meaning(doc))
                item.setCheckState(0, Qt.CheckState.Unchecked)
                group.addChild(item)
        self.docs = {name: doc for scores in families.values() for name, doc in scores.items()}
        self.blockSignals(False)
        self.tick(self._wanted)

    def tick(self, names: Sequence[str]) -> None:
        """Tick these scores alone."""
        self._wanted = tuple(names)
        self.blockSignals(True)
        for item in self._items():
            on = item.data(0, Qt.ItemDataRole.UserRole) in names
            item.setCheckState(0, Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
        self.blockSignals(False)
        self._count()
        self.changed.emit()

    def names(self) -> tuple[str, ...]:
        """Return the scores that are ticked."""
        items = self._items()
        if not items:
            return self._wanted
        ticked = [item for item in items if item.checkState(0) == Qt.CheckState.Checked]
        return tuple(str(item.data(0, Qt.ItemDataRole.UserRole)) for item in ticked)

    def memo(self) -> list[str]:
        """Return the ticked scores."""
        return list(self.names())

    def restore(self, names: Sequence[str]) -> None:
        """Tick them again."""
        self.tick(names)

    def _told(self) -> None:
        self._wanted = self.names()
        self.blockSignals(True)
        self._count()
        self.blockSignals(False)
        self.changed.emit()

    def _count(self) -> None:
        """Say in the title of each family how many of its scores are ticked: they are out of sight."""
        for index in range(self.topLevelItemCount()):
            group = self.topLevelItem(index)
            if group is not None:
                children = [group.child(i) for i in range(group.childCount())]
                count = sum(c is not None and c.checkState(0) == Qt.CheckState.Checked for c in children)
                title = group.text(0).partition("  –  ")[0]
                group.setText(0, f"{title}  –  {count}" if count else title)

    def _items(self) -> list[QTreeWidgetItem]:
        groups = [self.topLevelItem(i) for i in range(self.topLevelItemCount())]
        items = [g.child(i) for g in groups if g is not None for i in range(g.childCount())]
        return [item for item in items if item is not None]


def look_up() -> Job:
    """Import the families of scores; Finished carries {family: {score: docstring}}."""
    from napari_em_da.metrics import families

    yield Progress(0, 1, "families", "looking up")
    yield Finished({name: dict(family.scores) for name, family in families().items()})


def meaning(doc: str) -> str:
    """Return what a score is, in one sentence."""
    return " ".join(doc.strip().partition("\n\n")[0].split())


def direction(doc: str) -> str:
    """Return which direction is better, or nothing where neither is."""
    text = doc.lower()
    return "lower" if "lower is better" in text else "higher" if "higher is better" in text else ""
