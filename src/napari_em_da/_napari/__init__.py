"""The window: docks that read forms and layers, run jobs in a worker thread and show what they report."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_em_da._napari.adapt_page import AdaptPage
    from napari_em_da._napari.correct_page import CorrectPage
    from napari_em_da._napari.data_page import DataPage
    from napari_em_da._napari.evaluate_page import EvaluatePage
    from napari_em_da._napari.guide import GuideDock
    from napari_em_da._napari.refine_page import RefinePage
    from napari_em_da._napari.segment_page import SegmentPage
    from napari_em_da._napari.train_page import TrainPage
    from napari_em_da._napari.weights_page import WeightsPage

_HOME = {  # which module a dock comes from; opening one loads no other
    "AdaptPage": "adapt_page",
    "CorrectPage": "correct_page",
    "DataPage": "data_page",
    "EvaluatePage": "evaluate_page",
    "GuideDock": "guide",
    "RefinePage": "refine_page",
    "SegmentPage": "segment_page",
    "TrainPage": "train_page",
    "WeightsPage": "weights_page",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


__all__ = [
    "AdaptPage",
    "CorrectPage",
    "DataPage",
    "EvaluatePage",
    "GuideDock",
    "RefinePage",
    "SegmentPage",
    "TrainPage",
    "WeightsPage",
]
