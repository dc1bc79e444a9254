"""Border map of U-Net: narrow gaps between two objects weigh most."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Config, NonNegative, Positive
from napari_em_da.errors import DataError
from napari_em_da.weights._base import WeightSpec
from napari_em_da.weights._classes import Counts
from napari_em_da.weights._compiled import compiled
from napari_em_da.weights._stack import Block, LabelStack, Weights
from napari_em_da.weights.frequency import class_weights

NEGLIGIBLE = 1e-6  # of w_0: what a distance beyond the reach would add
Tally = tuple[int, int, bool, bool]


class BorderOptions(Config):
    """Weight of the background between neighbouring objects, per section, plus class balance."""

    w_0: NonNegative = Field(10.0, description="Largest border weight")
    sigma: Positive = Field(5.0, description="Width of the border term in pixels")
    where: Literal["background", "all"] = Field("background", description="Pixels that get the border term")
    objects: Literal["instances", "components"] = Field(
        "instances", description="Labels are object ids, or a mask whose 4-connected components are the objects"
    )
    class_balance: bool = Field(True, description="Add the inverse frequency of background and objects")
    counts: Counts | None = Field(
        None, description="Pixels of 0: background and 1: objects in the whole training set; counted here if absent"
    )


def raw(stack: LabelStack, options: BorderOptions) -> Any:
    r"""Return ``w_c(x) + w_0 exp(-(d_1 + d_2)^2 / (2 sigma^2))``.

    ``d_1`` and ``d_2`` are the distances to the nearest and to the second-nearest object, 0 inside an object.

    Raises
    ------
    DataError
        If the ignored label is also in use as an object id.

    Notes
    -----
    Objects farther than ``sigma sqrt(2 ln 1e6)`` (27 pixels at sigma 5) count as absent, so that blocks with this halo
    agree exactly with the whole volume. Instead of one distance transform per object, one pass along columns finds
    the two nearest objects per column and one pass along rows merges them: the cost does not grow with the number
    of objects.

    References
    ----------
    O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015, eq. 2.
    """
    reach = math.ceil(options.sigma * math.sqrt(-2 * math.log(NEGLIGIBLE)))
    components = options.objects == "components"
    tally = stack.tally(partial(_tally, ignore_index=stack.ignore_index), _merge)
    block = partial(_block, options=options, ignore_index=stack.ignore_index, reach=reach)
    return stack.map(block, tally, depth=(0, reach, reach), whole_sections=components)


def _block(
    labels: Block, out: Weights, tally: Tally, options: BorderOptions, ignore_index: int | None, reach: int
) -> None:
    background, foreground, ignored, above = tally
    if ignored and above and options.objects == "instances":
        raise DataError(
            f"Label {ignore_index} means 'not annotated' here, but it and higher object ids occur; pass "
            "ignore_index=None if it is an object, or another ignore_index."
        )
    counts = {0: background, 1: foreground} if options.counts is None else options.counts
    weights = class_weights(counts) if options.class_balance else {}
    balance = np.array([weights.get(0, 0.0), weights.get(1, 0.0)], np.float32)
    for section, target in zip(labels, out, strict=True):
        ids = section.astype(np.int64)
        if ignore_index is not None:
            ids[ids == ignore_index] = 0
        target[...] = np.where(ids != 0, balance[1], balance[0])
        if options.w_0 > 0:
            if options.objects == "components":
                ids = _components(ids != 0)
            _add_borders(ids, reach, options.w_0, options.sigma, options.where == "all", target)


def _components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    import cv2

    return cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[1].astype(np.int64)


def _tally(labels: Block, ignore_index: int | None) -> Tally:
    """Return pixels of background and of objects, whether the ignored label occurs, and whether a higher one does."""
    background = labels.size - int(np.count_nonzero(labels))
    if ignore_index is None:
        return background, labels.size - background, False, False
    ignored = int(np.count_nonzero(labels == ignore_index))
    if ignore_index == 0:
        return 0, labels.size - ignored, False, False
    return background, labels.size - background - ignored, ignored > 0, bool(labels.max() > ignore_index > 0)


def _merge(left: Tally, right: Tally) -> Tally:
    return left[0] + right[0], left[1] + right[1], left[2] or right[2], left[3] or right[3]


@compiled
def _two_nearest_in_column(ids: npt.NDArray[np.int64], reach: int) -> npt.NDArray[np.int32]:
    """Return the rows of the nearest pixel and of the nearest one of another object, -1 if beyond reach; (2, Y, X)."""
    height, width = ids.shape
    found = np.full((2, height, width), -1, np.int32)
    for backwards in range(2):
        last = np.full((2, width), -1, np.int32)  # rows of the last two objects passed
        for step in range(height):
            y = height - 1 - step if backwards else step
            for x in range(width):
                if ids[y, x] != 0:
                    if last[0, x] >= 0 and ids[last[0, x], x] != ids[y, x]:
                        last[1, x] = last[0, x]
                    last[0, x] = y
                for k in range(2):
                    row = last[k, x]
                    if row < 0 or abs(row - y) > reach:
                        continue
                    first, second = found[0, y, x], found[1, y, x]
                    if first < 0 or abs(row - y) < abs(first - y):
                        if first >= 0 and ids[first, x] != ids[row, x]:
                            found[1, y, x] = first
                        found[0, y, x] = row
                    elif ids[first, x] != ids[row, x] and (second < 0 or abs(row - y) < abs(second - y)):
                        found[1, y, x] = row
    return found


@compiled
def _add_borders(
    ids: npt.NDArray[np.int64], reach: int, w_0: float, sigma: float, everywhere: bool, out: Weights
) -> None:
    height, width = ids.shape
    rows = _two_nearest_in_column(ids, reach)
    beyond = reach * reach + 1
    for y in range(height):
        for x in range(width):
            if ids[y, x] != 0 and not everywhere:
                continue
            nearest, square_1, square_2 = np.int64(0), beyond, beyond
            for step in range(2 * reach + 1):
                offset = (step + 1) // 2 if step % 2 else -(step // 2)
                if offset * offset >= square_2:
                    break  # no farther column can hold a nearer object
                column = x + offset
                if column < 0 or column >= width:
                    continue
                for k in range(2):
                    row = rows[k, y, column]
                    if row < 0:
                        break
                    square = offset * offset + (row - y) * (row - y)
                    label = ids[row, column]
                    if label == nearest:
                        square_1 = min(square_1, square)
                    elif square < square_1:
                        if nearest != 0:
                            square_2 = square_1
                        nearest, square_1 = label, square
                    elif square < square_2:
                        square_2 = square
            if square_2 < beyond:
                distance = np.sqrt(square_1) + np.sqrt(square_2)
                out[y, x] += w_0 * np.exp(-distance * distance / (2 * sigma * sigma))


WEIGHT = WeightSpec(raw, BorderOptions)
