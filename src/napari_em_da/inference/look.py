"""Segment a part of a volume exactly as it will be in the whole: the same blocks, the same intensities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from napari_em_da.device import free_memory
from napari_em_da.errors import ResourceError
from napari_em_da.inference.blocks import Block, Grid, triple
from napari_em_da.inference.network import TileTooLarge
from napari_em_da.inference.predict import Reader, Ready
from napari_em_da.inference.sections import interleaved, of_sections
from napari_em_da.volume import Intensity, Volume


@dataclass(frozen=True, eq=False)
class Piece:
    """What one block says of one section.

    Attributes
    ----------
    z : int
        Section of the volume.
    rows, columns : slice
        Where in the section.
    labels : (Y, X) uint8
        Class indices.
    scores : (classes, Y, X) float32, or None
    """

    z: int
    rows: slice
    columns: slice
    labels: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float32] | None


def look(
    ready: Ready,
    volume: Volume,
    intensity: Intensity,
    box: tuple[slice, slice, slice],
    *,
    section_step: float = 1.0,
    probabilities: bool = False,
) -> Iterator[tuple[int, int, list[Piece]]]:
    """Yield (blocks done, blocks in all, pieces) for every block of the whole volume's grid that meets a box.

    Parameters
    ----------
    ready : Ready
    volume : Volume
        (Z, Y, X) at the network's pixel size.
    intensity : Intensity
        Of the whole volume.
    box : (z, y, x) slices with start and stop
    section_step : float
        As in `predict`.
    probabilities : bool
        Also give the scores.

    Raises
    ------
    ResourceError
        If not even the smallest tile fits into the memory.

    Notes
    -----
    Pieces are not cut to the box. Sections that several interleaved stacks hold come from the last of them, which is
    the one that the whole segmentation keeps.
    """
    stacks = interleaved(volume.shape[0], section_step if ready.net.ndim == 3 else 1.0)
    grid: Grid | None = ready.grid(triple((len(stacks[0]), *volume.shape[1:3])))
    while grid is not None:
        try:
            yield from _blocks(ready, volume, intensity, box, stacks, grid, probabilities)
            return
        except TileTooLarge:
            grid = grid.smaller()
    raise ResourceError("This network does not fit into the memory even with its smallest tile; use device='cpu'.")


def _blocks(
    ready: Ready,
    volume: Volume,
    intensity: Intensity,
    box: tuple[slice, slice, slice],
    stacks: Sequence[npt.NDArray[np.intp]],
    grid: Grid,
    probabilities: bool,
) -> Iterator[tuple[int, int, list[Piece]]]:
    wanted: list[dict[int, int]] = [{} for _ in stacks]  # per stack: position in it, and the section of the volume
    for z in range(box[0].start, box[0].stop):
        stack = max(n for n, sections in enumerate(stacks) if z in sections)
        wanted[stack][int(np.searchsorted(stacks[stack], z))] = z
    todo: list[tuple[int, Block]] = []
    for number, sections in enumerate(stacks):
        if wanted[number]:
            part = replace(grid, shape=triple((len(sections), *grid.shape[1:])))
            todo += [(number, block) for block in part if _meets(block, wanted[number], box)]
    limit = free_memory(torch.device("cpu")) // 4
    readers: dict[int, Reader] = {}
    step, done = ready.frozen.batch, 0
    while done < len(todo):
        number = todo[done][0]
        batch = [block for n, block in todo[done : done + step] if n == number]
        if number not in readers:
            readers[number] = Reader(of_sections(volume, stacks[number]), intensity, limit)
        tiles = np.stack([readers[number].window(block) for block in batch])
        labels, scores = ready.frozen(tiles, probabilities)
        pieces: list[Piece] = []
        for i, block in enumerate(batch):
            pieces += _pieces(block, wanted[number], labels[i], None if scores is None else scores[i])
        done += len(batch)
        yield done, len(todo), pieces


def _meets(block: Block, wanted: dict[int, int], box: tuple[slice, slice, slice]) -> bool:
    depth, rows, columns = block.core
    inside = all(c.start < b.stop and c.stop > b.start for c, b in ((rows, box[1]), (columns, box[2])))
    return inside and any(depth.start <= index < depth.stop for index in wanted)


def _pieces(
    block: Block, wanted: dict[int, int], labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32] | None
) -> Iterator[Piece]:
    depth, rows, columns = block.core
    _, inner_rows, inner_columns = block.inner
    for index in range(depth.start, depth.stop):
        if index in wanted:
            here = (index - depth.start + block.inner[0].start, inner_rows, inner_columns)
            some = None if scores is None else scores[(slice(None), *here)]
            yield Piece(wanted[index], rows, columns, labels[here], some)
