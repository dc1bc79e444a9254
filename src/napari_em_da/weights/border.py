"""Border map of U-Net: narrow gaps between two objects weigh most."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from napari_em_da.config import Config, NonNegative, Positive
from napari_em_da.errors import DataError
from napari_em_da.weights._base import WeightSpec
from napari_em_da.weights._classes import Counts
from napari_em_da.weights._compiled import compiled, in_bands
from napari_em_da.weights._stack import Block, LabelStack, Weights
from napari_em_da.weights.frequency import class_weights

NEGLIGIBLE = 1e-6  # of w_0: what a distance beyond the reach would add
STEPS = (32, 160, 512)  # px
FAR = 1 << 30  # a squared distance that none comes near
Ids = npt.NDArray[np.int64]
Squares = npt.NDArray[np.int32]
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
    search = partial(
        _two_nearest,
        ignore_index=stack.ignore_index,
        components=components,
        everywhere=options.where == "all",
        reach=further(reach) if stack.threads > 1 else reach,
        threads=stack.threads,
    )
    balance = partial(_balance, options=options, ignore_index=stack.ignore_index)
    if options.w_0 == 0:
        return stack.map(balance, tally)
    block = partial(_block, balance=balance, options=options, reach=reach, threads=stack.threads)
    return stack.map(block, tally, depth=(0, reach, reach), whole_sections=components, prepare=search)


def further(reach: int) -> int:
    """Return how far to search where the result is kept for other widths: none of them within a slider's asks again."""
    return next((step for step in STEPS if step >= reach), reach)


def _balance(labels: Block, out: Weights, tally: Tally, options: BorderOptions, ignore_index: int | None) -> None:
    """Write the weights of background and objects."""
    background, foreground, ignored, above = tally
    if ignored and above and options.objects == "instances":
        raise DataError(
            f"Label {ignore_index} means 'not annotated' here, but it and higher object ids occur; pass "
            "ignore_index=None if it is an object, or another ignore_index."
        )
    counts = {0: background, 1: foreground} if options.counts is None else options.counts
    weights = class_weights(counts) if options.class_balance else {}
    both = np.array([weights.get(0, 0.0), weights.get(1, 0.0)], np.float32)
    np.take(both, _objects(labels, ignore_index).view(np.uint8), out=out, mode="clip")


def _block(
    labels: Block,
    out: Weights,
    squares: Squares,
    tally: Tally,
    balance: Callable[[Block, Weights, Tally], None],
    options: BorderOptions,
    reach: int,
    threads: int,
) -> None:
    balance(labels, out, tally)
    for near, target in zip(squares, out, strict=True):

        def band(begin: int, end: int, near: Squares = near, target: Weights = target) -> None:
            _add_borders(near[:, begin:end], reach * reach, options.w_0, options.sigma, target[begin:end])

        in_bands(band, len(target), threads)


def _objects(section: Block, ignore_index: int | None) -> npt.NDArray[np.bool_]:
    """Return the mask of object pixels."""
    found: npt.NDArray[np.bool_] = section != 0
    if ignore_index is not None and np.iinfo(section.dtype).min <= ignore_index <= np.iinfo(section.dtype).max:
        found &= section != ignore_index
    return found


def _two_nearest(
    labels: Block, ignore_index: int | None, components: bool, everywhere: bool, reach: int, threads: int
) -> Squares:
    """Return the squared distances to the nearest and the second-nearest object, (Z, 2, Y, X).

    The second is ``FAR`` where fewer than two are within reach, and inside objects unless ``everywhere``.
    """
    out = np.empty((len(labels), 2, *labels.shape[1:]), np.int32)
    for section, squares in zip(labels, out, strict=True):
        mask = _objects(section, ignore_index)
        ids = _components(mask) if components else np.where(mask, section, 0).astype(np.int64)
        rows = np.full((2, *ids.shape), -1, np.int32)

        def columns(begin: int, end: int, ids: Ids = ids, rows: Squares = rows) -> None:
            _two_nearest_in_column(ids[:, begin:end], reach, rows[:, :, begin:end])

        def band(begin: int, end: int, ids: Ids = ids, rows: Squares = rows, squares: Squares = squares) -> None:
            _two_nearest_in_rows(ids, rows, reach, everywhere, begin, end, squares)

        in_bands(columns, ids.shape[1], threads)
        in_bands(band, len(ids), threads)
    return out


def _components(mask: npt.NDArray[np.bool_]) -> Ids:
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
def _two_nearest_in_column(ids: Ids, reach: int, found: Squares) -> None:
    """Write the rows of the nearest pixel and of the nearest one of another object into (2, Y, X) of -1."""
    height, width = ids.shape
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


@compiled
def _two_nearest_in_rows(
    ids: Ids, rows: Squares, reach: int, everywhere: bool, begin: int, end: int, out: Squares
) -> None:
    """Merge the nearest objects of the columns, for the rows from ``begin`` to ``end``; distances squared."""
    width = ids.shape[1]
    beyond = reach * reach + 1
    lifts = np.empty((2, width), np.int64)  # squared distance along the column, or beyond
    for y in range(begin, end):
        for k in range(2):
            for column in range(width):
                row = np.int64(rows[k, y, column])
                lifts[k, column] = beyond if row < 0 else (row - y) * (row - y)
        for x in range(width):
            out[0, y, x], out[1, y, x] = FAR, FAR
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
                    square = offset * offset + lifts[k, column]
                    if square >= square_2:
                        break  # and the other object of this column is farther still
                    label = ids[rows[k, y, column], column]
                    if label == nearest:
                        square_1 = min(square_1, square)
                    elif square < square_1:
                        if nearest != 0:
                            square_2 = square_1
                        nearest, square_1 = label, square
                    else:
                        square_2 = square
            if square_2 < beyond:
                out[0, y, x], out[1, y, x] = square_1, square_2


@compiled
def _add_borders(squares: Squares, largest: int, w_0: float, sigma: float, out: Weights) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            if squares[1, y, x] <= largest:
                distance = np.sqrt(squares[0, y, x]) + np.sqrt(squares[1, y, x])
                out[y, x] += w_0 * np.exp(-distance * distance / (2 * sigma * sigma))


WEIGHT = WeightSpec(raw, BorderOptions)
