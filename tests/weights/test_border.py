"""Border map against one scipy distance transform per object."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_em_da.errors import DataError
from napari_em_da.weights import weight_map

ROW = np.array([[1, 1, 1, 0, 0, 2, 2, 2, 2]])


def expected_term(ids, w_0=10.0, sigma=5.0):
    out = np.zeros(ids.shape)
    for term, section in zip(out, ids, strict=True):
        distances = [ndimage.distance_transform_edt(section != k) for k in np.unique(section) if k]
        if len(distances) > 1:
            first, second = np.sort(distances, axis=0)[:2]
            term[:] = w_0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))
    return out


def test_row_of_two_cells():
    term = weight_map(ROW, "border", class_balance=False)
    np.testing.assert_allclose(term, [[0, 0, 0, 8.352702, 8.352702, 0, 0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize(("gap", "expected"), [(1, 9.231163), (3, 7.261490), (9, 1.353353), (19, 0.003355)])
def test_known_sums_of_distances(gap, expected):
    # In a gap of n pixels d_1 + d_2 is n + 1 everywhere.
    row = np.array([[1] + [0] * gap + [2]])
    assert weight_map(row, "border", class_balance=False)[0, 1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("where", ["background", "all"])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint64])
def test_agrees_with_one_transform_per_object(rng, cells, where, dtype):
    ids = np.stack([ndimage.label(section == 0)[0] for section in cells]).astype(dtype)
    ids[ids == 3] = 1  # one object in two pieces
    ids[ids > 0] += 300
    expected = expected_term(ids)
    if where == "background":
        expected[ids > 0] = 0
    found = weight_map(ids, "border", where=where, class_balance=False)
    np.testing.assert_allclose(found, expected, atol=1.1e-5)


def test_components_are_four_connected(cells):
    mask = cells == 0
    ids = np.stack([ndimage.label(section)[0] for section in mask])
    np.testing.assert_array_equal(
        weight_map(mask, "border", objects="components"), weight_map(ids, "border", ignore_index=None)
    )


@pytest.mark.parametrize("objects", [0, 1])
def test_no_neighbour_no_border(objects):
    ids = np.zeros((1, 16, 16), int)
    ids[0, :4] = objects
    assert not weight_map(ids, "border", class_balance=False).any()


def test_class_balance_is_inverse_frequency():
    ids = np.zeros((10, 10), int)
    ids[0] = 7
    weights = weight_map(ids, "border")
    assert weights[5, 5] == pytest.approx(100 / (2 * 90))
    assert weights[0, 0] == pytest.approx(100 / (2 * 10))


def test_ignored_label_that_is_an_object_is_refused():
    ids = np.array([[254, 254, 0, 255, 255, 0, 256]])
    with pytest.raises(DataError, match="ignore_index=None"):
        weight_map(ids, "border")
    assert weight_map(ids, "border", ignore_index=None)[0, 2] > 9
