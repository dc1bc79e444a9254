"""Scores of a segmentation layer against an annotated one: of the volume, of each section, and as files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.config import EvaluateConfig, ScoringConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.layers.analysis import error_layer, overlay_layer, plot_layers
from napari_em_da.layers.jobs import evaluate, free_name
from napari_em_da.layers.refine import path_of
from napari_em_da.layers.snapshot import Snapshot, snapshot
from napari_em_da.metrics import Scores
from napari_em_da.metrics._base import Kind, load
from napari_em_da.volume import Volume

Classes = Mapping[str, tuple[int, ...]]
SAME_VOXEL = 0.01
SAME_PLACE_PX = 0.01
METRICS: dict[Kind | None, tuple[str, ...]] = {  # what is scored first of each kind
    None: ("iou", "dice", "precision", "recall"),
    "instances": ("arand", "vi_split", "vi_merge", "pq", "f1"),
    "membrane": ("vrand", "vrand_split", "vrand_merge"),
    "object": ("vrand", "vrand_split", "vrand_merge"),
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is compared and how, taken of the layers at once.

    Attributes
    ----------
    prediction, truth : Snapshot
    kind : as in ``evaluate``; None for classes
    classes : {name: label values in the annotation}, or None for every value that occurs
    predicted : the same in the prediction, where its values differ
    ignore_label : annotated value that does not count
    """

    prediction: Snapshot
    truth: Snapshot
    kind: Kind | None = None
    classes: Classes | None = None
    predicted: Classes = field(default_factory=dict)
    ignore_label: int | None = None
    scoring: ScoringConfig = ScoringConfig()


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores by name (NaN where undefined), why those have no value, warnings, and {score: one value per section}."""

    scores: Mapping[str, float]
    undefined: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    sections: Mapping[str, Sequence[float]] = field(default_factory=dict)


def compare(prediction: Any, labels: Any, **about: Any) -> Comparison:
    """Take two layers that lie on each other.

    Parameters
    ----------
    prediction, labels : layers
    **about
        Further fields of ``Comparison``.

    Raises
    ------
    DataError
        If shape, voxel size or position differ, or the layers hold something that cannot be scored.
    """
    found, truth = snapshot(prediction), snapshot(labels)
    one, other = f"The prediction {found.volume.name!r}", f"the ground truth {truth.volume.name!r}"
    if found.volume.shape != truth.volume.shape:
        raise DataError(
            f"{one} has shape {found.volume.shape}, but {other} {truth.volume.shape}; choose layers of the same "
            "sections and pixels, or crop one to the other."
        )
    a, b = found.volume.voxel_nm, truth.volume.voxel_nm
    if a and b and any(abs(i / j - 1) > SAME_VOXEL for i, j in zip(a, b, strict=True)):
        raise DataError(f"{one} has voxels of {_sizes(a)} nm, but {other} of {_sizes(b)} nm; correct the wrong scale.")
    shift = [i - j for i, j in zip(_origin(found), _origin(truth), strict=False)]
    if any(abs(s) > SAME_PLACE_PX for s in shift):
        raise DataError(
            f"{one} is shifted by {_sizes(shift)} pixels against {other}; give both layers the same translate."
        )
    kind = about.get("kind")
    if found.volume.dtype.kind == "f" and kind not in ("membrane", "object"):
        raise DataError(
            f"{one} holds {found.volume.dtype} values; choose a labels layer, or say that these are the probabilities "
            "of membranes or of objects."
        )
    return Comparison(found, truth, **about)


def _origin(taken: Snapshot) -> list[float]:
    """Return where the layer begins, in its own pixels, the last axis first."""
    moved = tuple(taken.place.get("translate", ()))
    scale = tuple(taken.place.get("scale", (1.0,) * len(moved)))
    return [float(m) / float(s) for m, s in zip(reversed(moved), reversed(scale), strict=False)]


def _sizes(values: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" for v in values)


def score(what: Comparison, metrics: Sequence[str], *, sections: bool = True) -> Job:
    """Score the volume, and each section for itself; yield events. Finished carries ``Scored``.

    Raises
    ------
    ConfigError, DataError
        As ``layers.evaluate``.
    """
    guess, truth, options = arrays(what)
    depth = truth.shape[0]
    yield Progress(0, depth + 1, "passes", "scores of the volume")
    found = _evaluate(what, guess, truth, metrics, options)
    curves: dict[str, list[float]] = {name: [] for name in found}
    step = max(1, max(truth.chunks[0])) if hasattr(truth, "chunks") else depth
    for start in range(0, depth if sections else 0, step):
        slab = (slice(start, start + step),)
        pair = load(guess, slab), load(truth, slab)
        for z, (one, other) in enumerate(zip(*pair, strict=True), start=start):
            yield Progress(z + 1, depth + 1, "sections", "scores of sections")
            try:
                own: Mapping[str, float] = _evaluate(what, one[None], other[None], metrics, options)
            except DataError:  # nothing annotated in it, for example: a gap in the curve
                own = {}
            for name, values in curves.items():
                values.append(float(own.get(name, math.nan)))
    shown = {name: values for name, values in curves.items() if values}
    yield Finished(Scored(dict(found), found.undefined, tuple(found.warnings), shown))


def arrays(what: Comparison) -> tuple[Any, Any, dict[str, Any]]:
    """Return prediction and annotation as they are scored, and the options of ``layers.evaluate``.

    Classes become the numbers 1, 2, … in their order, as in the workflow ``evaluate``; 255 is not annotated.
    """
    guess, truth = what.prediction.volume, what.truth.volume
    options: dict[str, Any] = {"kind": what.kind, **dict(what.scoring), "ignore_label": what.ignore_label}
    if what.classes is None or what.kind == "instances":
        return guess.source, truth.source, options
    from napari_em_da.workflows.plan import class_indices

    truth_classes = dict(what.classes)
    options["ignore_label"] = 255
    options["classes"] = {name: i for i, name in enumerate(truth_classes, start=1)}
    target = class_indices(truth, truth_classes, what.ignore_label)
    if guess.dtype.kind != "f":
        values = {name: what.predicted.get(name, members) for name, members in truth_classes.items()}
        return class_indices(guess, values, None), target, options
    return guess.data, target, options


def _evaluate(what: Comparison, guess: Any, truth: Any, metrics: Sequence[str], options: dict[str, Any]) -> Scores:
    voxel = what.truth.volume.voxel_nm or what.prediction.volume.voxel_nm
    found, labels = (Snapshot(Volume(data, voxel, "layer")) for data in (guess, truth))
    return evaluate(found, labels, metrics, **options)


def config_of(what: Comparison, prediction: Any, labels: Any, metrics: Sequence[str]) -> EvaluateConfig:
    """Return the call that gives the same scores from files.

    Raises
    ------
    ConfigError
        If no file holds one of the layers.
    """
    paths = {}
    for role, layer in (("prediction", prediction), ("labels", labels)):
        path = path_of(layer)
        if path is None:
            raise ConfigError(f"No file holds the layer {layer.name!r}; save it and open that file.")
        paths[role] = path
    return EvaluateConfig(
        **paths,
        classes=None if what.classes is None else dict(what.classes),
        ignore_label=what.ignore_label,
        metrics=tuple(metrics),
        kind=what.kind,
        scoring=what.scoring,
    )


def agreement(what: Comparison) -> Job:
    """Yield events; Finished carries a labels layer of hits, misses and false alarms.

    Of instances and boundary maps, the foreground counts: voxels of some object, or of the marked side.
    """
    yield Progress(0, 1, "layers", "hits and misses")
    guess, truth, options = arrays(what)
    guess, truth = (load(array, (slice(None),)) for array in (guess, truth))
    ignored = options["ignore_label"]
    if what.kind is not None:
        skip = np.zeros(truth.shape, np.bool_) if ignored is None else truth == ignored
        guess = (guess > (0.5 if guess.dtype.kind == "f" else 0)).astype(np.uint8)
        truth = np.where(skip, np.uint8(255), truth > 0).astype(np.uint8)
        ignored = 255
    yield Finished(overlay_layer(_shown(what.prediction, guess), _shown(what.truth, truth), ignore_label=ignored))


def splits_and_merges(what: Comparison) -> Job:
    """Yield events; Finished carries the labels layer of ``error_layer``.

    Raises
    ------
    ConfigError
        If classes are compared: only objects are split or merged.
    """
    if what.kind is None:
        raise ConfigError("Splits and merges are of objects; say that the layers hold instances or boundary maps.")
    yield Progress(0, 1, "layers", "splits and merges")
    guess, truth, options = arrays(what)
    taken = _shown(what.prediction, guess), _shown(what.truth, truth)
    yield Finished(error_layer(*taken, kind=what.kind, ignore_label=options["ignore_label"]))


def _shown(taken: Snapshot, data: Any) -> Snapshot:
    return replace(taken, volume=Volume(data, taken.volume.voxel_nm, taken.volume.name))


def export(what: Comparison, scored: Scored, folder: Path | str, *, image: Any = None) -> Job:
    """Write scores and plots into a new folder and yield events; Finished carries its path.

    ``scores.json`` holds everything (null where a score is undefined); ``scores.csv`` the scores of the volume;
    ``sections.csv`` those of each section; and the PNG files of ``plot_layers``.
    """
    home = Path(folder).expanduser()
    target = free_name(home / "evaluation")
    below = None if image is None else snapshot(image)
    return _export(what, scored, target, below)


def _export(what: Comparison, scored: Scored, folder: Path, image: Snapshot | None) -> Job:
    yield Progress(0, 2, "parts", "tables")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror or error}; choose another folder.") from error
    about = {
        "prediction": what.prediction.volume.name,
        "labels": what.truth.volume.name,
        "kind": what.kind or "classes",
        "classes": None if what.classes is None else {n: list(v) for n, v in what.classes.items()},
        "ignore_label": what.ignore_label,
        "scoring": what.scoring.model_dump(mode="json"),
        "scores": {name: _number(value) for name, value in scored.scores.items()},
        "undefined": dict(scored.undefined),
        "warnings": list(scored.warnings),
        "sections": {name: [_number(v) for v in values] for name, values in scored.sections.items()},
    }
    (folder / "scores.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = [(n, "" if _number(v) is None else v, scored.undefined.get(n, "")) for n, v in scored.scores.items()]
    _write(folder / "scores.csv", ("score", "value", "undefined"), rows)
    if scored.sections:
        columns = zip(*scored.sections.values(), strict=True)
        lines = [(z, *("" if math.isnan(v) else v for v in values)) for z, values in enumerate(columns)]
        _write(folder / "sections.csv", ("section", *scored.sections), lines)
    yield Progress(1, 2, "parts", "plots")
    guess, truth, options = arrays(what)
    classes = options.get("classes")
    if classes is None and what.kind is None:
        classes = {name[4:]: int(name[4:]) for name in scored.scores if name.startswith("iou/") and name[4:].isdigit()}
    if classes or what.kind is not None:
        plot_layers(
            _shown(what.prediction, guess),
            _shown(what.truth, truth),
            folder,
            image=image,
            kind=what.kind,
            classes=classes,
            ignore_label=options["ignore_label"],
        )
    yield Finished(folder)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


__all__ = ["METRICS", "Comparison", "Scored", "agreement", "compare", "config_of", "export", "score"]
__all__ += ["splits_and_merges"]
