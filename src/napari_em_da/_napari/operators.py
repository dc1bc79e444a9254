"""Merge, split, fill, interpolate and delete objects of a labels layer, with undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.choice import LayerChoice
from napari_em_da._napari.form import add_row, form_layout
from napari_em_da._napari.message import Message
from napari_em_da._napari.worker import JobRunner
from napari_em_da.errors import ConfigError, EmDaError
from napari_em_da.lazy import computed

if TYPE_CHECKING:
    from napari_em_da.proofreading import Edit, History

Point = tuple[int, int, int]
BUTTONS = {  # operator: text, help
    "merge": ("Merge", "Give all picked objects the id of the first one"),
    "split_by_seeds": ("Split at clicks", "Cut the first picked object into one part for each click in it"),
    "split_by_plane": (
        "Split by line",
        "Cut the first picked object along the line of two clicks, in all sections",
    ),
    "fill": ("Fill holes", "Fill what the picked object encloses in each section"),
    "interpolate": ("Interpolate", "Fill the sections between those where the picked object was drawn"),
    "delete": ("Delete", "Remove the picked object"),
}
COLUMNS = 3


class Operators(QWidget):
    """Click objects, then choose what happens to them; every step can be undone, byte by byte.

    Parameters
    ----------
    viewer : napari.Viewer

    Attributes
    ----------
    picks : list of (id, (z, y, x))
        Clicked objects of the chosen layer, in order.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self.labels = LayerChoice(viewer, Labels)
        self.labels.setToolTip("The objects to change: a labels layer in which every object has an id of its own")
        self.picks: list[tuple[int, Point]] = []
        self._histories: WeakKeyDictionary[Any, History] = WeakKeyDictionary()
        self._target: Labels | None = None  # of the edit that is being prepared
        self.runner = JobRunner(lambda _event: None, self._prepared)
        self.message = Message()
        self.pick_button = QPushButton("Pick objects")
        self.pick_button.setCheckable(True)
        self.pick_button.setToolTip("Click objects in the viewer; each click also marks a place, to split there")
        self.clear_button = QPushButton("Forget picks")
        self.undo_button, self.redo_button = QPushButton("Undo edit"), QPushButton("Redo edit")
        self.pick_button.toggled.connect(self._toggle)
        self.clear_button.clicked.connect(lambda _: self.forget())
        self.undo_button.clicked.connect(lambda _: self._again(back=True))
        self.redo_button.clicked.connect(lambda _: self._again(back=False))
        self.labels.chosen.connect(self.forget)
        self.buttons: dict[str, QPushButton] = {}
        self._lay_out()
        self._show()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        top = QWidget()
        add_row(form_layout(top), "Objects", self.labels)
        column.addWidget(top)
        grid = QGridLayout()
        grid.setSpacing(2)
        for place, (operator, (text, tip)) in enumerate(BUTTONS.items()):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, operator=operator: self.run(operator))
            grid.addWidget(button, *divmod(place, COLUMNS))
            self.buttons[operator] = button
        for pair in ((self.pick_button, self.clear_button), (self.undo_button, self.redo_button)):
            row = QHBoxLayout()
            for button in pair:
                row.addWidget(button)
            column.addLayout(row)
            if pair[0] is self.pick_button:
                column.addLayout(grid)
        column.insertWidget(column.count() - 1, self.message)

    @property
    def layer(self) -> Labels | None:
        """The chosen layer, if it is there."""
        layer = self.labels.layer
        return layer if isinstance(layer, Labels) else None

    @property
    def history(self) -> History | None:
        """The edits of the chosen layer; each layer has its own."""
        from napari_em_da.proofreading import History

        layer = self.layer
        if layer is None:
            return None
        if layer not in self._histories:
            self._histories[layer] = History()
        return self._histories[layer]

    def pick(self, identity: int, point: Point) -> None:
        """Add a clicked object; the background is none."""
        if identity:
            self.picks.append((identity, point))
            self._show()

    def forget(self) -> None:
        """Forget what was clicked."""
        self.picks = []
        self.message.clear()
        self._show()

    def run(self, operator: str) -> None:
        """Prepare an operator in the background, then apply it."""
        layer = self.layer
        if self.runner.running:
            self.message.warn("The edit before is still being prepared.")
            return
        try:
            if layer is None:
                raise ConfigError("Choose the labels layer that holds the objects.")
            arguments, options = self._arguments(operator, layer)
            job = layers.edit_labels(operator, layer, *arguments, **options)
        except EmDaError as error:
            self.message.error(str(error))
            return
        self._target = layer
        self.message.info("Computing …")
        self.runner.start(job, silent=True)

    def release(self) -> None:
        """Leave the mouse to the viewer."""
        self.pick_button.setChecked(False)

    def _arguments(self, operator: str, layer: Labels) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what an operator needs of the picks."""
        if not self.picks:
            raise ConfigError("Pick an object first: press Pick objects, then click it in the viewer.")
        ids = list(dict.fromkeys(identity for identity, _ in self.picks))
        first = ids[0]
        spacing = [1.0, *(abs(float(step)) for step in layer.scale)][-3:]
        if operator == "merge":
            if len(ids) < 2:
                raise ConfigError("Pick two objects to merge them; only one is picked.")
            return (ids,), {}
        places = [point for identity, point in self.picks if identity == first]
        if operator == "split_by_seeds":
            if len(set(places)) < 2:
                raise ConfigError(f"Click object {first} in two places, one for each part.")
            return (first, list(dict.fromkeys(places))), {"spacing": spacing}
        if operator == "split_by_plane":
            along = plane_of([point for _, point in self.picks], spacing)
            return (first, *along), {"spacing": spacing}
        if operator == "interpolate":
            return (first,), {"pixel": tuple(spacing[1:])}
        return (first,), {}

    def _prepared(self, edit: Edit | None, error: Exception | None) -> None:
        layer, self._target = self._target, None
        if error is not None:
            self.message.error(str(error) if isinstance(error, EmDaError) else f"{type(error).__name__}: {error}")
        elif layer is None or layer not in self.viewer.layers:
            self.message.warn("The layer was removed meanwhile; nothing was changed.")
        elif edit is not None:
            if layer is not self.layer:
                self.labels.choose(layer)
            history = self.history
            if not edit.changed or history is None:
                self.message.info(f"{edit.text}: nothing to change.")
                return
            try:
                layers.change_labels(layer, history, edit)
            except EmDaError as refused:
                self.message.error(str(refused))
                return
            self.picks = []
            self._show()
            self.message.info(f"{edit.text}: {edit.changed:,} voxels.")
            self.changed.emit()

    def _again(self, *, back: bool) -> None:
        layer, history = self.layer, self.history
        if layer is None or history is None:
            return
        try:
            edit = layers.change_labels(layer, history, back=back)
        except EmDaError as error:
            self.message.error(str(error))
            return
        self._show()
        if edit is not None:
            self.message.info(f"{'Undone' if back else 'Done again'}: {edit.text}.")
            self.changed.emit()

    def _toggle(self, on: bool) -> None:
        callbacks = self.viewer.mouse_drag_callbacks
        if on and self._clicked not in callbacks:
            layer = self.layer
            if layer is not None:
                layer.mode = "pan_zoom"
            callbacks.append(self._clicked)
        elif not on and self._clicked in callbacks:
            callbacks.remove(self._clicked)

    def _clicked(self, viewer: Any, event: Any) -> None:
        """Take the object below the mouse."""
        layer = self.layer
        if layer is None or getattr(event, "button", 1) != 1:
            return
        place = np.rint(np.asarray(layer.world_to_data(event.position))).astype(int)[-layer.ndim :]
        if ((place < 0) | (place >= layer.data.shape)).any():
            return
        deep = [0, *place.tolist()][-3:]
        self.pick(int(np.asarray(computed(layer.data[tuple(place)]))), (deep[0], deep[1], deep[2]))

    def _show(self) -> None:
        history = self.history
        done, undone = (history.done, history.undone) if history is not None else ((), ())
        self.undo_button.setEnabled(bool(done))
        self.redo_button.setEnabled(bool(undone))
        self.undo_button.setToolTip(f"Take back: {done[-1].text}" if done else "Nothing was changed yet")
        self.redo_button.setToolTip(f"Do again: {undone[-1].text}" if undone else "Nothing was undone")
        if self.picks:
            counts: dict[int, int] = {}
            for identity, _ in self.picks:
                counts[identity] = counts.get(identity, 0) + 1
            texts = (f"{i}" if n == 1 else f"{i} ({n} clicks)" for i, n in counts.items())
            self.message.info(f"Picked: {', '.join(texts)}")


def plane_of(points: list[Point], spacing: list[float]) -> tuple[Point, tuple[float, float, float]]:
    """Return a point and the normal of the plane through two clicks that goes straight through all sections.

    Parameters
    ----------
    points : (z, y, x) in voxels
        The last two count.
    spacing : (z, y, x)
        The normal is perpendicular in physical space.

    Raises
    ------
    ConfigError
        If there are not two different places.
    """
    if len(points) < 2 or points[-1][1:] == points[-2][1:]:
        raise ConfigError("Click two ends of the line, in two places; the first click must lie in the object.")
    (_, y0, x0), (_, y1, x1) = points[-2:]
    along_y, along_x = (y1 - y0) * spacing[1], (x1 - x0) * spacing[2]
    return points[-2], (0.0, -along_x, along_y)
