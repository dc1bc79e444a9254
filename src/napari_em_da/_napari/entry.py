"""A menu of a catalog's entries, with the options of the chosen one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_em_da._napari.form import Form, add_row, combo, form_layout
from napari_em_da._napari.message import Message
from napari_em_da._napari.page import collapsible
from napari_em_da._napari.worker import JobRunner
from napari_em_da.catalog import Catalog
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job

TOOL_TIP_ROLE = 3


class EntryChoice(QWidget):
    """Choose a network or a method.

    Its options are looked up in the background once their section is opened: the entry's file imports torch, and nobody
    should wait for that to see the dock.

    Parameters
    ----------
    title : str
    catalog : Catalog
        Of specs that have an ``options_type``.
    name : str
        The entry that is chosen first.
    """

    def __init__(self, title: str, catalog: Catalog[Any], name: str) -> None:
        super().__init__()
        self._catalog = catalog
        self.form: Form[Any] | None = None
        self._wanted: dict[str, Any] = {}
        self.menu = combo(catalog.names())
        for index, entry in enumerate(catalog.names()):
            self.menu.setItemData(index, catalog.summary(entry), TOOL_TIP_ROLE)
        self.menu.setCurrentIndex(max(0, self.menu.findData(name)))
        self.state = Message()
        self._place = QWidget()
        self._column = QVBoxLayout(self._place)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.state)
        self.section = collapsible(f"{title} options", self._place)
        self.runner = JobRunner(lambda _event: None, self._show)
        rows = form_layout(self)
        add_row(rows, title, self.menu)
        rows.addRow(self.section)
        self.section.toggled.connect(lambda _open: self._load())
        self.menu.currentIndexChanged.connect(lambda _: self._forget())

    @property
    def name(self) -> str:
        return str(self.menu.currentData())

    def options(self) -> dict[str, Any]:
        """Return the options that differ from the defaults; a ConfigError says what is wrong with one."""
        return dict(self._wanted) if self.form is None else self.form.read().model_dump(exclude_defaults=True)

    def memo(self) -> dict[str, Any]:
        """Return the entry and what was set of its options."""
        return {"name": self.name, "options": self.options()}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Choose that entry with those options; an entry that is no longer there is passed over."""
        index = self.menu.findData(values.get("name"))
        if index >= 0:
            options = dict(values.get("options", {}))
            self.menu.setCurrentIndex(index)
            self.prefer(options)
            if options:
                self.section.expand(animate=False)

    def prefer(self, options: Mapping[str, Any]) -> None:
        """Set options, at once or when their form is made; nothing is imported for it."""
        if self.form is None:
            self._wanted = {**self._wanted, **options}
        else:
            self.form.restore(options)

    def _forget(self) -> None:
        self._wanted = {}
        if self.form is not None:
            self.form.setParent(None)
            self.form.deleteLater()
            self.form = None
        self._load()

    def _load(self) -> None:
        if self.section.isExpanded() and self.form is None:
            self.state.info("Looking up the options …")
            self.runner.start(look_up(self._catalog, self.name), silent=True)

    def _show(self, default: Any, error: Exception | None) -> None:
        self.state.clear()
        if error is not None:
            self.state.error(str(error))
        elif default is not None:
            self.form = Form(default)
            self._column.addWidget(self.form)
            self.form.restore(self._wanted)
            self._wanted = {}
            if not self.form.editors:
                self.state.info("It has no options.")
        self.section.collapse(animate=False)  # the section measures its content only when it opens
        self.section.expand(animate=False)


def look_up(catalog: Catalog[Any], name: str) -> Job:
    """Import an entry; Finished carries its default options."""
    yield Progress(0, 1, "entries", "looking up")
    yield Finished(catalog[name].options_type())
