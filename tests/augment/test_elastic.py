from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_em_da.augment.elastic import (
    coarse_displacement,
    elastic_displacement,
    interpolation_weights,
    smooth_nodes,
)


def test_node_spread_is_that_of_the_formula() -> None:
    nodes = smooth_nodes((400, 400), np.random.default_rng(0))
    assert nodes.std() == pytest.approx(5.72, rel=0.03)
    assert abs(nodes.mean()) < 0.1
    assert np.abs(nodes).max() < 20
    edge = np.concatenate([nodes[:, 0], nodes[:, -1], nodes[:, :, 0], nodes[:, :, -1]], axis=1)
    assert edge.std() == pytest.approx(5.72, rel=0.05)  # borders move as much as the middle


def test_nodes_are_gaussian_smoothed_noise() -> None:
    noise = np.random.default_rng(1).uniform(-1, 1, (2, 14, 15)).astype(np.float32)
    expected = 20 * gaussian_filter(noise, (0, 0.6, 0.6))[:, 2:-2, 2:-2]
    np.testing.assert_allclose(smooth_nodes((10, 11), np.random.default_rng(1)), expected, atol=1e-4)


def test_amplitude_zero_is_the_identity_and_seeds_repeat() -> None:
    assert not elastic_displacement((50, 60), np.random.default_rng(0), amplitude_px=0).any()
    first, again = (elastic_displacement((50, 60), np.random.default_rng(2)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (2, 50, 60) and first.dtype == np.float32


def test_field_is_piecewise_linear_between_nodes() -> None:
    field = elastic_displacement((201, 203), np.random.default_rng(3), spacing_px=40)
    bends = np.abs(np.diff(field, n=2, axis=2)).max(axis=(0, 1)) > 1e-3
    assert 5 <= bends.sum() <= 12  # one or two pixels at each of five or six nodes


def test_coarse_displacement_passes_through_its_nodes() -> None:
    field = coarse_displacement((41, 61), np.random.default_rng(4))
    nodes = np.random.default_rng(4).normal(0, 10, (2, 3, 3))
    np.testing.assert_allclose(field[:, ::20, ::30], nodes, atol=1e-4)
    draws = [coarse_displacement((3, 3), np.random.default_rng(seed)) for seed in range(400)]
    assert np.std(draws) == pytest.approx(10, rel=0.03)


def test_weights_sum_to_one_and_cubic_reproduces_parabolas() -> None:
    at = np.linspace(2, 6, 50)  # away from the ends
    for order in (1, 3):
        np.testing.assert_allclose(interpolation_weights(np.linspace(0, 8, 77), 9, order).sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(interpolation_weights(at, 9, order) @ np.arange(9), at, atol=1e-5)
    np.testing.assert_allclose(interpolation_weights(at, 9, 3) @ np.arange(9.0) ** 2, at**2, atol=1e-4)
    values = np.random.default_rng(5).random((1, 9)).astype(np.float32)
    linear = cv2.resize(values, (36, 1), interpolation=cv2.INTER_LINEAR)[0]
    centres = np.clip((np.arange(36) + 0.5) / 4 - 0.5, 0, 8)
    np.testing.assert_allclose(interpolation_weights(centres, 9, 1) @ values[0], linear, atol=1e-3)
