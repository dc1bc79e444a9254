from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay

from napari_em_da.augment.piecewise_affine import folds, interpolate_nodes, piecewise_affine_displacement

SHAPE = (46, 61)  # nodes of a 4 x 4 grid fall on pixels: every 15 rows, every 20 columns


def test_strength_zero_is_the_identity() -> None:
    assert not piecewise_affine_displacement(SHAPE, 0.0, np.random.default_rng(0)).any()


def test_nodes_map_exactly() -> None:
    nodes = np.random.default_rng(1).normal(0, 5, (4, 4, 2)).astype(np.float32)
    field = interpolate_nodes(nodes, SHAPE)
    np.testing.assert_allclose(field[:, ::15, ::20], nodes.transpose(2, 0, 1), atol=1e-5)


def test_affine_node_displacement_is_reproduced() -> None:
    matrix, shift = np.array([[0.03, -0.05], [0.08, 0.02]]), np.array([0.3, -0.7])
    at = np.stack(np.meshgrid(np.linspace(0, 1, 4), np.linspace(0, 1, 4), indexing="ij"), axis=-1)
    field = interpolate_nodes(at @ matrix.T + shift, SHAPE)
    pixels = np.stack(np.meshgrid(np.linspace(0, 1, 46), np.linspace(0, 1, 61), indexing="ij"), axis=-1)
    np.testing.assert_allclose(field, (pixels @ matrix.T + shift).transpose(2, 0, 1), atol=1e-6)


def test_agrees_with_scipy_on_the_same_triangles() -> None:
    """A shear makes the Delaunay triangulation of a regular grid unique; linear interpolation does not feel it."""
    shear = np.array([[1.0, 0.4], [0.4, 1.0]])  # the upper-right to lower-left diagonal becomes the shorter one
    nodes = np.random.default_rng(2).normal(0, 3, (4, 4, 2))
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0), indexing="ij"), axis=-1).reshape(-1, 2)
    pixels = np.stack(np.meshgrid(np.linspace(0, 3, 46), np.linspace(0, 3, 61), indexing="ij"), axis=-1)
    linear = LinearNDInterpolator(Delaunay(grid @ shear.T), nodes.reshape(-1, 2))
    expected = linear((pixels * (1 - 1e-9) + 1.5e-9) @ shear.T).transpose(2, 0, 1)
    np.testing.assert_allclose(interpolate_nodes(nodes, SHAPE), expected, atol=1e-4)


def test_a_fold_is_found() -> None:
    nodes = np.zeros((4, 4, 2))
    assert not folds(nodes, SHAPE)
    nodes[1, 1] = (16, 0)  # past its neighbour 15 rows below
    assert folds(nodes, SHAPE)


@pytest.mark.parametrize("strength", [0.05, 0.5, 5.0])
def test_draws_never_fold(strength: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        field = piecewise_affine_displacement(SHAPE, strength, rng)
        assert not folds(field[:, ::15, ::20].transpose(1, 2, 0), SHAPE)


def test_node_spread_and_determinism() -> None:
    def draw(seed: int) -> np.ndarray:
        return piecewise_affine_displacement(SHAPE, 0.03, np.random.default_rng(seed))

    np.testing.assert_array_equal(draw(4), draw(4))
    spread = np.std([draw(seed)[:, ::15, ::20] for seed in range(200)], axis=(0, 2, 3))
    np.testing.assert_allclose(spread, 0.03 * np.array(SHAPE), rtol=0.05)
