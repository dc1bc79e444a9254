"""Values of widgets as plain JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from qtpy.QtWidgets import QCheckBox, QComboBox, QLineEdit, QSpinBox, QWidget


@runtime_checkable
class Stateful(Protocol):
    """A widget of ours that knows its own memo."""

    def memo(self) -> Any: ...

    def restore(self, value: Any) -> None: ...


def read_state(widgets: Mapping[str, QWidget]) -> dict[str, Any]:
    """Return the value of each widget by name."""
    return {name: value_of(widget) for name, widget in widgets.items()}


def write_state(widgets: Mapping[str, QWidget], values: Mapping[str, Any]) -> None:
    """Show values in the widgets of these names; names without a widget are passed over."""
    for name, value in values.items():
        if name in widgets:
            show(widgets[name], value)


def value_of(widget: QWidget) -> Any:
    """Return a widget's value as plain JSON."""
    if isinstance(widget, Stateful):
        return plain(widget.memo())
    if isinstance(widget, QComboBox):
        return plain(widget.currentData())
    if isinstance(widget, QCheckBox):
        return widget.isChecked()
    if isinstance(widget, QSpinBox):
        return widget.value()
    if isinstance(widget, QLineEdit):
        return widget.text()
    raise TypeError(f"{type(widget).__name__} has no state.")


def show(widget: QWidget, value: Any) -> None:
    """Show a value; one that a menu does not offer is passed over."""
    if isinstance(widget, Stateful):
        widget.restore(value)
    elif isinstance(widget, QComboBox):
        index = widget.findData(value)
        if index >= 0:
            widget.setCurrentIndex(index)
    elif isinstance(widget, QCheckBox):
        widget.setChecked(bool(value))
    elif isinstance(widget, QSpinBox):
        widget.setValue(int(value))
    elif isinstance(widget, QLineEdit):
        widget.setText(str(value))


def plain(value: Any) -> Any:
    """Return paths as text, and tuples as lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
