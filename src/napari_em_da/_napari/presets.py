"""A menu of presets, and how long the chosen one will take on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qtpy.QtCore import QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QToolButton, QWidget

from napari_em_da import layers
from napari_em_da._napari.entry import TOOL_TIP_ROLE
from napari_em_da._napari.form import Form, add_row, combo, form_layout
from napari_em_da._napari.message import Message
from napari_em_da._napari.worker import JobRunner
from napari_em_da.config import AdaptConfig, TrainConfig
from napari_em_da.errors import EmDaError
from napari_em_da.layers.presets import Preset

OWN = "own"
WAIT_MS = 800


class PresetBox(QWidget):
    """Choose a preset and read how long it takes; the time is measured, in the background.

    Parameters
    ----------
    presets : {name: Preset}
    job : callable
        Returns what would be run now, or raises one of our errors.
    busy : callable
        Whether a job runs, beside which nothing can be measured.
    """

    picked = Signal()

    def __init__(
        self, presets: Mapping[str, Preset], job: Callable[[], TrainConfig | AdaptConfig], busy: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._presets = presets
        self._job = job
        self._busy = busy
        self.menu = combo((*presets, OWN))
        self.menu.setToolTip("How long to train; every value can be changed below")
        for index, preset in enumerate(presets.values()):
            self.menu.setItemText(index, preset.title)
            self.menu.setItemData(index, preset.help, TOOL_TIP_ROLE)
        self.menu.setItemText(len(presets), "Own settings")
        self.menu.setCurrentIndex(self.menu.findData("good"))
        self.menu.currentIndexChanged.connect(lambda _: self.apply())
        self._forms: Sequence[Form[Any]] = ()
        self._values: Callable[[Preset], Mapping[str, Any]] = lambda preset: preset.values()
        self._applying = False
        self.time = Message()
        self.time.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.button = QToolButton()
        self.button.setText("Measure")
        self.button.setToolTip("Run a few real steps on random data, to know how long it will take")
        self.button.clicked.connect(lambda _: self.measure(again=True))
        self.runner = JobRunner(lambda _event: None, self._measured)
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.setInterval(WAIT_MS)
        self._wait.timeout.connect(self.measure)
        row = QWidget()
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.menu, 1)
        line.addWidget(self.button)
        rows = form_layout(self)
        row.setToolTip(self.menu.toolTip())
        add_row(rows, "Preset", row)
        rows.addRow(self.time)

    @property
    def name(self) -> str:
        return str(self.menu.currentData())

    @property
    def preset(self) -> Preset | None:
        """The chosen preset; None for the user's own settings."""
        return self._presets.get(self.name)

    def memo(self) -> str:
        """Return the name of the chosen preset."""
        return self.name

    def restore(self, name: str) -> None:
        """Choose it again; the forms hold the values."""
        index = self.menu.findData(name)
        if index >= 0:
            self.menu.blockSignals(True)
            self.menu.setCurrentIndex(index)
            self.menu.blockSignals(False)

    def fill(self, forms: Sequence[Form[Any]], values: Callable[[Preset], Mapping[str, Any]]) -> None:
        """Fill these forms from the preset, now and when one is picked; a change by hand makes it the user's own."""
        self._forms, self._values = forms, values
        for form in forms:
            form.changed.connect(self._compare)
        self.apply()

    def apply(self) -> None:
        """Put the preset's values into the forms."""
        if self.preset is not None:
            self._applying = True
            for form in self._forms:
                form.restore(self._values(self.preset))
            self._applying = False
            self.picked.emit()
        self.ask()

    def _compare(self) -> None:
        if self._applying:
            return
        now = {name: value for form in self._forms for name, value in form.values().items()}
        if self.preset is not None and any(now.get(k) != v for k, v in self._values(self.preset).items()):
            self.restore(OWN)
        self.ask()

    def ask(self) -> None:
        """Measure soon, once nothing changes any more, if anybody sees it."""
        self.time.clear()
        self.runner.abandon()
        if self.isVisible():
            self._wait.start()

    def measure(self, again: bool = False) -> None:
        """Measure now, unless a job runs."""
        self._wait.stop()
        if self._busy():
            return
        try:
            config = self._job()
        except EmDaError:  # the page says what is missing
            self.time.clear()
            return
        self.time.info("Measuring how long it will take …")
        self.runner.start(layers.estimate(config, again=again), silent=True)

    def stop(self) -> None:
        """Leave the processor to the job."""
        self._wait.stop()
        if self.runner.running:
            self.runner.abandon()
            self.time.clear()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Measure for whoever looks."""
        super().showEvent(event)
        if not self.time.text():
            self._wait.start()

    def _measured(self, found: Any, error: Exception | None) -> None:
        if error is not None:
            self.time.warn(f"The time could not be measured: {error}")
        elif found is None:
            self.time.clear()
        else:
            self.time.info(str(found))
