"""How layers are shown anew, and what napari's themes leave unseen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.layers import Layer

# in lists and tables of the dark theme, an empty box is as dark as what is behind it
TICKS = "QAbstractItemView::indicator:unchecked { border: 1px solid #808080; border-radius: 2px; }"


def renew(layer: Layer, data: Any, about: Mapping[str, Any]) -> None:
    """Give a layer new data, and of its place and contrast what is another now.

    Each of these setters slices and draws the layer again, also where nothing changes.
    """
    layer.data = data
    for name in ("scale", "translate", "units", "axis_labels", "contrast_limits"):
        if name in about and not np.array_equal(getattr(layer, name), about[name]):
            setattr(layer, name, about[name])
