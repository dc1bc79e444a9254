"""Segment a volume of any size, block by block, in constant memory; it can be stopped and continued."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from math import prod

import numpy as np
import numpy.typing as npt
import torch

from napari_em_da.device import choose_device, choose_precision, free_memory
from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.events import Event, Finished, Notice, Progress
from napari_em_da.inference.blocks import Block, Footprint, Grid, Triple, mirrored, plan, triple
from napari_em_da.inference.network import Frozen, TileTooLarge, fingerprint, footprint
from napari_em_da.inference.sections import interleaved, of_sections
from napari_em_da.inference.store import Outputs, Prediction, Store
from napari_em_da.models._base import SegmentationNet
from napari_em_da.volume import Intensity, Volume

PASS_VOXELS = {"cpu": 1 << 22, "cuda": 1 << 24, "mps": 1 << 22}
"""Largest tile: beyond this a tile saves little context, while cancelling gets slower."""

BATCH_VOXELS = {"cpu": 1 << 16, "cuda": 1 << 24, "mps": 1 << 20}
"""Where more tiles per pass stop paying off; on CPUs they leave the cache and are slower."""

Window = npt.NDArray[np.float32]
Job = Generator[Event, None, None]


def predict(
    net: SegmentationNet,
    volume: Volume,
    outputs: Outputs,
    *,
    intensity: Intensity | None = None,
    classes: int,
    tta: bool = False,
    section_step: float = 1.0,
    tile_px: int | None = None,
    batch: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    memory_bytes: int | None = None,
) -> Job:
    """Segment a volume into a zarr store; yields events, the last is ``Finished(Prediction)``.

    Parameters
    ----------
    net : SegmentationNet
        Left as it is: inference uses a copy.
    volume : Volume
        (Z, Y, X), or (Z, Y, X, C) for a network of C input channels.
    outputs : Outputs
        What to write and the working store. A store of the same job (network, volume, settings) is continued;
        that of another job is replaced, with a Notice.
    intensity : Intensity, optional
        How raw voxels become network input; the volume's own by default.
    classes : int
        Classes of the segmentation, background included. A network with one output channel gives 2.
    tta : bool
        Average probabilities over the eight in-plane symmetries; eight times slower.
    section_step : float
        Sections of the volume per section that a 3D network was trained on, at least 1. The network then sees
        interleaved stacks of every ``section_step``-th section (the nearest ones), so that each section is segmented
        among neighbours at the spacing it knows. 2D networks see single sections whatever it is.
    tile_px : int, optional
        In-plane size of the network's input; whole sections by default if the memory allows.
    batch : int, optional
        Tiles per pass; chosen from the memory by default.
    precision : {"auto", "bf16", "fp32"}
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
    memory_bytes : int, optional
        Memory to plan with, on the device; what is free by default.

    Yields
    ------
    Event
        Progress in blocks after each block; closing the generator keeps every finished block.

    Raises
    ------
    ConfigError, DataError
        Before any work: classes, channels or tile size that do not fit the network.
    ResourceError
        If not even the smallest tile fits into the memory, or the disk is full.

    Notes
    -----
    For networks with ``net.local`` the result does not depend on tiles or batch: in float32 it equals that of the
    whole image up to rounding. Test-time averaging acts on the mirrored image, so that all symmetries share a grid.
    """
    check(net, volume, outputs, classes, batch)
    if not section_step >= 1:
        raise ConfigError(f"section_step {section_step:g} would make up sections; use 1 or more.")
    ready = Ready(net, tta=tta, precision=precision, device=device)
    frozen = ready.frozen
    intensity = intensity or volume.intensity
    step = section_step if net.ndim == 3 else 1.0
    stacks = interleaved(volume.shape[0], step)
    shape = triple((len(stacks[0]), *volume.shape[1:3]))
    memory = memory_bytes or free_memory(ready.device)
    grid = ready.grid(shape, tile_px=tile_px, batch=batch, memory_bytes=memory)

    if not net.local and len(grid) > (shape[0] if net.ndim == 2 else 1):
        yield Notice(
            f"This network normalises over its whole input, so tiles of {grid.input} px leave faint seams; "
            "use batch norm, or more memory, for a seamless result.",
            "warning",
        )
    settings = _digest(intensity, classes, tta, step, ready.dtype, outputs.labels, outputs.probabilities)
    key = f"{fingerprint(net)}-{volume.fingerprint}-{settings}"
    store = Store(outputs, key, triple(volume.shape[:3]), classes, grid, stacks)
    if store.restarted:
        yield Notice(f"{outputs.store} held an unfinished segmentation with other settings; it was replaced.")
    with closing(store.journal):
        limit_bytes = min(memory, free_memory(torch.device("cpu"))) // 4

        def reader(stack: int) -> Reader:
            return Reader(of_sections(volume, stacks[stack]), intensity, limit_bytes)

        yield from _with_back_off(frozen, reader, store, grid, outputs.probabilities)
    yield Finished(Prediction(outputs.store, volume.name, volume.voxel_nm))


class Ready:
    """A network on its device, frozen, with what is needed to cut any volume into blocks for it.

    Parameters
    ----------
    net : SegmentationNet
        Left as it is.
    tta, precision, device
        As in `predict`.
    """

    def __init__(self, net: SegmentationNet, *, tta: bool = False, precision: str = "auto", device: str = "auto"):
        self.net = net
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.frozen = Frozen(net, self.device, self.dtype, tta)
        self.context = footprint(net)
        self.voxel_bytes = self.frozen.bytes_per_voxel(net.in_channels, probe_size(net, self.context))

    def grid(
        self,
        shape: Triple,
        *,
        tile_px: int | None = None,
        batch: int | None = None,
        memory_bytes: int | None = None,
    ) -> Grid:
        """Return the blocks of a volume (z, y, x), and set how many tiles a pass takes."""
        kind, net = self.device.type, self.net
        memory = memory_bytes or free_memory(self.device)
        limit = min(memory / self.voxel_bytes, float("inf") if not net.local else PASS_VOXELS[kind])
        grid = plan(shape, self.context, limit=limit, flat=net.ndim == 2, tile_px=tile_px)
        self.frozen.batch = batch or max(1, int(min(limit, BATCH_VOXELS[kind]) // prod(grid.input)))
        return grid


def _with_back_off(
    frozen: Frozen, reader: Callable[[int], Reader], store: Store, grid: Grid, probabilities: bool
) -> Job:
    """Work through all blocks, cutting finer whenever not even one tile fits."""
    while True:
        try:
            yield from _work(frozen, reader, store, grid, probabilities)
            return
        except TileTooLarge:
            finer = grid.smaller()
        if finer is None:
            raise ResourceError(
                f"Out of memory at the smallest tile of {grid.input} px (z, y, x) and batch 1 on {frozen.device}; use "
                "a network with fewer features or less context, precision='bf16', device='cpu', or free some memory."
            )
        yield Notice(f"Out of memory with tiles of {grid.input} px; going on with {finer.input} px.")
        grid = finer


def _work(frozen: Frozen, reader: Callable[[int], Reader], store: Store, grid: Grid, probabilities: bool) -> Job:
    """Segment the blocks that the journal does not know, stack after stack, reading one batch ahead."""
    grids = [replace(grid, shape=triple((len(stack), *grid.shape[1:]))) for stack in store.stacks]
    total, done = sum(map(len, grids)), sum(store.journal.has(b, n) for n, g in enumerate(grids) for b in g)
    yield Progress(done, total, "blocks", "segment")
    if done == total:
        return
    for stack, part in enumerate(grids):
        store.journal.use(part.core, stack)
        todo = (block for block in part if not store.journal.has(block, stack))
        with closing(_read_ahead(reader(stack), todo, frozen)) as batches:
            for blocks, tiles in batches:
                labels, scores = frozen(tiles, probabilities)
                for i, block in enumerate(blocks):
                    store.write(block, labels[i], None if scores is None else scores[i], stack)
                    done += 1
                    yield Progress(done, total, "blocks", "segment")


def _read_ahead(
    reader: Reader, blocks: Iterator[Block], frozen: Frozen
) -> Generator[tuple[list[Block], Window], None, None]:
    """Yield batches of blocks with their windows (B, C, Z, Y, X); the next batch is read meanwhile."""

    def load() -> tuple[list[Block], Window] | None:
        taken = list(islice(blocks, frozen.batch))
        return (taken, np.stack([reader.window(block) for block in taken])) if taken else None

    with ThreadPoolExecutor(1, "read-ahead") as pool:
        ahead = pool.submit(load)
        while (loaded := ahead.result()) is not None:
            ahead = pool.submit(load)
            yield loaded


class Reader:
    """Reads windows as network input, keeping the sections at hand while neighbouring windows need them.

    Parameters
    ----------
    volume : Volume
    intensity : Intensity
    limit_bytes : int
        Sections larger than this are read window by window.
    """

    def __init__(self, volume: Volume, intensity: Intensity, limit_bytes: int) -> None:
        self._volume = volume
        self._intensity = intensity
        self._limit = limit_bytes
        self._section_bytes = volume.nbytes // volume.shape[0]
        self._kept: tuple[tuple[int, int], npt.NDArray[np.generic]] | None = None

    def window(self, block: Block) -> Window:
        """Return the block's input (C, Z, Y, X) float32, mirrored where it leaves the volume."""
        indices = [mirrored(*span, n) for span, n in zip(block.window, self._volume.shape, strict=False)]
        spans = [(int(i.min()), int(i.max()) + 1) for i in indices]
        raw = self._read(spans)
        for axis, (index, (low, high)) in enumerate(zip(indices, spans, strict=True)):
            if len(index) != high - low or (len(index) > 1 and index[0] > index[1]):
                raw = np.take(raw, index - low, axis)
        image = self._intensity.standardise(raw)
        return image[None] if image.ndim == 3 else np.moveaxis(image, -1, 0)

    def _read(self, spans: list[tuple[int, int]]) -> npt.NDArray[np.generic]:
        depth, rows, columns = spans
        if (depth[1] - depth[0]) * self._section_bytes > self._limit:
            return self._volume.read(tuple(slice(*span) for span in spans))
        if self._kept is None or self._kept[0] != depth:
            self._kept = depth, self._volume.read((slice(*depth),))
        return self._kept[1][:, slice(*rows), slice(*columns)]


def check(net: SegmentationNet, volume: Volume, outputs: Outputs, classes: int, batch: int | None) -> None:
    """Raise a ConfigError or DataError if this network cannot segment this volume."""
    if not 2 <= classes <= 255:
        raise ConfigError(f"{classes} classes cannot be written as uint8 labels; use 2 to 255, background included.")
    if net.classes != classes and (net.classes, classes) != (1, 2):
        raise ConfigError(f"The network tells {net.classes} classes apart but {classes} were asked for.")
    if batch is not None and batch < 1:
        raise ConfigError(f"batch {batch} is not positive; use 1 or more, or leave it out.")
    if not (outputs.labels or outputs.probabilities):
        raise ConfigError("Neither labels nor probabilities are asked for; choose at least one output.")
    channels = volume.shape[3] if len(volume.shape) == 4 else 1
    if channels != net.in_channels:
        raise DataError(
            f"{volume.name} has {channels} channel(s) but the network takes {net.in_channels}; "
            "give a volume (Z, Y, X, C) with that many channels."
        )


def probe_size(net: SegmentationNet, context: Footprint) -> tuple[int, ...]:
    """Return a small legal input size, to measure the memory of a pass with."""
    sizes = (4 * d + 2 * m + r for d, m, r in zip(context.divisor, context.margin, context.residue, strict=True))
    return tuple(sizes)[3 - net.ndim :]


def _digest(*settings: object) -> str:
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


__all__ = ["Outputs", "Prediction", "predict"]
