"""Read, segment and evaluate layers: the workflows with layers in the place of files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_em_da.config import SegmentConfig, parse
from napari_em_da.errors import DataError
from napari_em_da.events import Finished, Progress
from napari_em_da.jobs import Job
from napari_em_da.jobs import run as run_job
from napari_em_da.layers.snapshot import LayerData, Snapshot, as_file, snapshot
from napari_em_da.metrics import Scores, evaluate_arrays
from napari_em_da.volume import Volume

MOST_VALUES = 64  # more label values than this are instances, not classes
IN_MEMORY = 1 << 29  # bytes of labels that are read into memory, where they can be edited


def label_values(labels: Any) -> Job:
    """Count the label values of a layer and yield events; Finished carries {value: voxels}, sorted.

    Raises
    ------
    DataError
        If there are more than 64: instances, not classes; or the layer holds no integers.
    """
    volume = snapshot(labels).volume
    return _label_values(volume)


def _label_values(volume: Volume) -> Job:
    if volume.dtype.kind not in "ui":
        raise DataError(f"The layer {volume.name!r} holds {volume.dtype} values; class labels are integers.")
    found: dict[int, int] = {}
    for z in range(volume.shape[0]):
        yield Progress(z, volume.shape[0], "sections", "counting labels")
        values, counts = np.unique(volume.read((slice(z, z + 1),)), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            found[value] = found.get(value, 0) + count
        if len(found) > MOST_VALUES:
            raise DataError(
                f"The layer {volume.name!r} holds more than {MOST_VALUES} label values, as instances do; "
                "choose a layer whose values are classes."
            )
    yield Finished(dict(sorted(found.items())))


def segment(image: Any, run: Path | str, output: Path | str | None = None, **options: Any) -> Job:
    """Segment a layer with a run and yield events; Finished carries the workflow's ``SegmentResult``.

    Parameters
    ----------
    image : layer
    run : Path
        Run folder.
    output : Path, optional
        Label volume to write (.tif or .zarr); a new file in ``<run>/segmentations`` if absent.
    **options
        Further fields of ``SegmentConfig``: ``tta``, ``precision``, ``checkpoint``, …
    """
    where = None if output is None else Path(output).expanduser()
    return _segment(snapshot(image), Path(run).expanduser(), where, options)


def _segment(taken: Snapshot, run: Path, output: Path | None, options: dict[str, Any]) -> Job:
    if output is None:
        output = free_name(run / "segmentations" / f"{_file_name(taken.volume.name)}.tif")
    values = {"image": taken.path or Path("layer"), "run": run, "output": output, **options}
    config = parse(SegmentConfig, {"voxel_nm": taken.volume.voxel_nm, **values})
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.segment import segment as job

    RunFolder.open(run)  # before anything is written
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".layer-", dir=output.parent, ignore_cleanup_errors=True) as folder:
        path = yield from as_file(taken, Path(folder) / f"{_file_name(taken.volume.name)}.tif", exact=False)
        yield from job(config.model_copy(update={"image": path}))


def segment_layers(image: Any, run: Path | str, output: Path | str | None = None, **options: Any) -> list[LayerData]:
    """Segment a layer with a run and return the labels (and probabilities, if asked for) as LayerData."""
    taken = snapshot(image)
    return result_layers(run_job(segment(taken, run, output, **options)), taken)


def result_layers(result: Any, like: Any) -> list[LayerData]:
    """Turn a ``SegmentResult`` into LayerData at the place of the layer ``like``.

    Labels below 0.5 GB are read into memory, where they can be edited; larger ones stay lazy.
    """
    taken = snapshot(like)
    labels = Volume.open(result.output)
    data = labels.read() if labels.nbytes < IN_MEMORY else labels.data
    names = {value: name for name, values in result.classes.items() for value in values[:1]}
    features = {"index": [0, *names], "class": ["background", *names.values()]}
    about: dict[str, Any] = {"name": f"{taken.volume.name} segmentation", "features": features}
    about["metadata"] = {"path": str(result.output)}
    if result.probabilities is not None:
        about["metadata"]["probabilities"] = str(result.probabilities)
    layers: list[LayerData] = [(data[0] if taken.flat else data, {**taken.place, **about}, "labels")]
    if result.probabilities is not None:
        probabilities = Volume.open(result.probabilities).data
        for index, name in enumerate(result.classes, start=1):
            part = probabilities[..., index]
            look = {"name": f"p({name})", "contrast_limits": (0.0, 1.0), "colormap": "magma", "blending": "additive"}
            layers.append((part[0] if taken.flat else part, {**taken.place, **look}, "image"))
    return layers


def evaluate(
    prediction: Any,
    labels: Any,
    metrics: Sequence[str] = ("iou", "dice", "precision", "recall"),
    *,
    classes: Mapping[str, int] | None = None,
    ignore_label: int | None = None,
    kind: Literal["membrane", "object", "instances"] | None = None,
    **scoring: Any,
) -> Scores:
    """Score one labels layer (or, with ``kind``, a probability layer) against another.

    Parameters
    ----------
    prediction, labels : layers of one shape
    metrics : sequence of str
        Names out of ``napari_em_da.metrics.score_names``, or of families.
    classes : {name: label value}, optional
        All positive values if absent.
    ignore_label : int, optional
        Value of ``labels`` that is not annotated.
    kind : optional
        What the layers hold, for scores of partitions: a boundary map (which side is 1?), or instance ids.
    **scoring
        Fields of ``ScoringConfig``.
    """
    found, truth = snapshot(prediction).volume, snapshot(labels).volume
    return evaluate_arrays(
        found.source,
        truth.source,
        list(metrics),
        classes=classes,
        ignore_index=ignore_label,
        spacing=truth.voxel_nm,
        kind=kind,
        **scoring,
    )


def free_name(path: Path) -> Path:
    """Return ``path``, or ``path`` with the first number at its end that no file has."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text).strip("._") or "layer"


def then(job: Job, convert: Callable[[Any], Any]) -> Job:
    """Re-yield a job's events with ``convert(result)`` in place of its result."""
    with closing(job):
        for event in job:
            yield Finished(convert(event.result)) if isinstance(event, Finished) else event
