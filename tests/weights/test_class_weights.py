"""Class-wise maps: fixed ratio and inverse frequency."""

from __future__ import annotations

import numpy as np
import pytest

from napari_em_da.weights import weight_map


@pytest.fixture
def tenth():
    labels = np.zeros((10, 10), np.uint8)
    labels[0] = 1
    return labels


def test_ratio(tenth):
    plain = weight_map(tenth, "ratio", ratio=5)
    assert (plain[0, 0], plain[1, 0]) == (5, 1)
    scaled = weight_map(tenth, "ratio", ratio=5, scale="mean1")
    assert (scaled[0, 0], scaled[1, 0]) == (pytest.approx(3.571429), pytest.approx(0.714286))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_inverse_frequency(tenth, dtype):
    weights = weight_map(tenth.astype(dtype), "frequency")
    assert (weights[0, 0], weights[1, 0]) == (pytest.approx(5), pytest.approx(0.555556, abs=1e-6))
    assert weights.mean() == pytest.approx(1)


def test_median_frequency():
    labels = np.repeat([0, 1, 2], (60, 30, 10))[None]
    weights = weight_map(labels, "frequency", median_freq=True)
    np.testing.assert_allclose(weights[0, [0, 60, 90]], [0.5, 1, 3], rtol=1e-6)


def test_cap_and_absent_classes():
    labels = np.zeros((1, 1000), np.uint8)
    labels[0, 0] = 1
    assert np.ptp(weight_map(labels, "frequency", max_ratio=None)) > 400
    capped = weight_map(labels, "frequency")
    assert capped.max() / capped.min() == pytest.approx(50)
    given = weight_map(labels, "frequency", counts={0: 50, 1: 0, 2: 50})
    assert (given[0, 0], given[0, 1]) == (0, 1)


def test_ignored_pixels_do_not_count(tenth):
    tenth[1:6] = 255
    weights = weight_map(tenth, "frequency")
    assert weights[0, 0] == pytest.approx(50 / 20)
    assert not weights[1:6].any()
