"""Buttons that paint the classes into the corrections, and the layer that they paint in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from napari.layers import Labels, Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QPushButton, QVBoxLayout, QWidget

from napari_em_da import layers
from napari_em_da._napari.growing import colours
from napari_em_da._napari.looks import add
from napari_em_da._napari.message import Message
from napari_em_da._napari.session import Session
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.layers.corrections import BACKGROUND, UNPAINTED

COLUMNS = 3


class PaintBox(QWidget):
    """One button for each class: it chooses the class, and the brush.

    Parameters
    ----------
    session : Session
        Whose role "corrections" is painted in.
    """

    edited = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.classes: dict[str, tuple[int, ...]] = {}
        self.buttons: dict[int, QPushButton] = {}
        self.message = Message()
        self.new_button = QPushButton("New corrections layer")
        self.new_button.setToolTip("An empty layer over the image; only what you paint counts")
        self.take_button = QPushButton("Take the prediction here")
        self.take_button.setToolTip("Copy the predicted classes of this place into the corrections, to repair them (A)")
        self._group = QButtonGroup(self)
        self._grid = QGridLayout()
        self._grid.setSpacing(2)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.new_button)
        column.addLayout(self._grid)
        column.addWidget(self.take_button)
        column.addWidget(self.message)

    @property
    def layer(self) -> Labels | None:
        """The layer that plays the role, if it is there."""
        layer = self._session.layer("corrections")
        return layer if isinstance(layer, Labels) else None

    def show_classes(self, classes: Mapping[str, Sequence[int]]) -> None:
        """Make the buttons of these classes."""
        given = {name: tuple(members) for name, members in classes.items()}
        if given == self.classes and self.buttons:
            return
        self.classes = given
        for button in self.buttons.values():
            self._group.removeButton(button)
            button.setParent(None)
            button.deleteLater()
        self.buttons = {}
        if not given:
            return
        colour = {**layers.class_colours(given), 0: BACKGROUND, UNPAINTED: "transparent"}
        rows = {0: "background", **{members[0]: name for name, members in given.items()}, UNPAINTED: "erase"}
        for place, (value, name) in enumerate(rows.items()):
            button = QPushButton(name)
            button.setToolTip(
                "Take paint away: there the network is right" if value == UNPAINTED else f"Paint {name} (label {value})"
            )
            button.setCheckable(True)
            button.setIcon(swatch(colour[value]))
            button.clicked.connect(lambda _=False, value=value: self.choose(value))
            self._group.addButton(button)
            self._grid.addWidget(button, *divmod(place, COLUMNS))
            self.buttons[value] = button

    def new_layer(self, image: Layer) -> Labels:
        """Add an empty layer for an image, and give it the role.

        Raises
        ------
        ConfigError, DataError
            If no classes are known, or the image cannot be painted on.
        """
        if not self.classes:
            raise ConfigError("Choose the run folder first: its classes are painted.")
        data, about, kind = layers.blank_corrections(image, self.classes)
        look = {**about, "colormap": colours(about), "opacity": 0.6}
        layer = add(self._session.viewer, data, look, kind, select=True)
        self._session.assign("corrections", layer)
        return layer

    def ensure(self, image: Layer | None) -> Labels:
        """Return the layer of the role, made if there is none; raises as ``new_layer``, and if it does not fit."""
        if image is None:
            raise ConfigError("Choose the image to correct.")
        layer = self.layer
        if layer is None:
            return self.new_layer(image)
        shape = image.data[0].shape if getattr(image, "multiscale", False) else image.data.shape
        if tuple(layer.data.shape) != tuple(shape):
            raise DataError(
                f"The corrections {layer.name!r} are {tuple(layer.data.shape)}, the image {tuple(shape)}; "
                "make a new corrections layer."
            )
        return layer

    def choose(self, value: int) -> None:
        """Paint a label value from now on."""
        layer = self.layer
        if value in self.buttons:
            self.buttons[value].setChecked(True)
        if layer is None:
            self.message.warn("Make a new corrections layer first.")
            return
        self.message.clear()
        layer.visible = True
        self._session.viewer.layers.selection.active = layer
        layer.selected_label = value
        layer.mode = "paint"

    def next_class(self) -> None:
        """Paint the next class in turn."""
        values = list(self.buttons)
        layer = self.layer
        if not values or layer is None:
            self.message.warn("Make a new corrections layer first.")
            return
        now = int(layer.selected_label)
        checked = any(button.isChecked() for button in self.buttons.values())
        self.choose(values[(values.index(now) + 1) % len(values)] if checked and now in values else values[0])


def swatch(colour: str) -> QIcon:
    """Return a small square of a colour."""
    picture = QPixmap(12, 12)
    picture.fill(QColor(0, 0, 0, 0) if colour == "transparent" else QColor(colour))
    return QIcon(picture)
