"""Distance maps against scipy and the specification's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.weights import weight_map
from napari_em_da.weights._edt import squared_distance
from napari_em_da.weights._gaussian import smooth


@pytest.fixture
def stripe():
    labels = np.zeros((201, 201), np.uint8)
    labels[:, 99:102] = 1
    return labels


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 53), (64, 400)])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.0005])
def test_squared_distance_is_exact(rng, shape, share):
    target = rng.random(shape) < share
    target[rng.integers(shape[0]), rng.integers(shape[1])] = True
    expected = np.rint(ndimage.distance_transform_edt(~target) ** 2)
    np.testing.assert_array_equal(squared_distance(target), expected)


@pytest.mark.parametrize("shape", [(1, 60, 70), (1, 200, 5), (9, 12, 30)])
@pytest.mark.parametrize("sigmas", [(0, 10, 10), (2.5, 3, 10)])
def test_smoothing_agrees_with_scipy(rng, shape, sigmas):
    image = rng.random(shape).astype(np.float32)
    expected = ndimage.gaussian_filter(image.astype(float), sigmas, mode="reflect", truncate=4)
    smooth(image, sigmas)
    np.testing.assert_allclose(image, expected, atol=2e-6)


def test_decay_at_known_distances(stripe):
    weights = weight_map(stripe, "distance", mode="decay", floor=0)
    np.testing.assert_allclose(
        weights[100, [101, 102, 106, 111, 121]], [1, 0.995012, 0.882497, 0.606531, 0.135335], atol=1e-6
    )
    assert (np.diff(weights[100, 101:]) < 0).all()


def test_inside_edt_at_known_columns(stripe):
    weights = weight_map(stripe, "distance", mode="inside_edt", scale="none")
    expected = [0.159187, 0.140570, 0.096793, 0.021759, 0.001808]
    np.testing.assert_allclose(weights[100, [100, 105, 110, 120, 130]], expected, atol=1e-6)
    assert weight_map(stripe, "distance", mode="inside_edt").max() == pytest.approx(1)


def test_decay_agrees_with_scipy_and_floor_is_affine(cells):
    weights = weight_map(cells, "distance")
    for section, labels in zip(weights, cells, strict=True):
        d = ndimage.distance_transform_edt(labels != 1) if (labels == 1).any() else np.full(labels.shape, np.inf)
        expected = np.where(labels == 255, 0, 0.1 + 0.9 * np.exp(-(d**2) / 200))
        np.testing.assert_allclose(section, expected, atol=1e-6)


def test_boundary_is_heaviest(cells):
    weights = weight_map(cells, "distance", mode="decay")
    assert weights[cells == 1].min() >= weights[cells != 1].max()


def test_inverted_agrees_with_scipy(cells):
    labels = cells[0]
    d = np.minimum(ndimage.distance_transform_edt(labels != 1), 30)
    expected = ndimage.gaussian_filter(1 - d / 30, 10)
    np.testing.assert_allclose(weight_map(labels, "distance", mode="inverted"), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["decay", "inside_edt", "inverted"])
@pytest.mark.parametrize("spacing", [None, (50, 5, 5)])
def test_sections_without_and_full_of_boundary(mode, spacing):
    options = {"mode": mode, "spacing": spacing}
    empty = weight_map(np.zeros((1, 20, 20), np.uint8), "distance", floor=0.25, **options)
    full = weight_map(np.ones((1, 20, 20), np.uint8), "distance", **options)
    np.testing.assert_array_equal(empty, np.float32(0.25))
    np.testing.assert_allclose(full, 1, atol=1e-6)


def test_voxel_size_makes_it_three_dimensional(cells):
    spacing = (40.0, 5.0, 6.0)
    d = ndimage.distance_transform_edt(cells != 1, sampling=spacing)
    expected = np.where(cells == 255, 0, np.exp(-(d**2) / (2 * 50**2)))
    found = weight_map(cells, "distance", sigma=50, floor=0, spacing=spacing)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    d = np.minimum(d, 90) / 90
    expected = ndimage.gaussian_filter(1 - d, [30 / s for s in spacing])
    found = weight_map(cells, "distance", mode="inverted", sigma=30, d_clip=90, spacing=spacing, ignore_index=None)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_several_boundary_classes(cells):
    merged = np.where(np.isin(cells, (1, 3)), 1, np.where(cells == 255, 255, 0))
    found = weight_map(cells, "distance", boundary=(1, 3))
    np.testing.assert_array_equal(found, weight_map(merged, "distance", boundary=1))
