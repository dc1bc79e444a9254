"""Draws batches: a pure function of seed, stream and step."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from napari_em_da.augment.geometry import IDENTITY, Deformation, Window, place, random_deformation
from napari_em_da.augment.intensity import jitter, match_histogram, robust_limits
from napari_em_da.config import AugmentConfig
from napari_em_da.errors import ConfigError
from napari_em_da.sampling.positions import IGNORE
from napari_em_da.sampling.sample import Sample
from napari_em_da.sampling.source import Prepared, Source, prepare
from napari_em_da.volume import Intensity

Array = npt.NDArray[Any]
Targets = tuple[Array | None, Array | None]  # labels, weights
TRIES = 8  # windows without a labelled voxel are drawn again


class Sampler:
    """Draws the batches of one stream.

    Parameters
    ----------
    sources : sequence of Source
        Drawn in proportion to the voxels of their regions, or to ``shares``; all labelled or none, all with weights or
        none.
    patch_px : (z, y, x)
        z is 1 for ``ndim`` 2.
    batch : int
        Windows per draw.
    ndim : int
        2 or 3, of the network.
    seed : int
    stream : str
        Name of the stream; streams of one seed are independent.
    augment : AugmentConfig or None
    balance : float
        Share of windows centred on a voxel of a class chosen uniformly among those present.
    pixel_nm : float, optional
        In-plane pixel size of the windows; the volumes' own if absent.
    section_nm : float, optional
        Section spacing of 3D windows; the volumes' own if absent. Of a finer volume the nearest sections are taken at
        that spacing, none is interpolated. For ``ndim`` 2 it means nothing: each window is one section.
    classes : int
        Number of classes; labels must be below it, or 255.
    match : Intensity, optional
        Distribution given to a share ``augment.match_target`` of the windows.
    margin_px : int or sequence of ndim ints
        What the network's output lacks on each side; labels and weights are cropped by it.
    shares : sequence of float, optional
        How often each source is drawn.
    memory_bytes : int
        Volumes are held in memory, in the order given, as long as they fit; the others are read window by window.
        0 suits a sampler that is only asked for its grid.

    Raises
    ------
    ConfigError
        If the options contradict each other, or sections of a volume are further apart than ``section_nm``.
    DataError
        If a volume cannot be sampled: several channels, labels of another shape or with unknown classes, no
        labelled voxel in its region, no voxel size where one is needed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        patch_px: Sequence[int],
        batch: int,
        ndim: int,
        seed: int,
        stream: str,
        augment: AugmentConfig | None = None,
        balance: float = 0.0,
        pixel_nm: float | None = None,
        section_nm: float | None = None,
        classes: int = 255,
        match: Intensity | None = None,
        margin_px: int | Sequence[int] = 0,
        shares: Sequence[float] | None = None,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self.patch = _patch(patch_px, ndim)
        self.margin = _margin(margin_px, self.patch, ndim)
        if not sources:
            raise ConfigError(f"Stream {stream!r} has no volume to draw from; give at least one.")
        if not 1 <= classes <= IGNORE:
            raise ConfigError(f"{classes} classes cannot be labelled: use 1 to {IGNORE}, for {IGNORE} means ignore.")
        for name in ("labels", "weights"):
            if len({getattr(s, name) is None for s in sources}) > 1:
                raise ConfigError(f"Some volumes of stream {stream!r} have {name} and some have none; split them.")
        self.batch, self.ndim, self.balance = batch, ndim, balance
        self.augment, self.match = augment, match
        self._entropy = (seed, zlib.crc32(stream.encode()))
        self._parts: list[Prepared] = []
        section_nm = section_nm if ndim == 3 else None
        for source in sources:
            self._parts.append(prepare(source, pixel_nm, section_nm, classes, memory_bytes))
            memory_bytes -= 0 if self._parts[-1].image is None else source.volume.nbytes
        sizes = np.array([np.prod([s.stop - s.start for s in p.region], dtype=float) for p in self._parts])
        sizes = sizes if shares is None else np.array(shares, float)
        self._share = sizes / sizes.sum()

    def draw(self, step: int) -> Sample:
        """Return the batch of one training step: a pure function of seed, stream and step, safe in any thread."""
        rng = np.random.default_rng((*self._entropy, step))
        return self._collate([self._draw_window(rng) for _ in range(self.batch)])

    def grid(self, count: int) -> list[Sample]:
        """Return ``count`` fixed windows without augmentation, evenly spread, in batches; each holds a label.

        Volumes get windows in proportion to their regions, at least one each. A region that has room for fewer
        distinct windows gives fewer.
        """
        windows = []
        for part, share in zip(self._parts, self._share, strict=True):
            placed = self._spread(part, max(1, round(count * share)))
            windows += [(self._image(part, window, None), *targets) for window, targets in placed]
        return [self._collate(windows[i : i + self.batch]) for i in range(0, len(windows), self.batch)]

    def _draw_window(self, rng: np.random.Generator) -> tuple[Array, Array | None, Array | None]:
        part = self._parts[int(rng.choice(len(self._parts), p=self._share))]
        for attempt in range(TRIES):
            surely = attempt >= TRIES // 2  # sparse annotation: stop guessing, go to a labelled voxel
            augment = self.augment if attempt < TRIES - 1 else None  # a deformation could move that voxel out
            deformation = random_deformation(augment, self.patch, rng) if augment else IDENTITY
            window = self._place(part, self._centre(part, surely, rng), deformation)
            labels, weights = self._targets(part, window)
            if labels is None or (labels != IGNORE).any():
                break
        return self._image(part, window, rng), labels, weights

    def _centre(self, part: Prepared, on_class: bool, rng: np.random.Generator) -> Array:
        if part.voxels and (rng.random() < self.balance or on_class):
            positions = part.voxels[int(rng.integers(len(part.voxels)))]
            return np.array(np.unravel_index(positions[int(rng.integers(len(positions)))], part.shape))
        return rng.integers([s.start for s in part.region], [s.stop for s in part.region])

    def _place(self, part: Prepared, centre: Array, deformation: Deformation) -> Window:
        deformation = replace(deformation, matrix=part.step @ deformation.matrix)
        at = place(centre, part.region, self.patch, deformation.matrix, self.margin, part.section_step)
        return Window(part.shape, self.patch, at, deformation, part.section_step)

    def _spread(self, part: Prepared, count: int) -> list[tuple[Window, Targets]]:
        low, high = (np.array([getattr(s, end) for s in part.region]) for end in ("start", "stop"))
        engine = SobolEngine(3)
        walk = np.floor(low + (high - low) * engine.draw(20 * count, dtype=torch.float64).numpy())
        # Where labels are sparse, the walk may miss them all: then take some labelled voxels themselves.
        known = [v[:: max(1, len(v) // count)] for v in part.voxels]
        labelled = [np.stack(np.unravel_index(v, part.shape), axis=1) for v in known]
        found: dict[tuple[float, ...], tuple[Window, Targets]] = {}
        for centre in itertools.chain(walk, *labelled):
            if len(found) == count:
                break
            window = self._place(part, centre, IDENTITY)
            targets = self._targets(part, window)
            if targets[0] is None or (targets[0] != IGNORE).any():
                found.setdefault(window.centre, (window, targets))
        return list(found.values())

    def _targets(self, part: Prepared, window: Window) -> Targets:
        inner = tuple(slice(m, n - m) for m, n in zip(self.margin, self.patch, strict=True))
        labels, weights = part.source.labels, part.source.weights
        if labels is not None:
            labels = window.labels(part.read_inside(labels, window.boxes, IGNORE, np.uint8), IGNORE)[inner]
        if weights is not None:
            weights = window.labels(part.read_inside(weights, window.boxes, 0, np.float32), 0)[inner]
        return labels, weights

    def _image(self, part: Prepared, window: Window, rng: np.random.Generator | None) -> Array:
        raw, intensity = part.read(window.boxes), part.intensity
        augment = None if rng is None else self.augment
        if augment and rng and self.match and rng.random() < augment.match_target:
            raw, intensity = match_histogram(raw, intensity, self.match), self.match
        image = window.image(intensity.standardise(raw))
        return jitter(image, augment, robust_limits(intensity), rng) if augment and rng else image

    def _collate(self, windows: Sequence[tuple[Array, Array | None, Array | None]]) -> Sample:
        images, labels, weights = zip(*windows, strict=True)
        return Sample(
            self._stack(images, np.float32)[:, None],
            None if labels[0] is None else self._stack(labels, np.int64),
            None if weights[0] is None else self._stack(weights, np.float32),
        )

    def _stack(self, arrays: Sequence[Array], dtype: npt.DTypeLike) -> Tensor:
        joined = np.stack(arrays, dtype=dtype)  # B, Z, Y, X
        return torch.from_numpy(joined[:, 0] if self.ndim == 2 else joined)


def _patch(patch_px: Sequence[int], ndim: int) -> tuple[int, int, int]:
    if len(patch_px) != 3 or min(patch_px) < 1:
        raise ConfigError(f"patch_px {tuple(patch_px)} is not three positive numbers (z, y, x).")
    if ndim == 2 and patch_px[0] != 1:
        remedy = f"use (1, {patch_px[1]}, {patch_px[2]}) or a 3D network"
        raise ConfigError(f"patch_px {tuple(patch_px)} has {patch_px[0]} sections, but the network is 2D; {remedy}.")
    return int(patch_px[0]), int(patch_px[1]), int(patch_px[2])


def _margin(margin_px: int | Sequence[int], patch: tuple[int, int, int], ndim: int) -> tuple[int, int, int]:
    sides = (margin_px,) * ndim if isinstance(margin_px, int) else tuple(margin_px)
    z, y, x = (0, *sides) if len(sides) == 2 else sides
    if any(n <= 2 * m for n, m in zip(patch, (z, y, x), strict=True)):
        least = tuple(2 * m + 1 for m in (z, y, x))
        raise ConfigError(f"patch_px {patch} leaves no output: the network loses {(z, y, x)} per side; use >= {least}.")
    return z, y, x
