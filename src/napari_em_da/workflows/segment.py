"""Segment a volume of any size with a run, at the network's pixel size, and write labels and probabilities."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.config import ImageConfig, SegmentConfig
from napari_em_da.events import Finished, Notice, Progress, Saved
from napari_em_da.inference.along_z import smooth
from napari_em_da.inference.predict import predict
from napari_em_da.inference.store import Outputs, Prediction
from napari_em_da.io import check_output, working_store, writing
from napari_em_da.jobs import Job, forward
from napari_em_da.lazy import computed
from napari_em_da.sampling.source import SAME_SPACING
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.plan import open_image
from napari_em_da.workflows.scale import in_plane
from napari_em_da.workflows.sidecar import write_sidecar
from napari_em_da.workflows.train import full

SAME_SCALE = 0.02  # pixel sizes that differ by less are not resampled


@dataclass(frozen=True)
class SegmentResult:
    """The files written, the label value of each class, its share of the voxels, and seconds."""

    output: Path
    probabilities: Path | None
    classes: dict[str, tuple[int, ...]]
    foreground: dict[str, float]
    seconds: float


def segment(config: SegmentConfig) -> Job:
    """Segment ``config.image`` with ``config.run`` and yield events; Finished carries a SegmentResult.

    The label volume holds the label values that the classes had in the training labels, so that it compares with them
    directly; a ``.json`` beside it names the classes and the run. Stopped half-way, the same call goes on.

    Raises
    ------
    DataError
        If the image cannot be read, the run is unfinished, or an output exists or cannot be written.
    ResourceError
        If a device is missing, or memory or disk do not suffice.
    """
    started = time.perf_counter()
    folder = RunFolder.open(full(config.run))
    info = folder.info()
    for path in filter(None, (config.output, config.probabilities)):
        check_output(path, overwrite=config.overwrite)
    from_file = Volume.open(config.image).voxel_nm
    volume = open_image(ImageConfig(image=config.image, voxel_nm=config.voxel_nm))
    yield Notice(describe_scale(volume, from_file, config, info["pixel_nm"]))
    network = folder.network(config.checkpoint)
    step, sections = spacing_step(volume, info.get("section_nm"))
    if sections:
        yield sections
    values = [0, *(members[0] for members in info["classes"].values())]
    factor = scale_factor(volume, info["pixel_nm"])
    at_scale = volume if factor is None else resample(volume, factor)
    store = working_store(config.output)
    averaged = network.ndim == 2 and config.smooth_z > 0 and volume.voxel_nm is not None and volume.shape[0] > 1
    plain = factor is None and not averaged  # classes as the network gives them, voxel by voxel
    scored = not plain or config.probabilities is not None
    outputs = Outputs(store, probabilities=scored)  # and labels in any case, to look at meanwhile
    prediction: Prediction = yield from forward(
        predict(
            network,
            at_scale,
            outputs,
            intensity=volume.intensity,
            classes=len(values),
            tta=config.tta,
            section_step=step,
            tile_px=config.tile_px,
            batch=config.batch,
            precision=config.precision,
            device=config.device,
        )
    )
    scores = prediction.probabilities() if scored else None  # (Z, Y, X, C)
    over_z: dict[str, float] = {}
    if averaged and volume.voxel_nm is not None:
        (z, *own), (_, *plane), (_, *seen) = volume.voxel_nm, volume.shape[:3], at_scale.shape[:3]
        y, x = (nm * n / of for nm, n, of in zip(own, plane, seen, strict=True))
        plan = yield from smooth(prediction, (z, y, x), config.smooth_z)
        over_z = {name: round(plan.sigmas[c] * z, 1) for c, name in enumerate(info["classes"], 1) if plan.sigmas[c]}
        yield Notice(describe_smoothing(over_z, plan.gaps))
        scores = scores if plan.idle else prediction.smoothed()
    yield Progress(0, 1, "files", "writing")
    probabilities: Any = None if scores is None else scores.data
    if factor is not None:
        probabilities = resize_sections(probabilities, volume.shape[1:3])
    indices: Any = prediction.labels().data if plain else probabilities.argmax(-1).astype(np.uint8)
    table = np.array(values, dtype=np.min_scalar_type(max(values)))
    counts = np.zeros(len(values), np.int64)

    def translate(block: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        return np.asarray(table[block])

    for z in range(indices.shape[0]):
        yield Progress(z, indices.shape[0], "sections", "counting")
        counts += np.bincount(computed(indices[z]).ravel(), minlength=len(values))
    labels = Volume(indices.map_blocks(translate, dtype=table.dtype), volume.voxel_nm, config.output.stem)
    yield from writing(labels, config.output, overwrite=config.overwrite)
    yield Saved(config.output, "labels")
    classes = {name: tuple(members) for name, members in info["classes"].items()}
    recorded = {name: members[:1] for name, members in classes.items()}
    about = {"run": folder.path, "checkpoint": config.checkpoint, "averaged_nm": over_z}
    write_sidecar(config.output, recorded, "labels", **about)
    if config.probabilities is not None:
        written = Volume(probabilities, volume.voxel_nm, config.probabilities.stem)
        yield from writing(written, config.probabilities, overwrite=config.overwrite)
        write_sidecar(config.probabilities, recorded, "probabilities", **about)
        yield Saved(config.probabilities, "probabilities")
    prediction.remove()
    yield Progress(1, 1, "files", "writing")
    shares = {name: float(counts[i] / counts.sum()) for i, name in enumerate(classes, start=1)}
    if not counts[1:].any():
        yield Notice(
            "Nothing was found: every voxel is background. Look at the run's previews; the image may be too different "
            "from the training data (adapt the run to it first).",
            "warning",
        )
    seconds = round(time.perf_counter() - started, 1)
    yield Finished(SegmentResult(config.output, config.probabilities, classes, shares, seconds))


def describe_smoothing(over_z: dict[str, float], gaps: int) -> str:
    """Say over how many nm along z each class was averaged."""
    if not over_z:
        return "Nothing is averaged along z: what was found is too thin for sections this thick."
    parts = ", ".join(f"{name} {nm:.0f} nm" for name, nm in over_z.items())
    between = f"; not across {gaps} gap(s) in the stack" if gaps else ""
    return f"Averaged along z (standard deviation): {parts}{between}."


def describe_scale(volume: Volume, from_file: Any, config: SegmentConfig, pixel_nm: float | None) -> str:
    """Say which voxel size is used and where it comes from."""
    if volume.voxel_nm is None:
        known = f"the run was trained at {pixel_nm:g} nm per pixel" if pixel_nm else "the run's is unknown too"
        return (
            f"The voxel size of {volume.name} is unknown ({known}); it is segmented as it is. Give it with --voxel-nm."
        )
    size = ", ".join(f"{v:g}" for v in volume.voxel_nm)
    origin = "as given" if config.voxel_nm is not None else f"from {config.image.name}"
    changed = (
        f", instead of {from_file} in the file" if config.voxel_nm and from_file not in (None, volume.voxel_nm) else ""
    )
    factor = scale_factor(volume, pixel_nm)
    scaled = f"; resampled to the run's {pixel_nm:g} nm per pixel" if factor is not None else ""
    return f"Voxel size {size} nm ({origin}{changed}){scaled}."


def scale_factor(volume: Volume, pixel_nm: float | None) -> float | None:
    """Return network pixels per volume pixel, or None where they are alike or unknown."""
    own = in_plane(volume.voxel_nm)
    if own is None or pixel_nm is None or abs(own / pixel_nm - 1) < SAME_SCALE:
        return None
    return float(own / pixel_nm)


def spacing_step(volume: Volume, section_nm: float | None) -> tuple[float, Notice | None]:
    """Return the volume's sections per section of the run's training, at least 1, and what to say about it.

    ``section_nm`` is None for 2D networks, to which sections are single anyway, and where it is unknown.
    """
    if section_nm is None or volume.voxel_nm is None:
        return 1.0, None
    own = volume.voxel_nm[0]
    if abs(section_nm / own - 1) < SAME_SPACING:
        return 1.0, None
    if section_nm > own:
        return section_nm / own, Notice(
            f"The run was trained on sections {section_nm:g} nm apart, these are {own:g} nm apart: each is segmented "
            "among the nearest ones at the run's spacing."
        )
    return 1.0, Notice(
        f"The run was trained on sections {section_nm:g} nm apart, these are {own:g} nm apart. Sections between them "
        "do not exist, so they are segmented as they are; train at their spacing (sampling.section_nm) for better "
        "results.",
        "warning",
    )


def resample(volume: Volume, factor: float) -> Volume:
    """Return the volume with its sections magnified by ``factor``, lazily."""
    size = tuple(max(1, round(n * factor)) for n in volume.shape[1:3])
    data = resize_sections(volume.data.astype(np.float32), size)
    return Volume(data, None, volume.name, volume.path)


def resize_sections(data: Any, size: tuple[int, ...]) -> Any:
    """Resize every section of a dask array (Z, Y, X[, C]) to ``size`` (Y, X), lazily and linearly.

    Shrinking smooths first by sigma = (factor - 1) / 2, exactly as the windows of training are.
    """
    import cv2

    height, width = size
    sigma = max(0.0, (data.shape[1] / height - 1) / 2)
    rest = data.shape[3:]
    whole = data.rechunk((1, data.shape[1], data.shape[2], *rest))

    def resize(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        picture = np.ascontiguousarray(block[0])
        if sigma > 0:
            picture = cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(picture, np.float32).reshape(1, height, width, *rest)

    return whole.map_blocks(
        resize, dtype=np.float32, chunks=((1,) * data.shape[0], (height,), (width,), *((n,) for n in rest))
    )
