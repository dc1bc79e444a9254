"""The window: docks that read forms and layers, run jobs in a worker thread and show what they report."""

from __future__ import annotations

from napari_em_da._napari.segment_dock import SegmentDock
from napari_em_da._napari.train_dock import TrainDock
from napari_em_da._napari.weight_maps_dock import WeightMapsDock

__all__ = ["SegmentDock", "TrainDock", "WeightMapsDock"]
