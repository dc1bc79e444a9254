"""Measurements of the objects of a labels layer as a table that can be filtered, and where each object is."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_em_da.catalog import unknown
from napari_em_da.errors import ConfigError
from napari_em_da.events import Finished
from napari_em_da.jobs import Job
from napari_em_da.layers.snapshot import Snapshot, snapshot

Column = npt.NDArray[Any]
UNIT_NM = {"nm": 1.0, "um": 1000.0}
SIGNS = {"nm": "nm", "um": "µm", "px": "px"}
POWERS = {"": "", "2": "²", "3": "³"}
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"^(\w+)\s*(<=|>=|!=|==|=|<|>)\s*(\S+)$")
_UNIT = re.compile(r"^(.*)_(nm|um|px)([23]?)$")


@dataclass(frozen=True, eq=False)
class Objects:
    """A table of measurements: {column: one value per object}, the unit, and the voxel size in that unit."""

    table: Mapping[str, Column]
    unit: Literal["nm", "um", "px"]
    spacing: tuple[float, float, float]

    @property
    def count(self) -> int:
        return len(self.table["id"])

    def place(self, row: int) -> tuple[float, float, float]:
        """Return the centroid (z, y, x) of an object in voxels."""
        z, y, x = (
            float(self.table[f"centroid_{axis}_{self.unit}"][row]) / size
            for axis, size in zip("zyx", self.spacing, strict=True)
        )
        return z, y, x


def measure_objects(
    labels: Any, image: Any = None, *, columns: Sequence[str] | None = None, unit: Literal["nm", "um", "px"] = "nm"
) -> Job:
    """Measure every object of a layer as ``measure_layer`` does and yield events; Finished carries ``Objects``.

    The group ``centroid`` is always measured: it says where an object is.
    """
    taken, below = snapshot(labels), None if image is None else snapshot(image)
    wanted = None if columns is None else tuple(dict.fromkeys((*columns, "centroid")))
    return _measure(taken, below, wanted, unit)


def _measure(
    taken: Snapshot, image: Snapshot | None, columns: tuple[str, ...] | None, unit: Literal["nm", "um", "px"]
) -> Job:
    from napari_em_da.measurements import measure_steps

    nm = None if unit == "px" else taken.volume.voxel_nm
    unit = "px" if nm is None else unit
    table = yield from measure_steps(
        taken.volume.source,
        spacing=nm,
        image=None if image is None else image.volume.source,
        columns=columns,
        unit=unit,
    )
    z, y, x = (1.0, 1.0, 1.0) if nm is None else (size / UNIT_NM[unit] for size in nm)
    yield Finished(Objects(table, unit, (z, y, x)))


def heading(column: str) -> str:
    """Return a column's name for people: ``volume_um3`` is ``volume (µm³)``."""
    found = _UNIT.match(column)
    if found is None:
        return column.replace("_", " ")
    name, unit, power = found.groups()
    return f"{name.replace('_', ' ')} ({SIGNS[unit]}{POWERS[power]})"


def rows_where(table: Mapping[str, Column], text: str) -> npt.NDArray[np.int64]:
    """Return the rows that fulfil all conditions of a line such as ``volume > 1e6 and sphericity < 0.5``.

    Parameters
    ----------
    table : {column: values}
    text : str
        Conditions ``column comparison number``, joined by ``and``, ``&`` or commas. A column may be named without its
        unit, or by a beginning that no other column has. Empty: all rows.

    Raises
    ------
    ConfigError
        If a column is unknown or meant by several names, or a condition is none.
    """
    keep = np.ones(len(next(iter(table.values()), ())), np.bool_)
    for part in re.split(r"\band\b|&+|,", text):
        if not part.strip():
            continue
        found = _CONDITION.match(part.strip())
        try:
            value = float(found[3]) if found else None
        except ValueError:
            value = None
        if found is None or value is None:
            raise ConfigError(f"{part.strip()!r} is no condition; write for example volume > 1e6.")
        keep &= COMPARE[found[2]](table[_column(found[1], tuple(table))], value)
    return np.flatnonzero(keep)


def _column(name: str, columns: tuple[str, ...]) -> str:
    if name in columns:
        return name
    units = [c for c in columns if (m := _UNIT.match(c)) and m[1] == name]
    near = units or [c for c in columns if c.startswith(name)]
    if len(near) > 1:
        raise ConfigError(f"{name!r} may be {', '.join(near)}; write more of the name.")
    if not near:
        raise ConfigError(unknown("column", name, columns))
    return near[0]


__all__ = ["Objects", "heading", "measure_objects", "rows_where"]
