"""Overlap of classes: IoU, mean IoU, Dice, precision, recall and pixel accuracy from one confusion matrix.

The matrix M counts voxels of the whole volume (rows: annotation, columns: prediction); scores are never averaged
over sections, on which rare classes come and go.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from napari_em_da.catalog import unknown
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import Empty, Family, Pair, Undefined, load, regions

Matrix = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
_ANY = 256  # ids taken as they come when no classes are named


def confusion_matrix(
    prediction: Any, labels: Any, ids: Sequence[int], *, ignore_index: int | None = 255, mask: Any = None
) -> Matrix:
    """Count voxels by (annotated, predicted) class, block by block.

    Parameters
    ----------
    prediction, labels : integer numpy or dask arrays of one shape
    ids : sequence of K ints
        The classes, in the order of rows and columns.
    ignore_index : int or None
        Annotated value whose voxels do not count.
    mask : bool array of the same shape, optional
        Only True voxels count.

    Returns
    -------
    (K + 1, K + 1) int64
        The last row and column collect every other value.
    """
    count = len(ids)
    table = np.full(max(ids, default=0) + 1, count, np.int32)
    for position, value in enumerate(ids):
        table[value] = position
    matrix = np.zeros((count + 1, count + 1), np.int64)
    everywhere = np.empty(0, np.bool_)  # no mask
    for region in regions(labels):
        truth, guess = load(labels, region).ravel(), load(prediction, region).ravel()
        inside = everywhere if mask is None else load(mask, region).ravel().astype(np.bool_, copy=False)
        _count(_integers(truth), _integers(guess), inside, table, *_ignored(ignore_index), matrix)
    return matrix


def _ignored(ignore_index: int | None) -> tuple[bool, int]:
    return ignore_index is not None, ignore_index or 0


def _integers(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return bool as uint8 and uint64 as int64: the kernel compares with signed numbers."""
    if values.dtype == np.bool_:
        return values.view(np.uint8)
    return values.astype(np.int64, copy=False) if values.dtype == np.uint64 else values


@numba.njit(nogil=True, cache=True)
def _count(truth, guess, inside, table, ignoring, ignored, matrix):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add one block to ``matrix``; equal neighbours are counted as one run, which segmentations are made of."""
    other = matrix.shape[0] - 1
    known = table.shape[0]
    masked = inside.shape[0] > 0
    n = truth.shape[0]
    i = 0
    while i < n:
        t, g = truth[i], guess[i]
        start = i
        skipped = 0
        while i < n and truth[i] == t and guess[i] == g:
            if masked and not inside[i]:
                skipped += 1
            i += 1
        if ignoring and t == ignored:
            continue
        row = table[t] if 0 <= t < known else other
        column = table[g] if 0 <= g < known else other
        matrix[row, column] += i - start - skipped


def iou(matrix: Matrix, empty: Empty = "nan") -> Scores:
    """Intersection over union (Jaccard index) per class: M_cc / (row_c + col_c − M_cc).

    Range 0 to 1, higher is better.

    References
    ----------
    Jaccard (1912), The distribution of the flora in the alpine zone.
    """
    hits = np.diagonal(matrix)
    return _ratio(hits, matrix.sum(1) + matrix.sum(0) - hits, empty)


def dice(matrix: Matrix, empty: Empty = "nan") -> Scores:
    """Dice coefficient (F1) per class: 2 M_cc / (row_c + col_c) = 2 IoU / (1 + IoU).

    Range 0 to 1, higher is better.

    References
    ----------
    Dice (1945), Measures of the amount of ecologic association between species.
    """
    return _ratio(2 * np.diagonal(matrix), matrix.sum(1) + matrix.sum(0), empty)


def precision(matrix: Matrix, empty: Empty = "nan") -> Scores:
    """Share of the predicted voxels of a class that are right: M_cc / col_c.

    Range 0 to 1, higher is better; ``empty`` where nothing is predicted.

    References
    ----------
    van Rijsbergen (1979), Information Retrieval, chapter 7.
    """
    return _ratio(np.diagonal(matrix), matrix.sum(0), empty)


def recall(matrix: Matrix, empty: Empty = "nan") -> Scores:
    """Share of the annotated voxels of a class that are found (sensitivity): M_cc / row_c.

    Range 0 to 1, higher is better; ``empty`` where nothing is annotated.

    References
    ----------
    van Rijsbergen (1979), Information Retrieval, chapter 7.
    """
    return _ratio(np.diagonal(matrix), matrix.sum(1), empty)


def pixel_accuracy(matrix: Matrix) -> float:
    """Share of all voxels with the right class: Σ_c M_cc / Σ M.

    Range 0 to 1, higher is better; a rare class hardly moves it.

    References
    ----------
    Long, Shelhamer & Darrell (2015), Fully convolutional networks for semantic segmentation, section 5.
    """
    return float(np.trace(matrix) / matrix.sum())


def mean_over(scores: Scores, subset: Sequence[int] | None = None) -> float:
    """Mean over classes (over a subset of positions), e.g. MIoU^(D) = Σ_{c∈D} IoU_c / |D|; NaN scores are left out.

    Range and direction of the scores; NaN if none is left.

    References
    ----------
    Guay et al. (2021), Dense cellular segmentation for EM using 2D-3D neural network ensembles (MIoU over subsets).
    """
    chosen = scores if subset is None else scores[list(subset)]
    chosen = chosen[~np.isnan(chosen)]
    return float(chosen.mean()) if chosen.size else float("nan")


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64], empty: Empty) -> Scores:
    fill = np.nan if empty == "nan" else float(empty)
    scores = np.full(len(part), fill)
    np.divide(part, whole, out=scores, where=whole > 0)
    return scores


_PER_CLASS = {"iou": iou, "dice": dice, "precision": precision, "recall": recall}


def compute(pair: Pair, wanted: tuple[str, ...]) -> dict[str, float | Undefined]:
    """Compute the wanted scores of a pair of label volumes.

    ``iou``, ``dice``, ``precision`` and ``recall`` are means over the foreground classes, with ``name/class``
    beside them; ``miou`` is the mean over all classes, background included.

    Raises
    ------
    ConfigError
        If two classes share an id, or a class is the ignored value.
    DataError
        If the volumes are not integer, hold instances rather than classes, or no voxel is annotated.
    """
    pair.require_labels()
    matrix, names = _named(pair) if pair.classes is not None else _found(pair)
    if not matrix.sum():
        raise DataError(
            f"No voxel is annotated: each one is masked or has the ignored value {pair.ignored()}; "
            "check ignore_index and the mask."
        )
    foreground = [i for i, name in enumerate(names) if name != "background"]
    result: dict[str, float | Undefined] = {}
    for name in wanted:
        if name == "pixel_accuracy":
            result[name] = pixel_accuracy(matrix)
        elif name == "miou":
            scores = iou(matrix, pair.empty)[: len(names)]
            result[name] = _defined(mean_over(scores), "no class")
            for subset, members in pair.scoring.subsets.items():
                value = mean_over(scores, [_position(member, names) for member in members])
                result[f"miou/{subset}"] = _defined(value, f"no class of the subset {subset!r}")
        else:
            scores = _PER_CLASS[name](matrix, pair.empty)
            result[name] = _defined(mean_over(scores, foreground), "no class but background")
            for label, score in zip(names, scores, strict=False):
                result[f"{name}/{label}"] = _defined(float(score), f"class {label!r}", _NEEDS[name])
    return result


_NEEDS = {"precision": "is predicted", "recall": "is annotated"} | dict.fromkeys(("iou", "dice"), "occurs")


def _defined(score: float, what: str, occurs: str = "with a score occurs") -> float | Undefined:
    if not np.isnan(score):
        return score
    negated = f"{what} {occurs}" if what.startswith("no ") else f"{what}: no voxel of it {occurs}"
    return Undefined(negated)


def _position(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise ConfigError(unknown("class", name, tuple(names)))
    return list(names).index(name)


def _named(pair: Pair) -> tuple[Matrix, list[str]]:
    """Return the matrix of the named classes; all other values are background, unless a class has id 0."""
    classes = dict(pair.classes or {})
    ids = list(classes.values())
    if not ids:
        raise ConfigError("classes is empty; name at least one, for example {'mitochondria': 1}, or leave it out.")
    if len(set(ids)) < len(ids) or min(ids) < 0:
        raise ConfigError(f"Class ids {ids} must be different and not negative.")
    if pair.ignored() in ids:
        raise ConfigError(
            f"Class id {pair.ignored()} is also the ignored value; pass ignore_index=None, or another value."
        )
    matrix = confusion_matrix(pair.prediction, pair.labels, ids, ignore_index=pair.ignored(), mask=pair.mask)
    return matrix, list(classes) if 0 in ids else [*classes, "background"]


def _found(pair: Pair) -> tuple[Matrix, list[str]]:
    """Return the matrix of all ids that occur; 0 is background."""
    full = confusion_matrix(pair.prediction, pair.labels, range(_ANY), ignore_index=pair.ignored(), mask=pair.mask)
    present = np.flatnonzero(full.sum(0) + full.sum(1))
    if present.size and present[-1] == _ANY:
        raise DataError(
            f"The volumes hold ids below 0 or above {_ANY - 1}, so these look like instances rather than classes; "
            "name the classes to score, for example classes={'mitochondria': 1}, or use an instance metric."
        )
    if pair.ignored() == _ANY - 1 and full[1:_ANY].sum() == 0 and full[0, _ANY - 1]:
        raise DataError(
            "255 is the ignored value, but the prediction uses it and the annotation holds no class but 0; if 255 is "
            "the foreground, pass classes={'foreground': 255} and ignore_index=None."
        )
    ids = [0, *(int(i) for i in present if i)] if present.size else []
    return full[np.ix_(ids, ids)], ["background" if i == 0 else str(i) for i in ids]


def miou(matrix: Matrix, empty: Empty = "nan") -> float:
    """Mean of the IoU over all classes, background included: Σ_c IoU_c / C; ``miou/<subset>`` over a subset.

    Range 0 to 1, higher is better.

    References
    ----------
    Guay et al. (2021), Dense cellular segmentation for EM using 2D-3D neural network ensembles (MIoU over subsets).
    """
    return mean_over(iou(matrix, empty))


FAMILY = Family(
    {
        name: inspect.getdoc(f) or ""
        for name, f in (_PER_CLASS | {"miou": miou, "pixel_accuracy": pixel_accuracy}).items()
    },
    compute,
)
