"""The widget functions without widgets: napari layers (or LayerData tuples, or arrays) in, LayerData and events out.

Nothing here imports Qt or napari. A layer is whatever has ``data``; ``scale``, ``units``, ``translate``, ``axis_labels``,
``name`` and ``source.path`` are used where they exist.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.config import SegmentConfig, TrainConfig, parse
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Event, Finished, Notice, Progress
from napari_em_da.jobs import Job
from napari_em_da.jobs import run as run_job
from napari_em_da.volume import Volume, VoxelSize

LayerData = tuple[Any, dict[str, Any], str]

NM_PER_UNIT = {
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "micrometer", "micrometre", "micrometers"), 1e3),
    **dict.fromkeys(("angstrom", "å", "Å"), 0.1),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e6),
    **dict.fromkeys(("m", "meter", "metre"), 1e9),
}
NO_LENGTH = ("", "pixel", "pixels", "px", "dimensionless")
PLACE = ("scale", "translate", "units", "axis_labels", "rotate", "shear", "affine")
MOST_VALUES = 64  # more label values than this are instances, not classes
IN_MEMORY = 1 << 29  # bytes of labels that are read into memory, where they can be edited


@dataclass(frozen=True)
class Snapshot:
    """What a job needs of a layer, taken at once: the job never touches the layer again.

    Attributes
    ----------
    volume : Volume
        (Z, Y, X), of the voxel size that the layer's scale and units say, or None in pixel units.
    path : Path or None
        The file that the layer was opened from.
    place : dict
        ``scale``, ``translate``, … as the layer has them, for the layers that come out.
    flat : bool
        The layer is one section (Y, X); the volume has one all the same.
    """

    volume: Volume
    path: Path | None = None
    place: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False


def snapshot(layer: Any, *, copy: bool = False) -> Snapshot:
    """Take what a job needs of a layer, a LayerData tuple or an array.

    Parameters
    ----------
    layer : layer, (data, kwargs, type) tuple or array
        2D or 3D; of a multiscale layer the finest level counts.
    copy : bool
        Copy arrays that are in memory, so that editing the layer does not change the running job.

    Raises
    ------
    DataError
        If the layer is RGB, not 2D or 3D, or its units are no lengths.
    """
    if isinstance(layer, Snapshot):
        return layer
    if isinstance(layer, tuple):
        data, given = layer[0], dict(layer[1]) if len(layer) > 1 else {}
    elif hasattr(layer, "scale") or not hasattr(layer, "dtype"):
        data, given = layer.data, {k: getattr(layer, k) for k in (*PLACE, "name", "rgb", "multiscale") if hasattr(layer, k)}
    else:
        data, given = layer, {}
    name = str(given.get("name") or "layer")
    if given.get("multiscale"):
        data = data[0]
    if given.get("rgb"):
        raise DataError(f"The layer {name!r} is a colour picture; convert it to grey values (one channel) first.")
    if len(data.shape) not in (2, 3):
        raise DataError(f"The layer {name!r} has {len(data.shape)} axes {tuple(data.shape)}; choose one of (Z, Y, X).")
    path = getattr(getattr(layer, "source", None), "path", None)
    volume = Volume.from_array(np.array(data) if copy and isinstance(data, np.ndarray) else data, name=name)
    size = voxel_size(given.get("scale"), given.get("units"), name)
    place = {k: given[k] for k in PLACE if given.get(k) is not None}
    path = None if path is None else Path(path)
    return Snapshot(Volume(volume.source, size, name), path, place, len(data.shape) == 2)


def voxel_size(scale: Any, units: Any, name: str = "layer") -> VoxelSize | None:
    """Return the voxel size (z, y, x) in nm of a layer's scale and units, or None where they are pixels.

    A 2D layer gets its y pixel size as z.

    Raises
    ------
    DataError
        If a unit is no length that is known here.
    """
    if scale is None or units is None:
        return None
    steps = [abs(float(s)) for s in scale][-3:]
    names = [str(u) for u in ([units] * len(steps) if isinstance(units, str) or not hasattr(units, "__len__") else units)]
    if any(unit.lower() in NO_LENGTH for unit in names[-len(steps) :]):
        return None
    try:
        sizes = [s * NM_PER_UNIT[u.lower()] for s, u in zip(steps, names[-len(steps) :], strict=True)]
    except KeyError as unit:
        raise DataError(
            f"The layer {name!r} is scaled in {unit}; set its units to 'nm' or 'um' (lengths), or to 'pixel'."
        ) from None
    z, y, x = sizes if len(sizes) == 3 else (sizes[0], *sizes)
    return (z, y, x)


def weight_map_layer(labels_layer: Any, kind: str, **params: Any) -> LayerData:
    """Compute the weight map of a labels layer exactly as the loss uses it.

    Parameters
    ----------
    labels_layer : labels layer, LayerData or array
    kind : str
        Name in the catalog of weight maps.
    **params
        ``floor``, ``scale``, ``ignore_index``, ``spacing`` and the kind's own; see ``weight_map``.

    Returns
    -------
    LayerData
        A float32 image of the labels' shape and place; lazy if the labels are.
    """
    from napari_em_da.weights import weight_map

    taken = snapshot(labels_layer)
    weights = weight_map(taken.volume.source[0] if taken.flat else taken.volume.source, kind, **params)
    section = weights if weights.ndim == 2 else weights[len(weights) // 2]
    high = float(section.max() if hasattr(weights, "dask") else weights.max())
    return weight_layer(weights, f"{taken.volume.name} {kind} weights", high, taken.place, kind, params)


def weight_layer(
    weights: Any, name: str, high: float, place: Mapping[str, Any], kind: str, params: Mapping[str, Any]
) -> LayerData:
    """Return weights as LayerData in the colours that all weight maps share."""
    limits = (0.0, high if high > 0 and math.isfinite(high) else 1.0)
    look = {"colormap": "magma", "contrast_limits": limits, "blending": "additive"}
    return weights, {**place, **look, "name": name, "metadata": {"kind": kind, "params": dict(params)}}, "image"


def weight_section(labels: Snapshot, kind: str, z: int, **params: Any) -> Any:
    """Return section ``z`` (Y, X) float32 of the weight map of the whole volume.

    Only what the section needs is computed: its neighbourhood, and the sums over the volume that the kind uses.
    """
    from napari_em_da.weights import weight_map

    lazy = weight_map(labels.volume.data, kind, **params)
    return np.asarray(lazy[min(max(z, 0), len(lazy) - 1)].compute())


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


def train(
    image: Any,
    labels: Any,
    classes: Mapping[str, Sequence[int]],
    run: Path | str,
    *,
    target: Any = None,
    **sections: Any,
) -> Job:
    """Train on layers and yield the events of ``workflows.train``; with a target layer, adapt to it.

    The layers are read when this is called, so they may change afterwards.

    Parameters
    ----------
    image, labels : layers of one shape
    classes : {name: label values}
    run : Path
        Run folder to create.
    target : layer, optional
        Unlabelled volume, for a method that adapts.
    **sections
        Further fields of ``TrainConfig``: ``network``, ``method``, ``training``, ``sampling``, ``init``, …

    Notes
    -----
    A layer that still equals the file it was opened from is read from that file. Any other is saved in
    ``<run>-data`` beside the run folder, so that the run can be resumed and replayed without napari.
    """
    taken = {"image": snapshot(image), "labels": snapshot(labels, copy=True)}
    if target is not None:
        taken["target"] = snapshot(target)
    names = {name: tuple(int(v) for v in values) for name, values in classes.items()}
    return _train(taken, names, Path(run).expanduser(), sections)


def _train(taken: dict[str, Snapshot], classes: dict[str, tuple[int, ...]], run: Path, sections: dict[str, Any]) -> Job:
    if run.exists() and (not run.is_dir() or any(run.iterdir())):  # before anything is written beside it
        raise ConfigError(f"{run} exists already; choose another run folder, or resume it.")
    folder = run.with_name(f"{run.name}-data")
    files = {}
    for what, item in taken.items():
        files[what] = yield from as_file(item, folder / f"{what}.tif", exact=what == "labels")
    source = {"image": files["image"], "labels": files["labels"], "voxel_nm": taken["image"].volume.voxel_nm}
    targets = ({"image": files["target"], "voxel_nm": taken["target"].volume.voxel_nm},) if "target" in taken else ()
    config = parse(TrainConfig, {"run": run, "source": (source,), "target": targets, "classes": classes, **sections})
    from napari_em_da.workflows.train import train as job

    yield from job(config)


def resume(run: Path | str) -> Job:
    """Continue a run folder from its last checkpoint with its own config."""
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.train import train as job

    yield from job(RunFolder.open(Path(run).expanduser()).config(), resume=True)


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
    return _segment(snapshot(image), Path(run).expanduser(), None if output is None else Path(output).expanduser(), options)


def _segment(taken: Snapshot, run: Path, output: Path | None, options: dict[str, Any]) -> Job:
    if output is None:
        output = free_name(run / "segmentations" / f"{_file_name(taken.volume.name)}.tif")
    values = {"image": taken.path or Path("layer"), "run": run, "output": output, **options}
    config = parse(SegmentConfig, {"voxel_nm": taken.volume.voxel_nm, **values})
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.segment import segment as job

    RunFolder.open(run)  # before anything is written
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".layer-", dir=output.parent) as folder:
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
    about = {"name": f"{taken.volume.name} segmentation", "features": features, "metadata": {"path": str(result.output)}}
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
) -> dict[str, float]:
    """Score one labels layer against another.

    Parameters
    ----------
    prediction, labels : labels layers of one shape
    metrics : sequence of str
        Names out of ``napari_em_da.metrics.score_names``.
    classes : {name: label value}, optional
        All positive values if absent.
    ignore_label : int, optional
        Value of ``labels`` that is not annotated.
    """
    from napari_em_da.metrics import evaluate_arrays

    found, truth = snapshot(prediction).volume, snapshot(labels).volume
    spacing = truth.voxel_nm
    return evaluate_arrays(
        found.source, truth.source, list(metrics), classes=classes, ignore_index=ignore_label, spacing=spacing
    )


def as_file(taken: Snapshot, path: Path, *, exact: bool) -> Generator[Event, None, Path]:
    """Return a file with the layer's voxels: the one it came from if that still holds them, else ``path``, written now.

    ``exact`` compares every voxel; otherwise a fixed sample of whole sections.
    """
    if taken.path is not None and unchanged(taken, exact=exact):
        return taken.path
    yield Notice(f"The layer {taken.volume.name!r} is saved as {path}, since no file holds it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = taken.volume
    if exact and volume.dtype.kind in "ui":
        volume = smallest(volume)
    volume.save(path, overwrite=True)
    return path


def unchanged(taken: Snapshot, *, exact: bool) -> bool:
    """Return whether the file that a layer came from still holds the layer's voxels."""
    try:
        saved = Volume.open(taken.path or "")
    except DataError:  # gone, or in a format that another plugin has read
        return False
    own = taken.volume
    if saved.shape != own.shape:
        return False
    if not exact:
        return saved.fingerprint == own.fingerprint
    sections = ((slice(z, z + 1),) for z in range(own.shape[0]))
    return all(np.array_equal(saved.read(region), own.read(region)) for region in sections)


def smallest(labels: Volume) -> Volume:
    """Return labels in the smallest type that holds them: napari's int64 would be eight times the file."""
    ends = [(int(s.min()), int(s.max())) for s in (labels.read((slice(z, z + 1),)) for z in range(labels.shape[0]))]
    kind = np.result_type(np.min_scalar_type(min(e[0] for e in ends)), np.min_scalar_type(max(e[1] for e in ends)))
    if kind.itemsize >= labels.dtype.itemsize:
        return labels
    return Volume(labels.data.astype(kind), labels.voxel_nm, labels.name)


def free_name(path: Path) -> Path:
    """Return ``path``, or ``path`` with the first number at its end that no file has."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text).strip("._") or "layer"


def phantom_sample() -> list[LayerData]:
    """Return a phantom of neural tissue as two microscopes show it, with its labels (24 x 256 x 256 voxels of 8 nm)."""
    from napari_em_da.synthetic import phantom, render

    tissue = phantom((24, 256, 256), seed=1)
    other = render(tissue, "sstem", seed=2)
    return [
        _as_layer(tissue.image, "phantom FIB-SEM"),
        _as_layer(other, "phantom ssTEM", visible=False),
        _as_layer(tissue.labels, "phantom labels", kind="labels"),
    ]


def flyem_sample() -> list[LayerData]:
    """Return a crop of the FlyEM medulla (FIB-SEM) with its neurons."""
    from napari_em_da import sample

    image, neurons = sample.flyem_sample()
    return [_as_layer(image, image.name), _as_layer(neurons, neurons.name, kind="labels")]


def _as_layer(volume: Volume, name: str, *, kind: str = "image", **look: Any) -> LayerData:
    data = volume.source if isinstance(volume.source, np.ndarray) else volume.data
    return data, {**place_of(volume), "name": name, **look}, kind


def place_of(volume: Volume) -> dict[str, Any]:
    """Return scale, units and axis labels of a volume as a layer takes them."""
    labels = ("z", "y", "x")
    if volume.voxel_nm is None:
        return {"axis_labels": labels}
    return {"scale": volume.voxel_nm, "units": ("nm",) * 3, "axis_labels": labels}


def demo_layers(folder: Path | str) -> list[LayerData]:
    """Return every volume in a folder as LayerData, lazily: integers named like labels become labels, all others images.

    Raises
    ------
    DataError
        If the folder holds no volume.
    """
    found: list[LayerData] = []
    for path in sorted(p for p in Path(folder).glob("*") if p.suffix in (".tif", ".tiff", ".zarr")):
        volume = Volume.open(path)
        words = ("label", "segment", "mask", "prediction", "truth", "adapted", "before", "after")
        is_labels = volume.dtype.kind in "ui" and any(word in path.stem.lower() for word in words)
        if len(volume.shape) == 3:
            found.append(_as_layer(volume, path.stem, kind="labels" if is_labels else "image"))
    if not found:
        raise DataError(f"{folder} holds no volume (.tif or .zarr) to show; run 'napari-em-da demo' first.")
    return sorted(found, key=lambda layer: layer[2])  # images below labels


def open_demo(folder: Path | str, *, block: bool = True) -> Any:
    """Open a viewer with the volumes of a demo folder and, if ``block``, run napari until it is closed."""
    import napari
    from napari.layers import Layer

    layers = demo_layers(folder)
    viewer = napari.Viewer(title="napari-em-da demo")
    for data in layers:
        viewer.add_layer(Layer.create(*data))
    if block:
        napari.run()
    return viewer


def then(job: Job, convert: Any) -> Job:
    """Re-yield a job's events with ``convert(result)`` in place of its result."""
    with closing(job):
        for event in job:
            yield Finished(convert(event.result)) if isinstance(event, Finished) else event
