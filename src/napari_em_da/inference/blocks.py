"""Cut a volume into blocks so that block results equal those of the whole image: pure geometry, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from napari_em_da.errors import ConfigError

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Footprint:
    """What a network needs to know of its surroundings, per axis (z, y, x), in pixels.

    Attributes
    ----------
    divisor : windows start on multiples of it
    halo : context on each side, a multiple of ``divisor``; unused where there is a margin
    margin : what the output lacks on each side of the input
    residue : sizes of legal outputs, modulo ``divisor`` (0 for same-padded networks)
    """

    divisor: Triple
    halo: Triple
    margin: Triple = (0, 0, 0)
    residue: Triple = (0, 0, 0)


@dataclass(frozen=True)
class Block:
    """One piece of work: the network sees ``window`` and its result is kept inside ``core``.

    ``window`` are (start, stop) of the network's input per axis; they may leave the volume, where it continues
    mirrored. ``inner`` cuts the core out of the network's output.
    """

    index: Triple
    core: tuple[slice, slice, slice]
    inner: tuple[slice, slice, slice]
    window: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Grid:
    """All blocks of a volume; cores tile it without overlap and all windows have one size.

    Parameters
    ----------
    shape : (z, y, x) of the volume
    core : (z, y, x) step between cores, multiples of ``footprint.divisor``
    footprint : Footprint

    Notes
    -----
    A same-padded network sees the whole image as mirrored at the lower right to a multiple of its divisor and
    zero-padded by its own convolutions. Windows are therefore clipped at that extent, never mirrored beyond it.
    Windows at a border are moved inwards rather than cut, which keeps one size for batching.
    """

    shape: Triple
    core: Triple
    footprint: Footprint

    @property
    def counts(self) -> Triple:
        """Number of blocks per axis."""
        return triple(-(-n // step) for n, step in zip(self.shape, self.core, strict=True))

    @property
    def output(self) -> Triple:
        """Size of the network's output per block."""
        return triple(self._output(axis) for axis in range(3))

    @property
    def input(self) -> Triple:
        """Size of the network's input per block."""
        return triple(n + 2 * m for n, m in zip(self.output, self.footprint.margin, strict=True))

    @property
    def cost(self) -> int:
        """Input voxels of all blocks together."""
        return prod(self.counts) * prod(self.input)

    def __len__(self) -> int:
        return prod(self.counts)

    def __iter__(self) -> Iterator[Block]:
        """Yield all blocks, sections first."""
        axes = [[self._place(axis, i) for i in range(count)] for axis, count in enumerate(self.counts)]
        for index in product(*(range(count) for count in self.counts)):
            places = [axes[axis][i] for axis, i in enumerate(index)]
            core, inner, window = zip(*places, strict=True)
            yield Block(triple(index), core, inner, window)

    def _output(self, axis: int) -> int:
        n, step = self.shape[axis], self.core[axis]
        fp = self.footprint
        if fp.margin[axis]:
            return step + fp.residue[axis]
        extent = self._extent(axis)
        needs = (
            min(extent, (i + 1) * step + fp.halo[axis]) - max(0, i * step - fp.halo[axis]) for i in range(-(-n // step))
        )
        return max(needs)

    def _extent(self, axis: int) -> int:
        return round_up(self.shape[axis], self.footprint.divisor[axis])

    def _place(self, axis: int, i: int) -> tuple[slice, slice, tuple[int, int]]:
        """Return core, inner and window of the i-th block along one axis."""
        fp, step, size = self.footprint, self.core[axis], self._output(axis)
        low, high = i * step, min(self.shape[axis], (i + 1) * step)
        margin = fp.margin[axis]
        start = low if margin else min(max(0, low - fp.halo[axis]), self._extent(axis) - size)
        return slice(low, high), slice(low - start, high - start), (start - margin, start + size + margin)

    def smaller(self) -> Grid | None:
        """Return the grid with the core halved along its longest axis that can shrink, or None."""
        halves = triple(
            min(step, round_up(-(-min(step, n) // 2), d))
            for step, n, d in zip(self.core, self.shape, self.footprint.divisor, strict=True)
        )
        candidates = [replace(self, core=_swap(self.core, a, halves[a])) for a in range(3)]
        candidates = [grid for grid in candidates if prod(grid.input) < prod(self.input)]
        return min(candidates, key=lambda grid: prod(grid.input), default=None)


def plan(shape: Triple, footprint: Footprint, *, limit: float, flat: bool, tile_px: int | None = None) -> Grid:
    """Choose the blocks with the least work whose input has at most ``limit`` voxels.

    Parameters
    ----------
    shape : (z, y, x)
    footprint : Footprint
    limit : float
        Input voxels that fit at once. Whole sections, which need no halo, are taken when they fit.
    flat : bool
        Whether the network sees single sections.
    tile_px : int, optional
        In-plane input size; chosen from ``limit`` if absent.

    Raises
    ------
    ConfigError
        If ``tile_px`` cannot work, with sizes that do.
    """
    whole = [round_up(n, d) for n, d in zip(shape, footprint.divisor, strict=True)]
    core = triple([1 if flat else whole[0], *(_core_of_tile(a, whole[a], footprint, tile_px) for a in (1, 2))])
    grid = Grid(shape, core, footprint)
    free = (0,) if tile_px is not None else (0, 1, 2)
    while prod(grid.input) > limit:
        finer = [_split(grid, axis) for axis in free]
        finer = [g for g in finer if prod(g.input) < prod(grid.input)]
        if not finer:
            break  # the smallest there is: the run itself finds out whether it fits
        grid = min(finer, key=lambda g: g.cost if prod(g.input) <= limit else g.cost * prod(g.input) / limit)
    return grid


def _split(grid: Grid, axis: int) -> Grid:
    """Return the grid with at least one more block along ``axis``."""
    n, divisor, step = grid.shape[axis], grid.footprint.divisor[axis], grid.core[axis]
    smaller = round_up(-(-n // (grid.counts[axis] + 1)), divisor)
    if smaller >= step:
        smaller = max(divisor, step - divisor)
    return replace(grid, core=_swap(grid.core, axis, smaller))


def _core_of_tile(axis: int, whole: int, fp: Footprint, tile_px: int | None) -> int:
    """Return the core step that an in-plane input of ``tile_px`` leaves on one axis."""
    divisor, halo, margin, residue = fp.divisor[axis], fp.halo[axis], fp.margin[axis], fp.residue[axis]
    if tile_px is None or (not margin and tile_px >= whole):
        return whole
    spare = 2 * margin + residue if margin else 2 * halo
    step = tile_px - spare
    if step < divisor:
        raise ConfigError(
            f"tile_px {tile_px} leaves nothing inside the {spare // 2} px of context on each side; "
            f"use at least {spare + divisor}."
        )
    if step % divisor:
        low = spare + step // divisor * divisor
        raise ConfigError(
            f"tile_px {tile_px} does not fit the network's grid of {divisor}; use {low} or {low + divisor}."
        )
    return min(step, whole)


def find_residue(
    accepts: Callable[[tuple[int, ...]], bool], divisor: tuple[int, ...], margin: tuple[int, ...]
) -> tuple[int, ...]:
    """Return, per axis, legal output sizes modulo ``divisor`` of a network that loses ``margin`` on each side."""
    for offset in product(*(range(1, d + 1) for d in divisor)):
        if accepts(tuple(4 * d + 2 * m + o for o, d, m in zip(offset, divisor, margin, strict=True))):
            return tuple(o % d for o, d in zip(offset, divisor, strict=True))
    raise ConfigError(f"The network accepts no tile on its own grid of {divisor} with a margin of {margin}.")


def mirrored(start: int, stop: int, length: int) -> npt.NDArray[np.intp]:
    """Return indices below ``length`` for positions start…stop of the axis continued by mirroring at its ends."""
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    index = np.abs(np.arange(start, stop)) % period
    return np.where(index < length, index, period - index)


def round_up(n: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is at least ``n``."""
    return -(-n // step) * step


def triple(values: Iterable[int]) -> Triple:
    """Return three ints (z, y, x) as a tuple of known length."""
    z, y, x = values
    return int(z), int(y), int(x)


def _swap(values: Triple, axis: int, value: int) -> Triple:
    return triple(value if a == axis else v for a, v in enumerate(values))
