"""Make pseudo-labels: segment every target volume with a run's network and write what is accepted, block by block."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.events import Event, Notice, Progress
from napari_em_da.inference.predict import predict
from napari_em_da.inference.store import Outputs, Prediction
from napari_em_da.io.zarr_array import ATTRIBUTE, AXES
from napari_em_da.jobs import forward
from napari_em_da.lazy import computed
from napari_em_da.losses._base import IGNORE
from napari_em_da.methods.entropy import RAREST
from napari_em_da.methods.pseudo_labels import LEVELS, PseudoLabelsOptions, accept, count_levels, thresholds_of
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.plan import Plan
from napari_em_da.workflows.pseudo_volumes import PSEUDO, PseudoVolume, labels_path, read_manifest, write_manifest
from napari_em_da.workflows.segment import resample, resize_sections, scale_factor, spacing_step

SLAB_VOXELS = 1 << 21  # labelled at once; more would make cancelling slower
CHUNK_PX = 512


def make_pseudo_labels(
    plan: Plan, teacher: RunFolder, run: Path, options: PseudoLabelsOptions
) -> Generator[Event, None, list[PseudoVolume]]:
    """Segment the plan's target volumes with ``teacher``'s best network and write their pseudo-labels into ``run``.

    What is complete is kept: finished blocks of the segmentation, finished volumes, and all once the manifest is there.
    """
    home = run / PSEUDO
    made = read_manifest(run)
    if made is None:
        home.mkdir(parents=True, exist_ok=True)
        probabilities = []
        for index, volume in enumerate(plan.target):
            probabilities.append((yield from segmented(plan, teacher, volume, home / f".{index}.working")))
        levels = None
        if options.thresholds == "prior":
            levels = yield from find_levels(plan, probabilities, options)
        made = []
        for index, (volume, data) in enumerate(zip(plan.target, probabilities, strict=True)):
            path = labels_path(run, index)
            if not path.exists():
                yield from write_labels(volume, data, path, options, levels)
            made.append(describe(volume, path, len(plan.config.classes) + 1))
        write_manifest(run, made)
    for leftover in home.glob(".*"):
        shutil.rmtree(leftover)
    return made


def segmented(plan: Plan, teacher: RunFolder, volume: Volume, store: Path) -> Generator[Event, None, Any]:
    """Return the probabilities (Z, Y, X, C) of one volume, lazily, at its own pixels."""
    info, training = teacher.info(), plan.config.training
    factor = scale_factor(volume, info["pixel_nm"])
    step, _ = spacing_step(volume, info.get("section_nm"))
    prediction: Prediction = yield from forward(
        predict(
            teacher.network(),
            volume if factor is None else resample(volume, factor),
            Outputs(store, labels=False, probabilities=True),
            intensity=volume.intensity,
            classes=len(plan.config.classes) + 1,
            section_step=step,
            precision=training.precision,
            device=training.device,
        )
    )
    data = prediction.probabilities().data
    return data if factor is None else resize_sections(data, volume.shape[1:3])


def find_levels(
    plan: Plan, probabilities: list[Any], options: PseudoLabelsOptions
) -> Generator[Event, None, list[int]]:
    """Return the level of each class above which it takes its share of all voxels of the target together."""
    counts = np.zeros((len(plan.config.classes) + 1, LEVELS), np.int64)
    total = sum(data.shape[0] for data in probabilities)
    done = 0
    for data in probabilities:
        for z in range(data.shape[0]):
            counts += count_levels(np.asarray(computed(data[z]), np.float32))
            done += 1
            yield Progress(done, total, "sections", "thresholds")
    prior = np.maximum(plan.prior, RAREST)
    return thresholds_of(counts, tuple(options.accepted * prior / prior.sum()))


def write_labels(
    volume: Volume, probabilities: Any, path: Path, options: PseudoLabelsOptions, levels: list[int] | None
) -> Generator[Event, None, None]:
    """Write the pseudo-labels of one volume, under another name until they are complete."""
    import zarr

    depth, height, width = volume.shape[:3]
    continuity = options.z_consistent and depth > 1
    if options.z_consistent and depth == 1:
        yield Notice(f"{volume.name} is a single section: nothing can be asked of an adjacent one.")
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    array = zarr.create_array(
        str(temporary),
        shape=(depth, height, width),
        chunks=(1, min(height, CHUNK_PX), min(width, CHUNK_PX)),
        dtype="uint8",
        fill_value=IGNORE,
        dimension_names=AXES[:3],
        attributes={} if volume.voxel_nm is None else {ATTRIBUTE: list(volume.voxel_nm)},
    )
    step = max(1, SLAB_VOXELS // (height * width))
    for start in range(0, depth, step):
        stop = min(depth, start + step)
        low = max(0, start - continuity)
        block = computed(probabilities[low : stop + continuity])
        labels = accept(np.asarray(block, np.float32), options, levels, continuity=continuity)
        array[start:stop] = labels[start - low : stop - low]
        yield Progress(stop, depth, "sections", "pseudo-labels")
    temporary.replace(path)


def describe(volume: Volume, path: Path, classes: int) -> PseudoVolume:
    """Count the pseudo-labels of one volume."""
    labels = Volume.open(path)
    counts = np.zeros(256, np.int64)
    for z in range(labels.shape[0]):
        counts += np.bincount(labels.read((slice(z, z + 1),)).ravel(), minlength=256)
    accepted = tuple(int(count) for count in counts[:classes])
    return PseudoVolume(volume.fingerprint, labels.fingerprint, accepted, int(np.prod(labels.shape)))
