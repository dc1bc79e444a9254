"""What a running job reports: small frozen messages, picklable and free of torch and Qt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` units of work are behind us."""

    done: int
    total: int
    unit: str
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """Named scalars measured at a training step; losses are logged without their weights."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Preview:
    """A small array worth showing: ``image`` (Y, X) float32, or ``labels`` (Y, X) uint8.

    ``origin`` is the voxel (z, y, x) of its first pixel, where it has the volume's own pixels and place.
    """

    name: str
    kind: Literal["image", "labels"]
    data: npt.NDArray[Any] = field(repr=False)
    step: int = 0
    origin: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """A file or folder is complete on disk."""

    path: Path
    what: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should read: what was decided for them, or a warning."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every job that was neither cancelled nor failed."""

    result: Any


Event = Progress | Metric | Preview | Saved | Notice | Finished

__all__ = ["Event", "Finished", "Metric", "Notice", "Preview", "Progress", "Saved"]
