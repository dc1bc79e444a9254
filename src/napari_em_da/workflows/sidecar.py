"""The JSON file beside a written volume: what it holds, and which label value is which class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_em_da.errors import DataError
from napari_em_da.training.checkpoint import write_text

Classes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sidecar:
    """What is known about a volume: the values of its classes, background aside, and what it holds (if recorded)."""

    classes: Classes
    holds: str | None = None

    @property
    def values(self) -> tuple[int, ...]:
        """The value that stands for each class in label volumes, background first."""
        return (0, *(members[0] for members in self.classes.values()))


def sidecar(volume: Path) -> Path:
    """Return the path of the JSON file beside a volume."""
    return volume.with_name(volume.name + ".json")


def read_sidecar(volume: Path) -> Sidecar | None:
    """Return what the JSON file beside a volume says, or None where there is none.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    path = sidecar(volume)
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        classes = {str(name): tuple(int(v) for v in values) for name, values in saved["classes"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}); delete it, and name the classes instead.") from None
    return Sidecar(classes, saved.get("holds"))


def write_sidecar(volume: Path, classes: Mapping[str, tuple[int, ...]], holds: str, **about: Any) -> None:
    """Write the JSON file beside a volume, atomically."""
    data = {"holds": holds, "classes": {name: list(values) for name, values in classes.items()}, **about}
    write_text(sidecar(volume), json.dumps(data, indent=2, default=str) + "\n")
