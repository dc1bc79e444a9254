"""Diffusion map against the specification's numbers and a scipy convolution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.weights import weight_map
from napari_em_da.weights.diffusion import diffused

LAPLACIAN = np.array([[1, 2, 1], [2, -12, 2], [1, 2, 1]]) / 12


@pytest.fixture
def half_plane():
    labels = np.ones((31, 31), np.uint8)
    labels[:, 15:] = 0
    return labels


def test_half_plane(half_plane):
    assert diffused(half_plane == 0, 1, 0.2, 0.98)[15, 14] == pytest.approx(0.065333, abs=1e-6)
    raw = diffused(half_plane == 0, 50, 0.2, 0.98)[15, 11:16]
    np.testing.assert_allclose(raw, [0.066089, 0.144496, 0.292167, 0.553663, 1], atol=2e-6)
    weights = weight_map(half_plane, "diffusion", pairs=[(0, 1)], class_balance=False, floor=0)
    assert weights[15, 14] == 25
    assert weights[15, 13] == pytest.approx(6.515157, abs=1e-4)
    assert not weights[:, :13].any()
    assert not weights[:, 15:].any()


def test_small_hole_is_boosted():
    source = np.ones((31, 31), bool)
    source[13:18, 13:18] = False
    assert diffused(source, 50, 0.2, 0.98)[15, 15] == pytest.approx(0.444895, abs=2e-6)


@pytest.mark.parametrize(("wrap", "mode"), [(False, "reflect"), (True, "wrap")])
def test_steps_agree_with_scipy(rng, wrap, mode):
    source = rng.random((17, 23)) < 0.03
    u = source.astype(float)
    for _ in range(20):
        u = np.maximum(0, 0.98 * (u + 0.2 * ndimage.convolve(u, LAPLACIAN, mode=mode)))
        u[source] = 1
    np.testing.assert_allclose(diffused(source, 20, 0.2, 0.98, wrap), u, atol=1e-6)


def test_class_balance_and_added_floor():
    labels = np.array([[0] * 6 + [3] * 3 + [9]])
    weights = weight_map(labels, "diffusion", pairs=[])
    np.testing.assert_allclose(weights[0, [0, 6, 9]], np.array([1 / 6, 1 / 3, 1]) + 0.01, atol=1e-6)
    given = weight_map(labels, "diffusion", pairs=[], floor=0, counts={0: 100, 3: 10, 9: 50})
    np.testing.assert_allclose(given[0, [0, 6, 9]], [0.1, 1, 0.2], atol=1e-6)


@pytest.mark.parametrize("labels", [np.zeros((5, 5), int), np.ones((5, 5), int)])
def test_pair_without_targets_or_sources_adds_nothing(labels):
    assert not weight_map(labels, "diffusion", pairs=[(0, 1)], class_balance=False, floor=0).any()


def test_below_threshold_adds_nothing(half_plane):
    options = {"pairs": [(0, 1)], "class_balance": False, "floor": 0, "threshold": 0.9}
    assert not weight_map(half_plane, "diffusion", **options).any()


def test_symmetric_adds_the_swapped_pair(half_plane):
    options = {"class_balance": False, "floor": 0}
    both = weight_map(half_plane, "diffusion", pairs=[(0, 1), (1, 0)], **options)
    np.testing.assert_array_equal(weight_map(half_plane, "diffusion", pairs=[(0, 1)], symmetric=True, **options), both)
