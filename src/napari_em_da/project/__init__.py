"""A project folder: layers, strokes, pages and runs of a session, saved as they happen and opened again."""

from __future__ import annotations

from napari_em_da.project.edited import Edited
from napari_em_da.project.lock import Holder, Lock, LockHeld, LockLost
from napari_em_da.project.pages import Pages
from napari_em_da.project.project import Project
from napari_em_da.project.records import LabelClass, LayerRecord
from napari_em_da.project.strokes import StrokeStore

__all__ = [
    "Edited",
    "Holder",
    "LabelClass",
    "LayerRecord",
    "Lock",
    "LockHeld",
    "LockLost",
    "Pages",
    "Project",
    "StrokeStore",
]
