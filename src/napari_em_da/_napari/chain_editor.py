"""The steps of a post-processing chain: add, order, switch off, set their options, load and save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_em_da._napari.form import Form
from napari_em_da._napari.looks import TICKS
from napari_em_da._napari.message import Message
from napari_em_da._napari.page import wrapped
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import ChainConfig, StepConfig
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.layers.objects import heading
from napari_em_da.postprocess import STEPS
from napari_em_da.postprocess._files import read_chain, write_chain

ROW, ROWS = 24, 5
YAML = "Chains (*.yaml *.yml)"


@dataclass(frozen=True)
class Item:
    """A step to show: its name, the options that were set, and whether it is switched on."""

    name: str
    options: dict[str, Any]
    on: bool = True


class ChainEditor(QWidget):
    """The chain as a list of steps; below it the options of the one that is selected.

    The files of steps are imported in the background: some of them compile.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.folder: Callable[[], Path | None] = lambda: None  # where the dialogs start
        self._forms: list[Form[Any]] = []
        self._awaited: list[Item] = []
        self.list = QListWidget()
        self.list.setStyleSheet(TICKS)
        self.list.setToolTip("Steps are applied from top to bottom; those without a tick are left out")
        self.forms = QStackedWidget()
        self.state = Message()
        self.runner = JobRunner(lambda _event: None, self._show_steps)
        self.add_button = _button("Add a step   ", "Append a step to the chain")
        self.add_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.add_button)
        menu.setToolTipsVisible(True)
        for name in STEPS.names():
            action = menu.addAction(_words(name))
            if action is not None:
                action.setToolTip(STEPS.summary(name))
                action.triggered.connect(lambda _=False, name=name: self.add(name))
        self.add_button.setMenu(menu)
        row = QHBoxLayout()
        row.addWidget(self.add_button)
        actions: tuple[tuple[str, str, Callable[[], None]], ...] = (
            ("↑", "Do the selected step earlier", lambda: self.shift(-1)),
            ("↓", "Do the selected step later", lambda: self.shift(1)),
            ("Remove", "Take the selected step out of the chain", self.remove),
            ("Load…", "Read a chain from a YAML file; 'tune' writes one", self._ask_load),
            ("Save…", "Write the chain into a YAML file", self._ask_save),
        )
        self.buttons: dict[str, QToolButton] = {}
        for text, tip, act in actions:
            self.buttons[text] = _button(text, tip)
            self.buttons[text].clicked.connect(lambda _=False, act=act: act())
            row.addWidget(self.buttons[text])
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        for widget in (self.list, self.forms, self.state):
            column.addWidget(widget)
        self.list.currentRowChanged.connect(self._select)
        self.list.itemChanged.connect(lambda _: self._edited())
        self._edited()

    def chain(self) -> ChainConfig:
        """Return the steps that are switched on.

        Raises
        ------
        ConfigError
            If there is none, or an option of one is wrong.
        """
        steps = []
        for item, form in zip(self.items(), self._forms, strict=True):
            if item.on:
                options = form.read().model_dump(exclude_defaults=True)
                steps.append(StepConfig(name=item.name, options=options))
        if not steps:
            raise ConfigError("The chain has no step; add one, for example threshold, or components for objects.")
        return ChainConfig(steps=tuple(steps))

    def items(self) -> list[Item]:
        """Return what is shown; options are not checked."""
        found = []
        for row, form in enumerate(self._forms):
            item = self.list.item(row)
            if item is not None:
                on = item.checkState() == Qt.CheckState.Checked
                found.append(Item(str(item.data(Qt.ItemDataRole.UserRole)), form.values(), on))
        return found

    def memo(self) -> list[dict[str, Any]]:
        """Return the steps with their options, those that are still being imported included."""
        return [vars(item) for item in (*self.items(), *self._awaited)]

    def restore(self, steps: Sequence[dict[str, Any]]) -> None:
        """Show the steps that ``memo`` returned; those that are no longer there are passed over."""
        self.show_items([Item(**step) for step in steps if step["name"] in STEPS])

    def show_items(self, items: Sequence[Item]) -> None:
        """Show these steps in place of all others."""
        self._clear()
        self._await(items)

    def add(self, name: str, **options: Any) -> None:
        """Append a step."""
        self._await([Item(name, options)])

    def load(self, path: Path) -> None:
        """Show the chain of a YAML file or a run folder; what is wrong with it is said below."""
        try:
            chain = read_chain(path)
            for step in chain.steps:
                STEPS.check(step.name)
        except (EmDaError, OSError) as error:
            self.state.error(str(error))
            return
        self.show_items([Item(step.name, dict(step.options)) for step in chain.steps])

    def save(self, path: Path) -> None:
        """Write the chain as YAML."""
        try:
            write_chain(self.chain(), path)
        except (EmDaError, OSError) as error:
            self.state.error(str(error))
        else:
            self.state.info(f"Saved as {path}.")

    def remove(self) -> None:
        """Take the selected step out."""
        row = self.list.currentRow()
        if row >= 0:
            self._drop(row)
            self._edited()

    def shift(self, by: int) -> None:
        """Move the selected step up (-1) or down (1)."""
        row = self.list.currentRow()
        to = row + by
        if row < 0 or not 0 <= to < self.list.count():
            return
        self.list.blockSignals(True)
        item = self.list.takeItem(row)
        self.list.insertItem(to, item)
        self.list.setCurrentRow(to)
        self.list.blockSignals(False)
        self._forms.insert(to, self._forms.pop(row))
        self._select(to)
        self._edited()

    def _await(self, items: Sequence[Item]) -> None:
        self._awaited += items
        if self._awaited:
            self.runner.start(_look_up([item.name for item in self._awaited]), silent=True)
        else:
            self._edited()

    def _show_steps(self, steps: Any, error: Exception | None) -> None:
        items, self._awaited = self._awaited, []
        if error is not None:
            self.state.error(str(error))
        elif steps is not None:
            for item, step in zip(items, steps, strict=True):
                self._append(item, step)
            self._edited()

    def _append(self, item: Item, step: Any) -> None:
        sizes = [name for name in step.options.model_fields if name.endswith(("_nm2", "_nm3"))]
        titles = {name: heading(name)[:1].upper() + heading(name)[1:] for name in sizes}
        form: Form[Any] = Form(step.options.model_construct(), titles=titles)  # unchecked: some steps need a size first
        form.restore(item.options)
        form.changed.connect(self._edited)
        place = QWidget()
        column = QVBoxLayout(place)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(wrapped(STEPS.summary(item.name)))
        column.addWidget(form)
        column.addStretch(1)
        self.forms.addWidget(place)
        self._forms.append(form)
        gives = step.gives or "the same"
        entry = QListWidgetItem(f"{_words(item.name)}:  {' or '.join(step.takes)} → {gives}")
        entry.setData(Qt.ItemDataRole.UserRole, item.name)
        entry.setToolTip(STEPS.summary(item.name))
        entry.setSizeHint(QSize(0, ROW))
        entry.setFlags(entry.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        entry.setCheckState(Qt.CheckState.Checked if item.on else Qt.CheckState.Unchecked)
        self.list.blockSignals(True)
        self.list.addItem(entry)
        self.list.blockSignals(False)
        self.list.setCurrentRow(self.list.count() - 1)

    def _drop(self, row: int) -> None:
        form = self._forms.pop(row)
        place = form.parentWidget()
        self.list.takeItem(row)
        if place is not None:
            self.forms.removeWidget(place)
            place.deleteLater()

    def _clear(self) -> None:
        self._awaited = []
        while self._forms:
            self._drop(0)

    def _select(self, row: int) -> None:
        if 0 <= row < len(self._forms):
            place = self._forms[row].parentWidget()
            if place is not None:
                self.forms.setCurrentWidget(place)
        self._fit()

    def _edited(self) -> None:
        self.state.clear()
        self._fit()
        self.changed.emit()

    def _fit(self) -> None:
        """Give the list the height of its steps, and the place below that of the options in view."""
        self.list.setFixedHeight(8 + ROW * min(max(self.list.count(), 2), ROWS))
        for index in range(self.forms.count()):
            place = self.forms.widget(index)
            if place is not None:  # hidden forms must not stretch the page
                policy = place.sizePolicy()
                shown = place is self.forms.currentWidget()
                policy.setVerticalPolicy(policy.Policy.Preferred if shown else policy.Policy.Ignored)
                place.setSizePolicy(policy)
        self.forms.setVisible(bool(self._forms))
        self.forms.updateGeometry()

    def _ask_load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load a chain", str(self.folder() or Path.home()), YAML)
        if path:
            self.load(Path(path))

    def _ask_save(self) -> None:
        start = (self.folder() or Path.home()) / "chain.yaml"
        path, _ = QFileDialog.getSaveFileName(self, "Save the chain", str(start), YAML)
        if path:
            self.save(Path(path))


def _look_up(names: Sequence[str]) -> Job:
    """Import steps; Finished carries them."""
    yield Progress(0, len(names), "steps", "looking up")
    yield Finished([STEPS[name] for name in names])


def _button(text: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    return button


def _words(name: str) -> str:
    return name.replace("_", " ")
