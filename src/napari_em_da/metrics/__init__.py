"""Scores of a segmentation against annotated labels.

Each family of scores is one file with a constant ``FAMILY``; a new file is a new family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_em_da.catalog import Catalog, unknown
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import Empty, Family, Kind, Pair

_PICTURES = ("overlay",)  # in this package, but no scores


def families() -> dict[str, Family]:
    """Return all families of scores by the name of their file."""
    catalog: Catalog[Family] = Catalog(__name__, "FAMILY")
    return {name: catalog[name] for name in catalog if name not in _PICTURES}


def score_names() -> dict[str, str]:
    """Return the names of all scores, each with one line of help."""
    return {name: text for family in families().values() for name, text in family.scores.items()}


def check_names(metrics: Sequence[str]) -> None:
    """Raise a ConfigError with the nearest name for the first metric that does not exist."""
    known = sorted(score_names())
    for name in metrics:
        if name not in known:
            raise ConfigError(unknown("metric", name, known))


def evaluate_arrays(
    prediction: Any,
    labels: Any,
    metrics: Sequence[str] = ("iou", "dice", "precision", "recall"),
    *,
    classes: Mapping[str, int] | None = None,
    ignore_index: int | None = 255,
    mask: Any = None,
    spacing: tuple[float, ...] | None = None,
    kind: Kind | None = None,
    empty: Empty = "nan",
) -> dict[str, float]:
    """Score a prediction against annotated labels, streamed over blocks.

    Parameters
    ----------
    prediction, labels : numpy or dask arrays of one shape
    metrics : sequence of str
        Names out of `score_names`.
    classes : dict of class name to id, optional
        All other ids are background. By default every id that occurs is a class, and 0 is the background.
    ignore_index : int or None
        Annotated value whose voxels do not count.
    mask : bool array of the same shape, optional
        Only True voxels count.
    spacing : (z, y, x), optional
        Voxel size in nm, for scores that measure distances.
    kind : {"membrane", "object"}, optional
        What the foreground of a boundary task is, for scores of instances.
    empty : {"nan", 0, 1}
        Score of a class that occurs in neither; "nan" leaves it out of means.

    Returns
    -------
    dict of str to float
        Flat: ``{"iou": 0.81, "iou/mito": 0.81, "iou/background": 0.99, …}``.

    Raises
    ------
    ConfigError
        If a metric is unknown (the nearest name is offered) or an option cannot be.
    DataError
        If the shapes differ, or the volumes are not what the metric scores.
    """
    available = families()
    home = {score: family for family in available.values() for score in family.scores}
    check_names(metrics)
    if empty not in ("nan", 0, 1):
        raise ConfigError(f"empty={empty!r} must be 'nan', 0 or 1.")
    if kind not in (None, "membrane", "object"):
        raise ConfigError(f"kind={kind!r} must be 'membrane' or 'object'.")
    check_shapes(prediction, labels, mask)
    pair = Pair(prediction, labels, classes, ignore_index, mask, spacing, kind, empty)
    result: dict[str, float] = {}
    for family in available.values():
        wanted = tuple(dict.fromkeys(name for name in metrics if home[name] is family))
        if wanted:
            result |= family.compute(pair, wanted)
    return result


def check_shapes(prediction: Any, labels: Any, mask: Any = None) -> None:
    """Raise a DataError unless all shapes agree and the labels are integer."""
    if tuple(prediction.shape) != tuple(labels.shape):
        raise DataError(
            f"The prediction has shape {tuple(prediction.shape)} but the annotation {tuple(labels.shape)}; "
            "crop or resample one of them to the other."
        )
    if mask is not None and tuple(mask.shape) != tuple(labels.shape):
        raise DataError(f"The mask has shape {tuple(mask.shape)} but the annotation {tuple(labels.shape)}; crop it.")
    if labels.dtype.kind not in "iub":
        raise DataError(
            f"The annotation has type {labels.dtype}; labels are integers: convert with labels.astype('uint8')."
        )
    if 0 in labels.shape:
        raise DataError(f"The volumes are empty: their shape is {tuple(labels.shape)}.")


__all__ = ["Family", "Pair", "check_shapes", "evaluate_arrays", "families", "score_names"]
