"""One picture that shows where a segmentation is right and wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import DataError

HIT, MISS, FALSE_ALARM = (60, 200, 80), (230, 50, 50), (60, 110, 255)


def overlay(
    image: npt.NDArray[Any],
    prediction: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    *,
    ignore_index: int | None = 255,
    opacity: float = 0.5,
) -> npt.NDArray[np.uint8]:
    """Blend hits (green), misses (red) and false alarms (blue) over a gray section.

    Parameters
    ----------
    image : (Y, X)
        Any intensity range; shown from its 0.1 % to its 99.9 % quantile.
    prediction, labels : (Y, X) integer
        0 is background. A voxel annotated as one class but predicted as another is a miss.
    ignore_index : int or None
        Annotated value that stays uncoloured.
    opacity : float
        Of the colours, 0 to 1.

    Returns
    -------
    (Y, X, 3) uint8

    Raises
    ------
    DataError
        If the three are not single sections of one shape.
    """
    shapes = [np.shape(a) for a in (image, prediction, labels)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise DataError(f"Image, prediction and labels have shapes {shapes}; give one section (Y, X) of each.")
    low, high = np.percentile(image, (0.1, 99.9))
    gray = np.clip((np.asarray(image, np.float32) - low) / max(high - low, 1e-12), 0, 1) * 255
    rgb = np.repeat(gray[..., None], 3, axis=-1)
    counts = labels != ignore_index if ignore_index is not None else np.ones(shapes[0], bool)
    areas = {
        HIT: counts & (labels > 0) & (prediction == labels),
        MISS: counts & (labels > 0) & (prediction != labels),
        FALSE_ALARM: counts & (labels == 0) & (prediction > 0),
    }
    for colour, area in areas.items():
        rgb[area] += opacity * (np.asarray(colour, np.float32) - rgb[area])
    return rgb.round().astype(np.uint8)
