"""Score a segmentation file against an annotation, streamed, without a volume in memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.catalog import unknown
from napari_em_da.config import EvaluateConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Notice, Progress, Saved
from napari_em_da.io import replacing
from napari_em_da.jobs import Job
from napari_em_da.metrics import check_names, evaluate_arrays
from napari_em_da.volume import Volume
from napari_em_da.workflows.plan import class_indices

Classes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class EvaluateResult:
    """Scores by name and the classes (name: label values) that were compared."""

    scores: dict[str, float]
    classes: dict[str, tuple[int, ...]]


def evaluate(config: EvaluateConfig) -> Job:
    """Compare a predicted label volume with an annotation and yield events; Finished carries an EvaluateResult.

    Notes
    -----
    Which classes are compared: those given (with their values in the annotation), else those that ``segment`` recorded
    beside its output, else every positive value that occurs in either volume.

    Raises
    ------
    DataError
        If shapes differ or labels are not integers.
    """
    check_names(config.metrics)
    prediction, labels = Volume.open(config.prediction), Volume.open(config.labels)
    if prediction.shape != labels.shape:
        raise DataError(
            f"{config.prediction} has shape {prediction.shape}, but {config.labels} has {labels.shape}; "
            "compare volumes of the same sections and pixels."
        )
    for path, volume in ((config.prediction, prediction), (config.labels, labels)):
        if volume.dtype.kind not in "uib":
            raise DataError(f"{path} holds {volume.dtype} values; give a label volume of integers, not probabilities.")
    if config.image is not None and Volume.open(config.image).shape[:3] != labels.shape:
        raise DataError(
            f"{config.image} has another shape than the labels {labels.shape}; give the image they belong to."
        )
    yield Progress(0, 2, "passes", "evaluating")
    classes, predicted, where = which_classes(config, prediction, labels)
    yield Notice(f"Comparing {describe(classes)} ({where}); everything else is background.")
    if predicted != classes:
        yield Notice(f"In the prediction these are {describe(predicted)} (from {sidecar(config.prediction).name}).")
    yield Progress(1, 2, "passes", "evaluating")
    found = class_indices(prediction, predicted, None)
    truth = class_indices(labels, classes, config.ignore_label)
    indices = {name: i for i, name in enumerate(classes, start=1)}
    scores = evaluate_arrays(found, truth, list(config.metrics), classes=indices)
    if config.overlay is not None:
        write_overlay(config.overlay, config.image, found, truth)
        yield Saved(config.overlay, "overlay")
    yield Progress(2, 2, "passes", "evaluating")
    yield Finished(EvaluateResult(scores, classes))


def describe(classes: Classes) -> str:
    """Return classes as ``mito = 2, membrane = 1+4``."""
    return ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in classes.items())


def which_classes(config: EvaluateConfig, prediction: Volume, labels: Volume) -> tuple[Classes, Classes, str]:
    """Return the classes with their values in the annotation and in the prediction, and where they come from.

    The prediction may have been made by a network that learned from labels with other values; then the file that
    ``segment`` wrote beside it says which value each class has there.
    """
    recorded = sidecar(config.prediction)
    predicted: Classes = {}
    if recorded.is_file():
        saved = json.loads(recorded.read_text(encoding="utf-8"))["classes"]
        predicted = {name: tuple(values) for name, values in saved.items()}
    if config.classes is not None:
        for name in config.classes if predicted else ():
            if name not in predicted:
                raise ConfigError(unknown(f"class of {config.prediction.name}", name, tuple(predicted)))
        return config.classes, {n: predicted.get(n, values) for n, values in config.classes.items()}, "as given"
    if predicted:
        return predicted, predicted, f"from {recorded.name}"
    values: set[int] = set()
    for volume in (prediction, labels):
        for block in volume.data.to_delayed().ravel():
            values |= {int(v) for v in np.unique(block.compute(scheduler="synchronous"))}
    values -= {0, config.ignore_label if config.ignore_label is not None else 0}
    if not values:
        raise DataError("Both volumes hold only the background value 0; there is nothing to compare.")
    if len(values) > 64:
        raise DataError(
            f"The volumes hold {len(values)} label values, as instances do; name the classes with --classes."
        )
    classes: Classes = {str(v): (v,) for v in sorted(values)}
    return classes, classes, "values that occur"


def sidecar(output: Path) -> Path:
    """Return the JSON file that ``segment`` writes beside its output."""
    return output.with_name(output.name + ".json")


def write_overlay(path: Path, image: Path | None, found: Any, truth: Any) -> None:
    """Save the section with the most annotated foreground as hits green, misses red, false alarms blue."""
    import cv2

    from napari_em_da.metrics.overlay import overlay

    per_section = [int((truth[z].compute(scheduler="synchronous") == 1).sum()) for z in range(truth.shape[0])]
    z = int(np.argmax(per_section))
    predicted, labels = (np.asarray(a[z].compute(scheduler="synchronous")) for a in (found, truth))
    below = np.zeros(labels.shape, np.float32)
    if image is not None:
        below = Volume.open(image).read((slice(z, z + 1),))[0].astype(np.float32)
    with replacing(path, overwrite=True) as temporary:
        cv2.imwrite(str(temporary), overlay(below, predicted, labels)[..., ::-1])
