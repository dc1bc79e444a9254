"""The widget functions without widgets: napari layers (or LayerData tuples, or arrays) in, LayerData and events out.

Nothing here needs Qt, and napari alone to open the demo. A layer is whatever has ``data``; its ``scale``, ``units``,
``translate``, ``axis_labels``, ``name`` and ``source.path`` are used where they exist.
"""

from __future__ import annotations

from napari_em_da.layers.analysis import (
    apply_edit,
    error_layer,
    measure_layer,
    overlay_layer,
    plot_layers,
    postprocess_layer,
)
from napari_em_da.layers.jobs import evaluate, label_values, result_layers, resume, segment, segment_layers, then, train
from napari_em_da.layers.samples import demo_layers, flyem_sample, open_demo, phantom_sample
from napari_em_da.layers.snapshot import LayerData, Snapshot, snapshot, voxel_size
from napari_em_da.layers.weights import weight_layer, weight_map_layer, weight_section

__all__ = [
    "LayerData",
    "Snapshot",
    "apply_edit",
    "demo_layers",
    "error_layer",
    "evaluate",
    "flyem_sample",
    "label_values",
    "measure_layer",
    "open_demo",
    "overlay_layer",
    "phantom_sample",
    "plot_layers",
    "postprocess_layer",
    "result_layers",
    "resume",
    "segment",
    "segment_layers",
    "snapshot",
    "then",
    "train",
    "voxel_size",
    "weight_layer",
    "weight_map_layer",
    "weight_section",
]
