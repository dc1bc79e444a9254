"""A form generated from a pydantic model: bounds, choices, help and defaults come from the model alone.

Notes
-----
magicgui builds forms too, but cuts integers at 999, has nothing for a number that may be absent, and refuses tuples of
any length; these configs need all of them.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from qtpy.QtCore import QEvent, QObject, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QLabel, QLineEdit, QSlider, QSpinBox, QWidget

from napari_em_da._napari.message import Message
from napari_em_da._napari.sliding import SlidingLine
from napari_em_da.config import parse
from napari_em_da.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
LARGEST = 2**31 - 1
LABEL_WIDTH = 118


class Editor:
    """A widget for one field: ``value`` in and out, ``changed`` connects a callback."""

    def __init__(
        self,
        info: FieldInfo,
        value: Any,
        choices: Sequence[Any] | None,
        span: tuple[float, float] | None = None,
    ) -> None:
        kind, self.optional = without_none(info.annotation)
        if choices is None and typing.get_origin(kind) is Literal:
            choices = (*((None,) if self.optional else ()), *typing.get_args(kind))
        self.kind = kind
        self.widget: QWidget
        if choices is not None:
            self.widget = combo(choices)
        elif kind is bool:
            self.widget = QCheckBox()
        elif kind is int and not self.optional:
            self.widget = spin_box(info)
        else:
            line = SlidingLine(*span) if span is not None else QLineEdit()
            (line.line if isinstance(line, SlidingLine) else line).setPlaceholderText(hint(kind, self.optional))
            self.widget = line
        self.widget.setToolTip(info.description or "")
        self.set(value)

    def get(self) -> Any:
        widget = self.widget
        if isinstance(widget, QComboBox):
            return widget.currentData()
        if isinstance(widget, QCheckBox):
            return widget.isChecked()
        if isinstance(widget, QSpinBox):
            return widget.value()
        return from_text(cast("QLineEdit | SlidingLine", widget).text(), self.kind, self.optional)

    def set(self, value: Any) -> None:
        widget = self.widget
        if isinstance(widget, QComboBox):
            widget.setCurrentIndex(max(0, widget.findData(value)))
        elif isinstance(widget, QCheckBox):
            widget.setChecked(bool(value))
        elif isinstance(widget, QSpinBox):
            widget.setValue(int(value))
        elif isinstance(widget, QLineEdit | SlidingLine):
            line = widget.line if isinstance(widget, SlidingLine) else widget
            line.setText(to_text(value))
            line.setCursorPosition(0)

    def connect(self, callback: Any) -> None:
        for name in ("currentIndexChanged", "toggled", "valueChanged", "textChanged"):
            if hasattr(self.widget, name):
                getattr(self.widget, name).connect(lambda *_: callback())
                return


class Form(QWidget, Generic[M]):
    """Editors for some fields of a model, and below them what is wrong with their values.

    Parameters
    ----------
    instance : pydantic model
        Its values are shown first.
    only, without : sequence of str
        The fields to show; all by default.
    choices : {field: values}
        Turns a field into a menu.
    titles : {field: text}
        Labels where the field's name says too little.
    sliders : {field: (low, high)}, optional
        Numbers that get a slider beside their line; with this, those that the model bounds on both sides do too.
    """

    changed = Signal()

    def __init__(
        self,
        instance: M,
        only: Sequence[str] | None = None,
        *,
        without: Sequence[str] = (),
        choices: Mapping[str, Sequence[Any]] | None = None,
        titles: Mapping[str, str] | None = None,
        sliders: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__()
        self._instance = instance
        fields = type(instance).model_fields
        names = [n for n in (only or fields) if n not in without]
        spans = {} if sliders is None else {n: sliders.get(n) or span_of(fields[n]) for n in names}
        self.editors = {n: Editor(fields[n], getattr(instance, n), (choices or {}).get(n), spans.get(n)) for n in names}
        self._message = Message()
        layout, guard = form_layout(self), WheelGuard(self)
        for name, editor in self.editors.items():
            text = (titles or {}).get(name) or title(name)
            for part in (editor.widget, *editor.widget.findChildren(QSlider)):
                part.installEventFilter(guard)
            if isinstance(editor.widget, QCheckBox):
                editor.widget.setText(text)
                layout.addRow(editor.widget)
            else:
                add_row(layout, text, editor.widget)
            editor.connect(self._check)
        layout.addRow(self._message)

    def values(self) -> dict[str, Any]:
        """Return the field values, not validated."""
        return {name: editor.get() for name, editor in self.editors.items()}

    def read(self, **others: Any) -> M:
        """Return a valid model of these values and ``others``; a ConfigError says what is wrong."""
        base = {n: getattr(self._instance, n) for n in type(self._instance).model_fields}
        return parse(type(self._instance), {**base, **self.values(), **others})

    def memo(self) -> dict[str, Any]:
        """Return what the editors show, to keep it."""
        return self.values()

    def restore(self, values: Mapping[str, Any]) -> None:
        """Show values that ``memo`` returned; fields that are no longer there are passed over."""
        for name, value in values.items():
            if name in self.editors:
                self.editors[name].set(value)

    def _check(self) -> None:
        try:
            self.read()
        except ConfigError as error:
            self._message.error(str(error))
        else:
            self._message.clear()
        self.changed.emit()


def hint(kind: Any, optional: bool) -> str:
    """Return what an empty line shows."""
    if (typing.get_origin(kind) or kind) in (dict, Mapping):
        return "name=value, name=value"
    return "not set" if optional else ""


def without_none(annotation: Any) -> tuple[Any, bool]:
    """Return ``T, True`` of ``T | None`` and ``T, False`` of ``T``, without ``Annotated``."""
    members = typing.get_args(annotation)
    optional = NoneType in members and typing.get_origin(annotation) is not Literal
    if optional:
        annotation = next(m for m in members if m is not NoneType)
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation, optional


def combo(choices: Sequence[Any]) -> QComboBox:
    """Return a menu of values; None reads "none", or "default" where "none" is a value."""
    widget, absent = QComboBox(), "default" if "none" in choices else "none"
    widget.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    widget.setMinimumContentsLength(8)
    for choice in choices:
        widget.addItem(absent if choice is None else str(choice), choice)
    return widget


def bounds_of(info: FieldInfo) -> dict[str, float]:
    """Return the bounds of a field: ``ge``, ``gt``, ``le`` and ``lt``, as far as there are any."""
    found = ((name, getattr(bound, name, None)) for bound in info.metadata for name in ("ge", "gt", "le", "lt"))
    return {name: float(value) for name, value in found if value is not None}


def span_of(info: FieldInfo) -> tuple[float, float] | None:
    """Return the ends of a slider for a float that the model bounds on both sides; None for any other field."""
    bounds = bounds_of(info)
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    return (low, high) if without_none(info.annotation)[0] is float and low is not None and high is not None else None


def spin_box(info: FieldInfo) -> QSpinBox:
    """Return a spin box with the field's bounds."""
    bounds = {name: int(value) for name, value in bounds_of(info).items()}
    low = bounds.get("ge", bounds.get("gt", -1) + 1)
    high = bounds.get("le", bounds.get("lt", LARGEST + 1) - 1)
    widget = QSpinBox()
    widget.setRange(low, high)
    widget.setStepType(QSpinBox.StepType.AdaptiveDecimalStepType)
    widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    return widget


def to_text(value: Any) -> str:
    """Write a value as a person would: ``1, 192, 192`` or ``a=1, b=2``."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={yaml_text(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(yaml_text(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def yaml_text(value: Any) -> str:
    """Write a part of a value; tuples in brackets."""
    return f"[{to_text(value)}]" if isinstance(value, Sequence) and not isinstance(value, str) else to_text(value)


def from_text(text: str, kind: Any, optional: bool) -> Any:
    """Read what ``to_text`` writes; text that is no such value is returned as it is, for the model to refuse."""
    text = text.strip()
    if not text and optional:
        return None
    if kind in (str, float, int):
        return text
    is_mapping = (typing.get_origin(kind) or kind) in (dict, Mapping)
    try:
        return yaml.safe_load("{" + text.replace("=", ": ") + "}" if is_mapping else f"[{text}]")
    except yaml.YAMLError:
        return text


class WheelGuard(QObject):
    """Let the wheel scroll the form past an editor; it turns the value of the one that has the focus alone."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Hold back the wheel from what has no focus."""
        if event is None or event.type() != QEvent.Type.Wheel or not isinstance(watched, QWidget) or watched.hasFocus():
            return False
        event.ignore()
        return True


def title(name: str) -> str:
    """Turn ``voxel_nm`` into ``Voxel (nm)``."""
    words = name.split("_")
    unit = f" ({words.pop()})" if words[-1] in ("nm", "px", "deg") and len(words) > 1 else ""
    text = " ".join(words)
    return text[:1].upper() + text[1:] + unit


def add_row(layout: QFormLayout, text: str, widget: QWidget) -> None:
    """Add a labelled row; labels of all forms are equally wide, so that the editors line up."""
    label = QLabel(text)
    label.setToolTip(widget.toolTip())
    label.setMinimumWidth(LABEL_WIDTH)
    layout.addRow(label, widget)


def form_layout(parent: QWidget) -> QFormLayout:
    """Return the layout that all forms share: labels left, editors as wide as there is room."""
    layout = QFormLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
    layout.setVerticalSpacing(4)
    return layout
