"""Matching of objects one to one: panoptic quality, average precision over IoU thresholds, F1 and object counts.

Every score comes from one sparse table of how many voxels each pair of objects shares. Ids are objects; 0 is
background. In boundary maps (``kind``) the objects are components: face-connected in the volume, which is held in
memory there (16 bytes per voxel), or in each section with ``per_section``, where ids too are other objects in every
section. A probability map is taken at 0.5.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.metrics._base import Family, Pair, Undefined
from napari_em_da.metrics._contingency import contingency
from napari_em_da.metrics._objects import Counts, Objects, objects_of, tables


def pq(objects: Objects) -> float:
    """Panoptic quality: Σ_TP IoU / (TP + FP/2 + FN/2) = sq · rq, where pairs with IoU > 0.5 match.

    Range 0 to 1, higher is better; 0 if one side has no objects.

    References
    ----------
    Kirillov, He, Girshick, Rother & Dollár (2019), Panoptic segmentation, equation 1.
    """
    iou = objects.iou
    return float(iou[iou > 0.5].sum() / objects.mean_count)


def sq(objects: Objects) -> float:
    """Segmentation quality: mean IoU of the matched pairs, those with IoU > 0.5; 0 if none match.

    Range 0.5 to 1 (or 0), higher is better.

    References
    ----------
    Kirillov, He, Girshick, Rother & Dollár (2019), Panoptic segmentation, equation 2.
    """
    iou = objects.iou
    matched = iou[iou > 0.5]
    return float(matched.mean()) if matched.size else 0.0


def rq(objects: Objects) -> float:
    """Recognition quality: TP / (TP + FP/2 + FN/2), where pairs with IoU > 0.5 match.

    Range 0 to 1, higher is better; `f1` but for pairs with an IoU of exactly 0.5.

    References
    ----------
    Kirillov, He, Girshick, Rother & Dollár (2019), Panoptic segmentation, equation 2.
    """
    return float((objects.iou > 0.5).sum() / objects.mean_count)


def f1(objects: Objects) -> float:
    """F-score of objects at IoU ≥ 0.5: 2TP / (2TP + FP + FN) in the largest one-to-one matching.

    Range 0 to 1, higher is better; 0 if one side has no objects.

    References
    ----------
    Caicedo et al. (2019), Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl.
    """
    return objects.matches(0.5) / objects.mean_count


def precision_at(objects: Objects, overlap: float) -> float:
    """Return TP / (TP + FP + FN), where pairs with IoU of at least ``overlap`` match one to one."""
    hits = objects.matches(overlap)
    return hits / (objects.labels.size + objects.found.size - hits)


def ap(objects: Objects, overlaps: Sequence[float]) -> float:
    """Average precision over IoU thresholds: mean over the overlaps τ of TP / (TP + FP + FN) at IoU ≥ τ.

    Range 0 to 1, higher is better; 0 if one side has no objects.

    Notes
    -----
    The definition of the Data Science Bowl 2018 and of StarDist, at the thresholds 0.5, 0.55, …, 0.95 by default: a
    critical success index. It is not the area under a precision-recall curve, as in COCO, for which objects would
    need confidences.

    References
    ----------
    Caicedo et al. (2019), Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl.
    Schmidt, Weigert, Broaddus & Myers (2018), Cell detection with star-convex polygons.
    """
    return float(np.mean([precision_at(objects, overlap) for overlap in overlaps]))


def ap50(objects: Objects) -> float:
    """Average precision at one threshold: TP / (TP + FP + FN) at IoU ≥ 0.5.

    Range 0 to 1, higher is better; 0 if one side has no objects.

    References
    ----------
    Caicedo et al. (2019), Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl.
    """
    return precision_at(objects, 0.5)


def ap75(objects: Objects) -> float:
    """Average precision at one strict threshold: TP / (TP + FP + FN) at IoU ≥ 0.75.

    Range 0 to 1, higher is better; 0 if one side has no objects.

    References
    ----------
    Caicedo et al. (2019), Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl.
    """
    return precision_at(objects, 0.75)


def objects_labels(objects: Objects) -> float:
    """Number of annotated objects: |{ids > 0 that occur}|.

    Range 0 to infinity; neither direction is better.

    References
    ----------
    None; a plain count.
    """
    return objects.labels.size


def objects_prediction(objects: Objects) -> float:
    """Number of predicted objects: |{ids > 0 that occur}|.

    Range 0 to infinity; best where it equals the annotated number.

    References
    ----------
    None; a plain count.
    """
    return objects.found.size


def objects_missed(objects: Objects) -> float:
    """Number of annotated objects without a predicted one of IoU > 0.5, be they absent, split or merged: FN.

    Range 0 to the number of annotated objects, lower is better.

    References
    ----------
    Kirillov, He, Girshick, Rother & Dollár (2019), Panoptic segmentation.
    """
    return objects.labels.size - int((objects.iou > 0.5).sum())


def objects_extra(objects: Objects) -> float:
    """Number of predicted objects without an annotated one of IoU > 0.5, fragments included: FP.

    Range 0 to the number of predicted objects, lower is better.

    References
    ----------
    Kirillov, He, Girshick, Rother & Dollár (2019), Panoptic segmentation.
    """
    return objects.found.size - int((objects.iou > 0.5).sum())


_COUNTS: dict[str, Callable[[Objects], float]] = {
    f.__name__: f for f in (objects_labels, objects_prediction, objects_missed, objects_extra)
}
_QUALITIES: dict[str, Callable[[Objects], float]] = {f.__name__: f for f in (pq, sq, rq, f1, ap50, ap75)}


def match_objects(
    prediction: Any, labels: Any, *, ignored: int | None = None, mask: Any = None
) -> dict[str, npt.NDArray[Any]]:
    """Say of every object whether it was found, and if not, why.

    Parameters
    ----------
    prediction, labels : integer numpy or dask arrays of one shape
        Ids; 0 is background.
    ignored : int, optional
        Annotated value whose voxels do not count.
    mask : bool array of the same shape, optional
        Only True voxels count.

    Returns
    -------
    dict of columns
        One row per annotated object, then one per predicted object that matches none; ``label_id`` and
        ``prediction_id`` (uint64, 0 for none), ``iou`` (float64), ``label_voxels`` and ``prediction_voxels`` (int64)
        and ``status``:

        - ``matched``: IoU > 0.5.
        - ``split``: an annotated object of which two or more predicted ones, each with more than half of its voxels
          in it, cover more than half; or a predicted fragment beside others of the same annotated object.
        - ``merged``: an annotated object most of which lies in a predicted one that holds most of another, too; or
          a predicted object that consists mostly of two or more annotated ones, each with most of its voxels in it.
        - ``missed``, ``extra``: any other annotated, or predicted, object.

        The partner of a split or merged object is the one with which it shares most voxels.

    Raises
    ------
    DataError
        If a volume does not hold ids, or no voxel counts.
    """
    objects = objects_of([contingency(prediction, labels, ignored=ignored, mask=mask)])
    mirrored = replace(
        objects, labels=objects.found, found=objects.labels, label_voxels=objects.found_voxels,
        found_voxels=objects.label_voxels, rows=objects.columns, columns=objects.rows,
    )  # fmt: skip
    partner, status = _fates(objects, "split", "merged", "missed")
    back, fate = _fates(mirrored, "merged", "split", "extra")
    alone = fate != "matched"
    rows = np.concatenate([np.arange(objects.labels.size), back[alone]])
    columns = np.concatenate([partner, np.flatnonzero(alone)])
    return {
        "label_id": _at(objects.labels, rows),
        "prediction_id": _at(objects.found, columns),
        "iou": _pair_iou(objects, rows, columns),
        "label_voxels": _at(objects.label_voxels, rows),
        "prediction_voxels": _at(objects.found_voxels, columns),
        "status": np.concatenate([status, fate[alone]]),
    }


def _fates(objects: Objects, broken: str, shared: str, lost: str) -> tuple[Counts, npt.NDArray[np.str_]]:
    """Return the partner (or -1) and the status of each object in ``labels``."""
    count = objects.labels.size
    mine = 2 * objects.shared > objects.found_voxels[objects.columns]  # most of the partner is in me
    theirs = 2 * objects.shared > objects.label_voxels[objects.rows]  # most of me is in the partner
    pieces = np.bincount(objects.rows[mine], minlength=count)
    covered = np.bincount(objects.rows[mine], objects.shared[mine], count)
    tenants = np.bincount(objects.columns[theirs], minlength=objects.found.size)
    crowded = np.bincount(objects.rows[theirs & (tenants[objects.columns] > 1)], minlength=count) > 0
    status = np.full(count, lost, "U7")
    status[(pieces > 1) & (2 * covered > objects.label_voxels)] = broken
    status[crowded] = shared
    partner = np.full(count, -1)
    order = np.argsort(objects.shared, kind="stable")
    partner[objects.rows[order]] = objects.columns[order]  # the last one written shares most
    matched = objects.iou > 0.5
    status[objects.rows[matched]] = "matched"
    partner[objects.rows[matched]] = objects.columns[matched]
    partner[status == lost] = -1
    return partner, status


def _at(values: npt.NDArray[Any], positions: Counts) -> npt.NDArray[Any]:
    """Return values at positions, and 0 where the position is -1."""
    return np.append(values, values.dtype.type(0))[positions]


def _pair_iou(objects: Objects, rows: Counts, columns: Counts) -> npt.NDArray[np.float64]:
    keys = objects.rows * objects.found.size + objects.columns
    order = np.argsort(keys)
    wanted = rows * objects.found.size + columns
    iou = np.zeros(rows.size)
    both = (rows >= 0) & (columns >= 0)
    iou[both] = objects.iou[order][np.searchsorted(keys[order], wanted[both])]
    return iou


def compute(pair: Pair, wanted: tuple[str, ...]) -> dict[str, float | Undefined]:
    """Compute the wanted scores of objects.

    Raises
    ------
    ConfigError, DataError
        If the volumes do not hold ids or boundary maps, or nothing is annotated.
    ResourceError
        If components of a boundary map do not fit in memory.
    """
    objects = objects_of(tables(pair))
    if pair.kind is None and max(objects.labels.max(initial=0), objects.found.max(initial=0)) == 1:
        _warn(pair, "The ids are only 0 and 1, so all objects are one; pass kind='object' to score components.")
    result: dict[str, float | Undefined] = {}
    for name in wanted:
        if name in _COUNTS:
            result[name] = float(_COUNTS[name](objects))
        elif not objects.mean_count:
            why = Undefined("neither volume holds an object")
            result[name] = why if pair.empty == "nan" else float(pair.empty)
        else:
            result[name] = ap(objects, pair.scoring.overlaps) if name == "ap" else _QUALITIES[name](objects)
    return result


def _warn(pair: Pair, sentence: str) -> None:
    if sentence not in pair.warnings:
        pair.warnings.append(sentence)


FAMILY = Family(
    {name: inspect.getdoc(f) or "" for name, f in (_QUALITIES | {"ap": ap} | _COUNTS).items()}, compute, ids=True
)
