"""Cores tile the volume once, windows hold their context, and mirroring is numpy's."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import pytest

from napari_em_da.inference.blocks import Footprint, Grid, mirrored, plan, round_up

FLAT = Footprint((1, 16, 16), (0, 112, 112))
SOLID = Footprint((4, 8, 8), (12, 24, 24))
VALID = Footprint((1, 16, 16), (0, 0, 0), (0, 92, 92), (0, 4, 4))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 500, 333), (2, 1000, 47), (37, 129, 260)])
@pytest.mark.parametrize("limit", [1.0, 3e5, 1e9])
@pytest.mark.parametrize("context", [FLAT, SOLID, VALID])
def test_cores_tile_the_volume_and_windows_hold_their_context(
    shape: tuple[int, int, int], limit: float, context: Footprint
) -> None:
    grid = plan(shape, context, limit=limit, flat=context is not SOLID)
    seen = np.zeros(shape, np.uint8)
    for block in itertools.islice(grid, 3000):
        seen[block.core] += 1
        for axis in range(3):
            low, high = block.window[axis]
            margin, halo = context.margin[axis], context.halo[axis]
            core, inner, step = block.core[axis], block.inner[axis], context.divisor[axis]
            assert high - low == grid.input[axis]
            assert (low + margin) % step == 0
            assert inner.start == core.start - low - margin and inner.stop - inner.start == core.stop - core.start
            if not margin:
                extent = round_up(shape[axis], step)
                assert 0 <= low <= max(0, core.start - halo) and min(extent, core.stop + halo) <= high <= extent
    assert seen.max() == 1
    assert len(grid) > 3000 or seen.min() == 1


def test_whole_sections_when_they_fit_and_least_work_when_not() -> None:
    whole = plan((9, 1000, 1500), FLAT, limit=4e6, flat=True)
    assert len(whole) == 9 and whole.input == (1, 1008, 1504)
    tiled = plan((1, 8000, 8000), FLAT, limit=4e6, flat=True)
    assert prod(tiled.input) <= 4e6
    assert tiled.cost < 1.35 * 8000**2


def test_smaller_grids_nest_in_coarser_ones_until_nothing_is_left() -> None:
    grid: Grid | None = plan((1, 512, 512), FLAT, limit=1e9, flat=True)
    sizes = []
    while grid is not None:
        sizes.append(prod(grid.input))
        grid = grid.smaller()
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 240 * 240


@pytest.mark.parametrize("length", [1, 2, 5, 300])
def test_mirroring_is_that_of_numpy(length: int) -> None:
    expected = np.pad(np.arange(length), (37, 60), mode="reflect")
    np.testing.assert_array_equal(mirrored(-37, length + 60, length), expected)
