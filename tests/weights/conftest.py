"""Shared label fields."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture
def cells(rng):
    """Voronoi cells with membranes: class 0 inside, 1 membrane, 2 to 6 in some cells, a corner not annotated."""
    shape = (4, 96, 120)
    labels = np.empty(shape, np.uint8)
    for section in labels:
        seeds = rng.integers(0, shape[1:], (30, 2))
        squares = ((np.indices(shape[1:])[:, None] - seeds.T[:, :, None, None]) ** 2).sum(0)
        first, second = np.sqrt(np.sort(squares, axis=0)[:2])
        section[:] = rng.choice([0, 0, 0, 2, 3, 4, 5, 6], 30)[squares.argmin(0)]
        section[second - first < 3] = 1
    labels[1] = 0  # no membrane
    labels[2, :9, :14] = 255
    return labels
