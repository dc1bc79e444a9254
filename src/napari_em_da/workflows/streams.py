"""What a job reads: samplers of its volumes, held-out windows, and the shapes of the source's labels."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np

from napari_em_da.augment.intensity import match_histogram
from napari_em_da.config import SamplingConfig, TrainConfig
from napari_em_da.errors import DataError
from napari_em_da.events import Event, Notice, Progress
from napari_em_da.lazy import computed
from napari_em_da.sampling import Sampler, Source
from napari_em_da.selection._base import Reference
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.weights import weight_map
from napari_em_da.workflows.judging import Judge, label_sections
from napari_em_da.workflows.plan import (
    IGNORE,
    LabelledVolume,
    Plan,
    memory_budget,
)
from napari_em_da.workflows.pseudo_volumes import pseudo_sources
from napari_em_da.workflows.scale import in_plane
from napari_em_da.workflows.source_record import keep
from napari_em_da.workflows.validation import Look, Validation

Region = tuple[slice, slice, slice]


def prepare(
    plan: Plan, folder: RunFolder, look: Look | None = None
) -> Generator[Event, None, tuple[dict[str, Sampler], Validation]]:
    """Load labels, compute weight maps and build the samplers; returns (samplers, validation)."""
    config, s = plan.config, plan.config.sampling
    match = plan.target[0].intensity if plan.target and config.augment.match_target else None
    train_parts: list[Source] = []
    held_out: list[Source] = []
    total = len(plan.source)
    for index, item in enumerate(plan.source):
        yield Progress(index, total, "volumes", "preparing")
        labels, weights = load_maps(item, config)
        for part, region in zip((train_parts, held_out), split(item.image.shape, s), strict=True):
            if region is not None:
                part.append(Source(item.image, labels, weights, region))
    yield Progress(total, total, "volumes", "preparing")
    targets = [Source(volume) for volume in plan.target]

    def sampler(sources: list[Source], stream: str, **changes: Any) -> Sampler:
        settings: dict[str, Any] = {
            "patch_px": s.patch_px,
            "batch": s.batch,
            "ndim": plan.network.ndim,
            "seed": config.training.seed,
            "augment": config.augment,
            "balance": s.balance,
            "pixel_nm": plan.pixel_nm,
            "section_nm": plan.section_nm,
            "classes": len(config.classes) + 1,
            "match": match,
            "margin_px": plan.network.margin_px,
            "memory_bytes": memory_budget(),
        }
        return Sampler(sources, stream=stream, **{**settings, **changes})

    samplers = {}
    if "source" in plan.method.streams:
        samplers["source"] = sampler(train_parts, "source")
    if "target" in plan.method.streams:
        drawn = pseudo_sources(plan, folder.path) if plan.method.pseudo else targets
        samplers["target"] = sampler(drawn, "target", balance=0.0, match=None)
    still: dict[str, Any] = {
        "augment": None,
        "balance": 0.0,
        "match": None,
        "batch": min(s.batch, 4),
        "memory_bytes": 0,
    }
    held_out = [part for part in held_out if labelled(part)]
    if s.validation and plan.source and not held_out:
        yield Notice(
            "The held-out part holds no label: nothing is validated, and the last weights are kept.", "warning"
        )
    held = sampler(held_out, "validation", **still).grid(s.validation_patches) if held_out else []
    shapes = source_shapes(plan, folder)
    if not targets or shapes is None:
        return samplers, Validation(plan, held, look=look)
    seen = sampler(targets, "target-preview", **still).grid(s.selection_patches)
    windows = [sample.image for sample in seen]
    matched = (
        sampler([in_look_of(part, plan.target[0]) for part in held_out], "validation", **still) if held_out else None
    )
    looks = matched.grid(s.validation_patches) if matched else []
    return samplers, Validation(plan, held, Judge(folder, windows, shapes), looks, look)


def in_look_of(source: Source, target: Volume) -> Source:
    """Return a source whose intensities have the target's distribution, lazily."""
    volume = source.volume

    def match(block: np.ndarray) -> np.ndarray:
        return match_histogram(block, volume.intensity, target.intensity)

    data = volume.data.map_blocks(match, dtype=np.float32)  # type: ignore[arg-type, call-arg]  # dask's wrapper
    return replace(source, volume=Volume(data, volume.voxel_nm, f"{volume.name} in the look of {target.name}"))


def source_shapes(plan: Plan, folder: RunFolder) -> Reference | None:
    """Return what the classes look like in the source, and keep it in the run for those who will not have the source.

    Labels may be too sparse for that; whoever only trains on them does without.
    """
    try:
        found = plan.record.reference if plan.record else reference(plan, plan.patch)
    except DataError:
        if plan.target:
            raise
        return None
    keep(folder, found)
    return found


def reference(plan: Plan, window: tuple[int, ...]) -> Reference:
    """Measure what the classes look like in the source's labels, at the pixel size of the training."""
    sections: list[np.ndarray] = []
    for item in plan.source:
        own = in_plane(item.image.voxel_nm)
        factor = None if own is None or plan.pixel_nm is None else own / plan.pixel_nm
        labels = item.labels if item.sections is None else item.labels[list(item.sections)]
        sections += label_sections(labels, factor)
    return Reference.from_labels(sections, list(plan.config.classes), (window[-2], window[-1]))


def labelled(part: Source) -> bool:
    """Return whether the part's region holds an annotated voxel."""
    z, y, x = part.region
    sections = range(z.start, z.stop)
    return part.labels is not None and any((computed(part.labels[i, y, x]) != IGNORE).any() for i in sections)


def split(shape: tuple[int, ...], sampling: SamplingConfig) -> tuple[Region, Region | None]:
    """Split off the last share of x for validation."""
    z, y, x = (slice(0, n) for n in shape[:3])
    if sampling.validation == 0:
        return (z, y, x), None
    cut = max(1, min(shape[2] - 1, round(shape[2] * (1 - sampling.validation))))
    return (z, y, slice(0, cut)), (z, y, slice(cut, shape[2]))


def load_maps(item: LabelledVolume, config: TrainConfig) -> tuple[Any, Any]:
    """Return labels and weight map, in memory where both fit the budget, else lazy."""
    labels, weights = item.labels, None
    fits = labels.nbytes * 5 < memory_budget()
    if fits:
        labels = np.asarray(computed(labels))
    w = config.weights
    if w.kind is not None:
        weights = weight_map(labels, w.kind, floor=w.floor, scale=w.scale, ignore_index=IGNORE, **w.params)
    return labels, weights
