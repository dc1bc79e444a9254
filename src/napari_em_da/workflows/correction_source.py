"""What a round of corrections reads of the source: a few sections, to replay and to see what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_em_da.augment.intensity import match_histogram
from napari_em_da.lazy import computed
from napari_em_da.sampling import Sample, Sampler, Source
from napari_em_da.volume import Intensity, Volume
from napari_em_da.workflows.correction_data import settings
from napari_em_da.workflows.plan import IGNORE, LabelledVolume, Plan
from napari_em_da.workflows.streams import Region, split

SECTIONS = 12  # of all source volumes together: reading more takes seconds, which a round does not have
SIDE = 2048  # of each section no more than its square
SEARCHED = 64  # sections looked through for labels
CHECK_WINDOWS = 8
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Excerpt:
    """A part of a labelled volume in memory, with the intensities of the whole.

    Attributes
    ----------
    image : (sections, Y, X) array
    labels : (sections, Y, X) uint8
    intensity : Intensity
        Of the whole volume.
    regions : two regions of the excerpt
        What the run was trained on, and what it held out, if any.
    of : Volume
        The whole.
    """

    image: npt.NDArray[Any]
    labels: npt.NDArray[np.uint8]
    intensity: Intensity
    regions: tuple[Region, Region | None]
    of: Volume

    def parts(self, look: Intensity | None = None) -> tuple[Source | None, Source | None]:
        """Return what was trained on and what was held out, each where it has labels, in the look of another volume."""
        image, intensity = self.image, self.intensity
        if look is not None:
            image, intensity = match_histogram(image, intensity, look), look
        volume = Volume.from_array(image, voxel_nm=self.of.voxel_nm, name=self.of.name)
        vars(volume)["intensity"] = intensity  # a few sections would have another one
        first, second = (
            Source(volume, self.labels, None, region)
            if region is not None and (self.labels[region] != IGNORE).any()
            else None
            for region in self.regions
        )
        return first, second


def replayed(plan: Plan, batch: int) -> tuple[Sampler | None, list[Sample]]:
    """Return the sampler of source windows, and fixed ones that the run held out, to see what is forgotten.

    Where the run was adapted, the source is shown in the look of the target, as its network knows it. Equal runs and
    targets give equal fixed windows, round after round.
    """
    if not plan.source:
        return None, []
    excerpts = [excerpt(item, plan, max(1, SECTIONS // len(plan.source))) for item in plan.source]
    match = plan.target[0].intensity if plan.config.augment.match_target > 0 else None
    shown = [item.parts(match) for item in excerpts]
    checked = [part for _, part in shown if part] or [part for part, _ in shown if part]
    if not checked:
        return None, []
    still = settings(plan, augment=None, batch=4)
    held = Sampler(checked, stream="source-check", **still).grid(CHECK_WINDOWS)
    trained = [part for part, _ in (item.parts() for item in excerpts) if part]
    if not batch or not trained:
        return None, held
    changes = settings(plan, balance=plan.config.sampling.balance, batch=batch, match=match, memory_bytes=1 << 40)
    return Sampler(trained, stream="source", **changes), held


def excerpt(item: LabelledVolume, plan: Plan, count: int) -> Excerpt:
    """Read some sections of a source volume, and of large ones the part around where the held-out part begins."""
    shape = item.image.shape
    trained, held = split(shape, plan.config.sampling)
    cut = shape[2] if held is None else held[2].start
    y, x = window(shape[1] // 2, shape[1]), window(cut, shape[2])
    found = list(block(item, plan, count, y, x) if plan.network.ndim == 3 else spread_out(item, count, y, x))
    image = np.concatenate([item.image.read((slice(z, z + 1), y, x)) for z, _ in found])
    labels = np.stack([part for _, part in found])
    depth, inside = slice(0, len(found)), slice(0, y.stop - y.start)
    border = cut - x.start
    kept = None if held is None or cut >= x.stop else (depth, inside, slice(border, x.stop - x.start))
    regions = ((depth, inside, slice(0, min(border, x.stop - x.start))), kept)
    return Excerpt(image, labels, item.image.intensity, regions, item.image)


def window(around: int, length: int) -> slice:
    """Return ``SIDE`` voxels of an axis, or all it has."""
    start = max(0, min(around - SIDE // 2, length - SIDE))
    return slice(start, min(length, start + SIDE))


def block(
    item: LabelledVolume, plan: Plan, count: int, y: slice, x: slice
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield neighbouring sections with their labels: enough for the windows of a 3D network, around the middle."""
    used = item.sections or range(item.image.shape[0])
    voxel = item.image.voxel_nm
    step = 1.0 if plan.section_nm is None or voxel is None else max(1.0, plan.section_nm / voxel[0])
    depth = min(item.image.shape[0], max(count, ceil(plan.patch[0] * step)))
    start = max(0, min((min(used) + max(used) + 1 - depth) // 2, item.image.shape[0] - depth))
    for z in range(start, start + depth):
        yield z, np.asarray(computed(item.labels[z, y, x]))


def spread_out(item: LabelledVolume, count: int, y: slice, x: slice) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield sections from all over a volume with their labels, those that have any first."""
    used = item.sections or range(item.image.shape[0])
    order = list(dict.fromkeys(used[int(len(used) * (i * GOLDEN % 1))] for i in range(8 * SEARCHED)))
    empty = []
    for z in order[:SEARCHED]:
        labels = np.asarray(computed(item.labels[z, y, x]))
        if (labels != IGNORE).any():
            yield z, labels
            count -= 1
        else:
            empty.append((z, labels))
        if count == 0:
            return
    if len(empty) == len(order[:SEARCHED]):
        yield empty[0]
