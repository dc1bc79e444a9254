"""Weight maps as image layers, and single sections of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from napari_em_da.layers.snapshot import LayerData, Snapshot, snapshot


def weight_map_layer(labels_layer: Any, kind: str, **params: Any) -> LayerData:
    """Compute the weight map of a labels layer exactly as the loss uses it.

    Parameters
    ----------
    labels_layer : labels layer, LayerData or array
    kind : str
        Name in the catalog of weight maps.
    **params
        ``floor``, ``scale``, ``ignore_index``, ``spacing`` and the kind's own; see ``weight_map``.

    Returns
    -------
    LayerData
        A float32 image of the labels' shape and place; lazy if the labels are.
    """
    from napari_em_da.weights import weight_map

    taken = snapshot(labels_layer)
    weights = weight_map(taken.volume.source[0] if taken.flat else taken.volume.source, kind, **params)
    section = weights if weights.ndim == 2 else weights[len(weights) // 2]
    high = float(section.max() if hasattr(weights, "dask") else weights.max())
    return weight_layer(weights, f"{taken.volume.name} {kind} weights", high, taken.place, kind, params)


def weight_layer(
    weights: Any, name: str, high: float, place: Mapping[str, Any], kind: str, params: Mapping[str, Any]
) -> LayerData:
    """Return weights as LayerData in the colours that all weight maps share."""
    limits = (0.0, high if high > 0 and math.isfinite(high) else 1.0)
    look = {"colormap": "magma", "contrast_limits": limits, "blending": "translucent", "opacity": 0.7}
    return weights, {**place, **look, "name": name, "metadata": {"kind": kind, "params": dict(params)}}, "image"


def weight_section(labels: Snapshot, kind: str, z: int, **params: Any) -> Any:
    """Return section ``z`` (Y, X) float32 of the weight map of the whole volume.

    Only what the section needs is computed: its neighbourhood, and the sums over the volume that the kind uses.
    """
    from napari_em_da.weights import weight_map

    lazy = weight_map(labels.volume.data, kind, **params)
    return np.asarray(lazy[min(max(z, 0), len(lazy) - 1)].compute())
