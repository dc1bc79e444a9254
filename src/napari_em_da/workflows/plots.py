"""Pictures of an evaluation: scores over sections and thresholds, confusion, overlay, splits and merges.

Each function draws one PNG and returns the data that it drew; `plots` draws those that apply to a pair of volumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.config import ScoringConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Saved
from napari_em_da.metrics import Scores, evaluate_arrays, lower_is_better
from napari_em_da.metrics._base import BLOCK_VOXELS, Ignore, Kind, Pair, load
from napari_em_da.workflows import montage
from napari_em_da.workflows.figure import COLOURS, WIDTH, drawing

Spacing = tuple[float, ...] | None
Curves = dict[str, npt.NDArray[np.float64]]
_LINE: dict[str, Any] = {"linewidth": 1.3, "markersize": 3.5}
_MARKERS = "osD^vP*"
_TITLES = {
    "vrand": "Rand score",
    "vrand_split": "Rand score, splits",
    "vrand_merge": "Rand score, merges",
    "arand": "adapted Rand error",
    "vinfo": "information score",
    "vinfo_split": "information score, splits",
    "vinfo_merge": "information score, merges",
    "vi": "variation of information",
    "vi_split": "variation of information, splits",
    "vi_merge": "variation of information, merges",
    "cremi_score": "CREMI score",
    "hd": "Hausdorff distance",
    "hd95": "95 % Hausdorff distance",
    "assd": "mean surface distance",
    "iou": "IoU",
    "dice": "Dice",
}
_DRAWN: dict[Kind | None, tuple[str, ...]] = {
    None: ("iou",),
    "instances": ("arand",),
    "membrane": ("vrand", "vrand_split", "vrand_merge"),
    "object": ("vrand", "vrand_split", "vrand_merge"),
}


def plots(
    folder: Path,
    prediction: Any,
    labels: Any,
    *,
    kind: Kind | None = None,
    classes: Mapping[str, int] | None = None,
    ignored: Ignore = "auto",
    image: Any = None,
    spacing: Spacing = None,
    scoring: ScoringConfig | None = None,
    scores: Sequence[str] = (),
) -> Iterator[Saved]:
    """Draw what shows where a prediction is right and wrong, as PNG files in a folder.

    Parameters
    ----------
    prediction, labels : (Z, Y, X) numpy or dask arrays
        Boundary maps (the prediction may be a probability), instance ids, or class ids.
    kind : {"membrane", "object", "instances"}, optional
        Boundary maps: ``thresholds`` (of a probability), ``sections-boundaries``, ``overlay`` and ``splits-merges``.
        Instances: ``sections-instances`` and ``splits-merges``. Classes (None): ``sections-classes``, ``confusion``
        and ``overlay``.
    classes : dict of class name to id, optional
        Classes need it; of a boundary map it is the one value that is foreground.
    ignored : int, None or "auto"
        Annotated value that does not count; "auto" is 255, and nothing among instance ids.
    image : (Z, Y, X) array, optional
        What the montages show below.
    spacing : (z, y, x), optional
        Voxel size in nm, for scale bars and the shape of pixels.
    scores : sequence of str, optional
        Drawn over the sections; IoU, ARAND or the Rand score with its parts by default.

    Yields
    ------
    Saved
        For each file, as soon as it is complete.

    Raises
    ------
    ConfigError, DataError
        As `napari_em_da.metrics.evaluate_arrays`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prediction, labels, image = (_volume(array) for array in (prediction, labels, image))
    pair = Pair(prediction, labels, classes, ignored, None, spacing, kind, scoring=scoring or ScoringConfig())
    names = tuple(scores) or _DRAWN[kind]
    chosen = 0.5
    if kind in ("membrane", "object") and np.dtype(prediction.dtype).kind == "f":
        chosen = thresholds(folder / "thresholds.png", pair)[1]
        yield Saved(folder / "thresholds.png", "plot")
    fixed = replace(pair, scoring=pair.scoring.model_copy(update={"thresholds": (chosen,)}))
    over_sections = folder / f"sections-{_content(kind)}.png"
    section_curves(over_sections, fixed, names)
    yield Saved(over_sections, "plot")
    if kind is None:
        confusion(folder / "confusion.png", pair)
        yield Saved(folder / "confusion.png", "plot")
    shown = montage.spread(labels.shape[0])
    if kind != "instances":
        montage.overlays(folder / "overlay.png", fixed, shown, image, threshold=chosen)
        yield Saved(folder / "overlay.png", "plot")
    if kind is not None:
        montage.errors(folder / "splits-merges.png", fixed, shown, image, threshold=chosen)
        yield Saved(folder / "splits-merges.png", "plot")


def section_curves(path: Path, pair: Pair, scores: Sequence[str] = ("iou",)) -> Curves:
    """Draw scores of each section for itself over z.

    Parameters
    ----------
    path : Path
        PNG file, replaced if it exists.
    pair : Pair
    scores : sequence of str
        Names of scores, or single ones such as ``iou/mito``; per class if classes are named.

    Returns
    -------
    dict of score name to (Z,) float64
        NaN where a section has no score, for example because nothing in it is annotated.
    """
    asked = tuple(dict.fromkeys(name.partition("/")[0] for name in scores))
    found: list[Scores] = []
    problem: DataError | None = None
    for prediction, labels, mask in _sections(pair):
        found.append(Scores({}))
        try:
            found[-1] = _scores(replace(pair, prediction=prediction, labels=labels, mask=mask), asked)
        except DataError as error:  # what is wrong with one section is a gap in the curve
            problem = error
    if problem is not None and not any(found):
        raise problem
    known = tuple(dict.fromkeys(key for section in found for key in section if not key.startswith("threshold/")))
    drawn = [key for name in scores for key in known if key == name or _of_class(key, name, pair)]
    curves = {key: np.array([section.get(key, np.nan) for section in found]) for key in drawn}
    _draw_curves(path, curves, pair)
    return curves


def thresholds(path: Path, pair: Pair) -> tuple[dict[str, dict[float, float]], float]:
    """Draw the Rand score and its parts over the threshold of a probability map, with the best threshold.

    Returns
    -------
    curves : dict of score name to {threshold: score}
    chosen : float
        The threshold of the largest Rand score; the first of equals.
    """
    from napari_em_da.metrics._isbi import threshold_curve

    curve = threshold_curve(pair)
    names = _DRAWN["membrane"]
    drawn = {name: {level: float(_number(scores[name])) for level, scores in curve.items()} for name in names}
    rand = drawn[names[0]]
    chosen = max(rand, key=lambda level: (-1.0 if np.isnan(rand[level]) else rand[level], -level))
    with drawing(path, (WIDTH / 2, 2.8)) as figure:
        axis = figure.subplots()
        for (name, points), colour, marker in zip(drawn.items(), COLOURS, _MARKERS, strict=False):
            axis.plot(list(points), list(points.values()), color=colour, marker=marker, label=_TITLES[name], **_LINE)
        axis.axvline(chosen, color="0.5", linestyle=":", linewidth=1, zorder=0)
        axis.plot(chosen, rand[chosen], "o", markersize=10, markerfacecolor="none", markeredgecolor="black")
        axis.set_title(f"best threshold {chosen:g}: Rand score {rand[chosen]:.3f}")
        axis.set_xlabel("threshold on the probability of object")
        axis.set_ylabel("score (higher is better)")
        axis.set_ylim(*_limits(list(drawn.values())))
        axis.legend(loc="lower left", frameon=False)
    return drawn, chosen


def confusion(path: Path, pair: Pair) -> npt.NDArray[np.int64]:
    """Draw the confusion matrix of the named classes: the share of each annotated class, with the voxel counts.

    Returns
    -------
    (K, K) int64
        Voxels by annotated (row) and predicted (column) class, background first; with a last row and column for all
        other values where there are any.

    Raises
    ------
    ConfigError
        If no class is named.
    """
    from napari_em_da.metrics.overlap import confusion_matrix

    if not pair.classes:
        raise ConfigError("A confusion matrix needs named classes, for example classes={'mitochondria': 1}.")
    classes = dict(pair.classes) if 0 in pair.classes.values() else {"background": 0, **pair.classes}
    ids = list(classes.values())
    matrix = confusion_matrix(pair.prediction, pair.labels, ids, ignore_index=pair.ignored(), mask=pair.mask)
    names = [*classes, "other"]
    if not (matrix[-1].any() or matrix[:, -1].any()):
        matrix, names = matrix[:-1, :-1], names[:-1]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 0.7 * len(names)
    with drawing(path, (side + 1.8, side + 0.9)) as figure:
        axis = figure.subplots()
        picture = axis.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
        for (row, column), count in np.ndenumerate(matrix):
            text = f"{100 * share[row, column]:.1f} %\n{_short(int(count))}" if matrix[row].any() else "–"
            colour = "white" if share[row, column] > 0.55 else "black"
            axis.text(column, row, text, ha="center", va="center", color=colour)
        axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names)
        axis.set_xlabel("predicted class")
        axis.set_ylabel("annotated class")
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        bar = figure.colorbar(picture, ax=axis, shrink=0.8, label="share of the annotated class (%)")
        bar.outline.set_visible(False)
    return matrix


def _draw_curves(path: Path, curves: Curves, pair: Pair) -> None:
    panels: dict[tuple[bool, str, bool], list[str]] = {}
    for name in curves:
        base = name.partition("/")[0]
        panels.setdefault((lower_is_better(base), _unit(base, pair), base.startswith("warping")), []).append(name)
    with drawing(path, (WIDTH, 0.5 + 2.0 * max(1, len(panels)))) as figure:
        axes = figure.subplots(max(1, len(panels)), sharex=True, squeeze=False)[:, 0]
        for axis, ((lower, unit, _), names) in zip(axes, panels.items(), strict=False):
            for i, name in enumerate(names):
                look = {
                    "color": COLOURS[i % len(COLOURS)],
                    "marker": _MARKERS[(i + i // len(COLOURS)) % len(_MARKERS)],
                    **_LINE,
                }
                axis.plot(curves[name], label=f"{_title(name)} (mean {_mean(curves[name]):.3g})", **look)
            better = "lower is better" if lower else "higher is better"
            axis.set_ylabel(f"{'error' if lower else 'score'}{f' ({unit})' if unit else ''}\n({better})")
            axis.set_ylim(*_limits([dict(enumerate(curves[name])) for name in names]))
            axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[-1].set_xlabel("section (z)")


def _limits(curves: Sequence[Mapping[Any, float]]) -> tuple[float, float]:
    """Return axis limits with some air around the values; they begin at 0 and end at 1 where the values come near."""
    values = np.array([v for curve in curves for v in curve.values() if not np.isnan(v)])
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    air = max(0.08 * (high - low), 0.01 * abs(high), 1e-6)
    top = 1.02 if 0.9 < high <= 1 else high + air
    return (-0.01 * top if 0 <= low < 0.3 * high else low - air), top


def _unit(name: str, pair: Pair) -> str:
    """Return the unit of a score, or nothing for shares and counts."""
    if name in ("vi", "vi_split", "vi_merge"):
        base = pair.scoring.log_base
        return "bits" if base == 2 else f"log to base {base:g}"
    if name in ("hd", "hd95", "assd"):
        return "nm" if pair.spacing else "voxels"
    return ""


def _title(name: str) -> str:
    base, _, label = name.partition("/")
    title = _TITLES.get(base, base.replace("_", " "))
    return f"{title}, {label}" if label else title


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _number(score: Any) -> Any:
    return np.nan if isinstance(score, str) else score


def _short(count: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def _content(kind: Kind | None) -> str:
    return "classes" if kind is None else "instances" if kind == "instances" else "boundaries"


def _of_class(key: str, name: str, pair: Pair) -> bool:
    """Return whether a score belongs to a named class; of a single class the mean says the same."""
    base, _, label = key.partition("/")
    return base == name and pair.classes is not None and len(pair.classes) > 1 and label in pair.classes


def _scores(pair: Pair, names: Sequence[str]) -> Scores:
    return evaluate_arrays(
        pair.prediction,
        pair.labels,
        names,
        classes=pair.classes,
        ignore_index=pair.ignore_index,
        mask=pair.mask,
        spacing=pair.spacing,
        kind=pair.kind,
        **dict(pair.scoring),
    )


def _volume(array: Any) -> Any:
    return array[None] if array is not None and array.ndim == 2 else array


def _sections(pair: Pair) -> Iterator[tuple[Any, Any, Any]]:
    """Yield prediction, labels and mask of one section after the other; stored blocks are read once."""
    depth, height, width = pair.labels.shape
    step = max(1, BLOCK_VOXELS // (height * width))
    if hasattr(pair.labels, "numblocks"):
        step = min(step, max(pair.labels.chunks[0]))
    for start in range(0, depth, step):
        slab = (slice(start, start + step),)
        arrays = [None if a is None else load(a, slab) for a in (pair.prediction, pair.labels, pair.mask)]
        for i in range(len(arrays[1])):  # type: ignore[arg-type]
            yield tuple(None if a is None else a[i : i + 1] for a in arrays)  # type: ignore[misc]
