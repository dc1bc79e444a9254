"""Scores of a segmentation against annotated labels.

Each family of scores is one file with a constant ``FAMILY``; a new file is a new family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from napari_em_da.catalog import Catalog, unknown
from napari_em_da.config import ScoringConfig, parse
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.metrics._base import Empty, Family, Ignore, Kind, Pair, Undefined

_PICTURES = ("overlay",)  # in this package, but no scores


def families() -> dict[str, Family]:
    """Return all families of scores by the name of their file."""
    catalog: Catalog[Family] = Catalog(__name__, "FAMILY")
    return _imported(tuple(name for name in catalog if name not in _PICTURES))


@lru_cache(maxsize=1)
def _imported(names: tuple[str, ...]) -> dict[str, Family]:
    """Import the families once: finding a module anew takes longer than scoring a small pair."""
    catalog: Catalog[Family] = Catalog(__name__, "FAMILY")
    return {name: catalog[name] for name in names}


def score_names() -> dict[str, str]:
    """Return the names of all scores, each with one line of help."""
    return {
        name: text.strip().splitlines()[0] for family in families().values() for name, text in family.scores.items()
    }


def check_names(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the scores that are meant, in order and once each; the name of a family stands for all of its scores.

    Raises
    ------
    ConfigError
        With the nearest name for the first one that does not exist.
    """
    available = families()
    scores = [score for family in available.values() for score in family.scores]
    found: list[str] = []
    for name in metrics:
        if name in scores:
            found.append(name)
        elif name in available:
            found.extend(available[name].scores)
        else:
            raise ConfigError(unknown("metric", name, sorted({*scores, *available})))
    return tuple(dict.fromkeys(found))


def lower_is_better(name: str) -> bool:
    """Return True for errors and distances, False for scores; every docstring says which."""
    home = next(family for family in families().values() if name in family.scores)
    return "lower is better" in home.scores[name].lower()


class Scores(dict[str, float]):
    """Flat scores; NaN where one is undefined.

    Attributes
    ----------
    undefined : dict of score name to the reason why it has no value
    warnings : list of sentences that the user should read
    """

    def __init__(self, scores: Mapping[str, float | Undefined], warnings: Sequence[str] = ()) -> None:
        super().__init__({k: float("nan") if isinstance(v, Undefined) else float(v) for k, v in scores.items()})
        self.undefined = {name: str(value) for name, value in scores.items() if isinstance(value, Undefined)}
        self.warnings = list(warnings)

    def add(self, others: Scores) -> None:
        """Take over more scores, with their reasons and warnings."""
        self.update(others)
        self.undefined |= others.undefined
        self.warnings += others.warnings


def evaluate_arrays(
    prediction: Any,
    labels: Any,
    metrics: Sequence[str] = ("iou", "dice", "precision", "recall"),
    *,
    classes: Mapping[str, int] | None = None,
    ignore_index: Ignore = "auto",
    mask: Any = None,
    spacing: tuple[float, ...] | None = None,
    kind: Kind | None = None,
    empty: Empty = "nan",
    **scoring: Any,
) -> Scores:
    """Score a prediction against annotated labels, streamed over blocks.

    Parameters
    ----------
    prediction, labels : numpy or dask arrays of one shape
        Classes, instance ids, or (prediction only) the probability of the foreground.
    metrics : sequence of str
        Names out of `score_names`, or of `families`.
    classes : dict of class name to id, optional
        All other ids are background. By default every id that occurs is a class, and 0 is the background.
    ignore_index : int, None or "auto"
        Annotated value whose voxels do not count; "auto" is 255 among classes and none among instance ids.
    mask : bool array of the same shape, optional
        Only True voxels count.
    spacing : (z, y, x), optional
        Voxel size in nm, for scores that measure distances; pixels by default.
    kind : {"membrane", "object", "instances"}, optional
        What the volumes hold, for scores of partitions: a boundary map where 1 is membrane, one where 1 is the
        inside of objects, or ids. By default integers are ids.
    empty : {"nan", 0, 1}
        Score of a class that occurs in neither; "nan" leaves it out of means.
    **scoring
        Fields of `ScoringConfig`: ``thin``, ``average``, ``parity``, ``tolerance_nm``, …

    Returns
    -------
    Scores
        Flat: ``{"iou": 0.81, "iou/mito": 0.81, "iou/background": 0.99, …}``; ``.undefined`` says why a score is NaN.

    Raises
    ------
    ConfigError
        If a metric is unknown (the nearest name is offered) or an option cannot be.
    DataError
        If the shapes differ, or the volumes are not what the metric scores.
    """
    wanted = check_names(metrics)
    if empty not in ("nan", 0, 1):
        raise ConfigError(f"empty={empty!r} must be 'nan', 0 or 1.")
    if kind not in (None, "membrane", "object", "instances"):
        raise ConfigError(f"kind={kind!r} must be 'membrane', 'object' or 'instances'.")
    check_shapes(prediction, labels, mask)
    options = parse(ScoringConfig, scoring)
    pair = Pair(prediction, labels, classes, ignore_index, mask, spacing, kind, empty, options)
    result: dict[str, float | Undefined] = {}
    for family in families().values():
        own = tuple(name for name in wanted if name in family.scores)
        if own:
            result |= family.compute(pair, own)
    return Scores(result, pair.warnings)


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


__all__ = ["Family", "Pair", "Scores", "Undefined", "check_names", "check_shapes", "evaluate_arrays", "families"]
__all__ += ["score_names"]
