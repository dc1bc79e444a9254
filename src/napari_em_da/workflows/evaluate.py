"""Score a segmentation file against an annotation, streamed, without a volume in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.catalog import unknown
from napari_em_da.config import EvaluateConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Notice, Progress, Saved
from napari_em_da.io import replacing
from napari_em_da.jobs import Job
from napari_em_da.lazy import computed
from napari_em_da.metrics import Scores, check_names, evaluate_arrays, families
from napari_em_da.volume import Volume, VoxelSize
from napari_em_da.workflows.plan import class_indices
from napari_em_da.workflows.sidecar import Classes, read_sidecar, sidecar
from napari_em_da.workflows.stacks import MOST_CLASSES

SAME_VOXEL = 0.01  # relative difference below which two voxel sizes are the same


@dataclass(frozen=True)
class EvaluateResult:
    """Scores by name, why some are undefined, warnings, and the classes (name: label values) that were compared."""

    scores: dict[str, float]
    classes: dict[str, tuple[int, ...]]
    undefined: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def evaluate(config: EvaluateConfig) -> Job:
    """Compare a predicted volume with an annotation and yield events; Finished carries an EvaluateResult.

    Notes
    -----
    Which classes are compared: those given (with their values in the annotation), else those that ``segment`` recorded
    beside its output, else every positive value that occurs in either volume. Scores of partitions and of matched
    objects take both volumes as instance ids, unless ``kind`` says that they are boundary maps.

    Raises
    ------
    ConfigError
        If a metric, an option or a class is unknown, or the kind does not go with the volumes.
    DataError
        If shapes or voxel sizes differ, or the volumes hold something else than the scores need.
    """
    wanted = check_names(config.metrics)
    prediction, labels = Volume.open(config.prediction), Volume.open(config.labels)
    spacing = check_volumes(config, prediction, labels)
    home = {score: family for family in families().values() for score in family.scores}
    as_ids = [name for name in wanted if config.kind == "instances" or (config.kind is None and home[name].ids)]
    as_classes = [name for name in wanted if name not in as_ids]
    stages = bool(as_classes) + bool(as_ids) + (config.plots is not None)
    found = Scores({})
    classes: Classes = {}
    options: dict[str, Any] = {"spacing": spacing, "kind": config.kind, **dict(config.scoring)}
    done = 0
    if as_classes or config.overlay is not None:
        yield Progress(done, stages, "passes", "evaluating")
        classes, predicted, where = which_classes(config, prediction, labels)
        yield Notice(f"Comparing {describe(classes)} ({where}); everything else is background.")
        if predicted != classes:
            yield Notice(f"In the prediction these are {describe(predicted)} (from {sidecar(config.prediction).name}).")
        guess = as_indices(prediction, predicted)
        truth = class_indices(labels, classes, config.ignore_label)
        indices = {name: i for i, name in enumerate(classes, start=1)}
        found.add(evaluate_arrays(guess, truth, as_classes, classes=indices, **options))
        if config.overlay is not None:
            write_overlay(config.overlay, config.image, guess, truth)
            yield Saved(config.overlay, "overlay")
        done += bool(as_classes)
    if as_ids:
        yield Progress(done, stages, "passes", "evaluating objects")
        found.add(evaluate_arrays(prediction.data, labels.data, as_ids, ignore_index=config.ignore_label, **options))
        done += 1
    if config.plots is not None:
        from napari_em_da.workflows.plots import plots

        yield Progress(done, stages, "passes", "plotting")
        image = None if config.image is None else Volume.open(config.image).data
        about: dict[str, Any] = {"image": image, "spacing": spacing, "scoring": config.scoring}
        if as_classes:
            yield from plots(config.plots, guess, truth, kind=config.kind, classes=indices, scores=as_classes, **about)
        if as_ids:
            about |= {"kind": "instances", "ignored": config.ignore_label, "scores": as_ids}
            yield from plots(config.plots, prediction.data, labels.data, **about)
    for text in found.warnings:
        yield Notice(text, "warning")
    for name, reason in found.undefined.items():
        yield Notice(f"{name} is undefined: {reason}.", "warning")
    yield Progress(stages, stages, "passes", "evaluating")
    yield Finished(EvaluateResult(dict(found), classes, found.undefined, tuple(found.warnings)))


def check_volumes(config: EvaluateConfig, prediction: Volume, labels: Volume) -> VoxelSize | None:
    """Return the voxel size of both volumes, or None where nobody said; raise unless they fit together."""
    if prediction.shape[:3] != labels.shape:
        raise DataError(
            f"{config.prediction} has shape {prediction.shape}, but {config.labels} has {labels.shape}; "
            "compare volumes of the same sections and pixels."
        )
    if labels.dtype.kind not in "uib":
        raise DataError(f"{config.labels} holds {labels.dtype} values; give a label volume of integers.")
    if prediction.dtype.kind not in "uib" and config.kind not in ("membrane", "object"):
        raise DataError(
            f"{config.prediction} holds {prediction.dtype} values; give a label volume of integers, or say with --kind "
            "membrane or --kind object that these are the probabilities of a boundary map."
        )
    if config.image is not None and Volume.open(config.image).shape[:3] != labels.shape:
        raise DataError(
            f"{config.image} has another shape than the labels {labels.shape}; give the image they belong to."
        )
    one, other = prediction.voxel_nm, labels.voxel_nm
    if config.voxel_nm is not None:
        return config.voxel_nm
    if one and other and any(abs(a / b - 1) > SAME_VOXEL for a, b in zip(one, other, strict=True)):
        raise DataError(
            f"{config.prediction} has voxels of {one} nm, but {config.labels} of {other} nm; compare volumes of the "
            "same pixels, or give --voxel-nm if one of the files is wrong."
        )
    return other or one


def as_indices(prediction: Volume, classes: Classes) -> Any:
    """Return class indices of a label volume, or the probability of the one class of a probability volume."""
    if prediction.dtype.kind != "f":
        return class_indices(prediction, classes, None)
    if len(classes) != 1:
        raise ConfigError(f"Probabilities are scored for one class at a time; name one of {describe(classes)}.")
    if len(prediction.shape) == 3:
        return prediction.data
    recorded = read_sidecar(prediction.path) if prediction.path else None
    names = list(recorded.classes) if recorded else list(classes)
    (name,) = classes
    if name not in names or prediction.shape[3] != len(names) + 1:
        raise DataError(
            f"{prediction.path} has {prediction.shape[3]} channels, and no file beside it says which one is {name!r}."
        )
    return prediction.data[..., names.index(name) + 1]


def describe(classes: Classes) -> str:
    """Return classes as ``mito = 2, membrane = 1+4``."""
    return ", ".join(f"{name} = {'+'.join(map(str, values))}" for name, values in classes.items())


def which_classes(config: EvaluateConfig, prediction: Volume, labels: Volume) -> tuple[Classes, Classes, str]:
    """Return the classes with their values in the annotation and in the prediction, and where they come from.

    The prediction may have been made by a network that learned from labels with other values; then the file that
    ``segment`` wrote beside it says which value each class has there.
    """
    recorded = read_sidecar(config.prediction)
    predicted: Classes = recorded.classes if recorded else {}
    if config.classes is not None:
        for name in config.classes if predicted else ():
            if name not in predicted:
                raise ConfigError(unknown(f"class of {config.prediction.name}", name, tuple(predicted)))
        return config.classes, {n: predicted.get(n, values) for n, values in config.classes.items()}, "as given"
    if predicted:
        return predicted, predicted, f"from {sidecar(config.prediction).name}"
    if prediction.dtype.kind == "f":
        raise ConfigError("Nothing says which class these probabilities are of; give --classes, such as membrane=1.")
    values: set[int] = set()
    for volume in (prediction, labels):
        for block in volume.data.to_delayed().ravel():
            values |= {int(v) for v in np.unique(computed(block))} - {0, config.ignore_label}
            if len(values) > MOST_CLASSES:
                raise DataError(
                    f"The volumes hold {len(values)} label values or more, as instances do; name the classes with "
                    "--classes."
                )
    if not values:
        raise DataError("Both volumes hold only the background value 0; there is nothing to compare.")
    classes: Classes = {str(v): (v,) for v in sorted(values)}
    return classes, classes, "values that occur"


def write_overlay(path: Path, image: Path | None, found: Any, truth: Any) -> None:
    """Save the section with the most annotated foreground as hits green, misses red, false alarms blue."""
    import cv2

    from napari_em_da.metrics.overlay import overlay

    per_section = [int((computed(truth[z]) == 1).sum()) for z in range(truth.shape[0])]
    z = int(np.argmax(per_section))
    predicted, labels = (np.asarray(computed(a[z])) for a in (found, truth))
    below = np.zeros(labels.shape, np.float32)
    if image is not None:
        below = Volume.open(image).read((slice(z, z + 1),))[0].astype(np.float32)
    with replacing(path, overwrite=True) as temporary:
        cv2.imwrite(str(temporary), overlay(below, predicted, labels)[..., ::-1])
