"""Entropy map against numbers worked out by hand, a brute-force count and its symmetries."""

from __future__ import annotations

import numpy as np
import pytest

from napari_em_da.errors import ConfigError
from napari_em_da.weights import weight_map


def bits(labels, **options):
    return weight_map(np.asarray(labels, np.uint8), "entropy", floor=0, normalise=False, **options)


def brute_force(labels, window, edge, ignore=255):
    pads = [size // 2 for size in window]
    how = {"shrink": {"constant_values": ignore}, "reflect": {"mode": "symmetric"}, "nearest": {"mode": "edge"}}
    padded = np.pad(labels, [(p, p) for p in pads], **how[edge])
    out = np.zeros(labels.shape)
    for index in np.ndindex(labels.shape):
        inside = padded[tuple(slice(i, i + size) for i, size in zip(index, window, strict=True))]
        counts = np.unique(inside[inside != ignore], return_counts=True)[1]
        p = counts / counts.sum()
        out[index] = -(p * np.log2(p)).sum() if labels[index] != ignore else 0
    return out


STEP = np.repeat([[0, 0, 0, 1, 1, 1, 1]], 7, axis=0)


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        ("shrink", [0, 0.811278, 0.970951, 0.970951, 0.721928, 0, 0]),
        ("reflect", [0, 0.721928, 0.970951, 0.970951, 0.721928, 0, 0]),
    ],
)
def test_step_between_two_classes(edge, expected):
    np.testing.assert_allclose(bits(STEP, edge=edge)[3], expected, atol=1e-6)


def test_single_pixel():
    labels = np.zeros((5, 5))
    labels[2, 2] = 1
    assert bits(labels)[2, 2] == pytest.approx(0.242292, abs=1e-6)
    assert bits(labels)[0, 0] == pytest.approx(0.503258, abs=1e-6)
    assert bits(labels, base=np.e)[2, 2] == pytest.approx(0.167944, abs=1e-6)


def test_four_quadrants():
    quadrants = np.kron([[0, 1], [2, 3]], np.ones((2, 2)))
    values = bits(quadrants)
    assert [values[0, 0], values[0, 1], values[1, 1]] == pytest.approx([1.836592, 1.918296, 2.0], abs=1e-6)


def test_counts_10_5_5_5():
    labels = np.repeat([[0], [0], [1], [2], [3]], 5, axis=1)
    assert bits(labels)[2, 2] == pytest.approx(1.921928, abs=1e-6)
    assert weight_map(labels, "entropy", floor=0)[2, 2] == pytest.approx(0.960964, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4, 5, 11, 12, 40])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize(
    ("window", "edge"),
    [((1, 5, 5), "shrink"), ((3, 3, 7), "nearest"), ((1, 33, 5), "shrink"), ((3, 15, 15), "reflect")],
)
def test_any_window_and_number_of_classes(rng, classes, dtype, window, edge):
    labels = (rng.integers(0, classes, (3, 9, 11)) * 5).astype(dtype)
    labels[rng.random(labels.shape) < 0.1] = 255
    found = weight_map(labels, "entropy", window=window, edge=edge, normalise=False, floor=0)
    np.testing.assert_allclose(found, brute_force(labels, window, edge), atol=2e-6)


@pytest.mark.parametrize("classes", [2, 4, 7, 60])
def test_symmetries_and_range(rng, classes):
    labels = np.kron(rng.integers(0, classes, (2, 8, 9)), np.ones((1, 4, 4))).astype(np.uint8)
    weights = weight_map(labels, "entropy", floor=0)
    assert weights.dtype == np.float32
    assert weights.min() == 0
    assert weights.max() <= 1
    renamed = rng.permutation(250).astype(np.uint8)[labels]
    np.testing.assert_allclose(weight_map(renamed, "entropy", floor=0), weights, atol=1e-6)
    np.testing.assert_allclose(
        weight_map(np.rot90(labels, axes=(1, 2)), "entropy", floor=0), np.rot90(weights, axes=(1, 2)), atol=1e-6
    )
    np.testing.assert_allclose(weight_map(labels[..., ::-1], "entropy", floor=0), weights[..., ::-1], atol=1e-6)


@pytest.mark.parametrize("value", [0, 3, 255])
def test_constant_labels_have_no_entropy(value):
    labels = np.full((2, 8, 8), value, np.uint8)
    assert not weight_map(labels, "entropy", floor=0).any()
    assert weight_map(labels, "entropy").max() == (0 if value == 255 else np.float32(0.1))


def test_normalised_by_classes_or_window():
    labels = np.arange(25).reshape(5, 5)
    assert weight_map(labels, "entropy")[2, 2] == pytest.approx(1)
    assert weight_map(labels, "entropy", classes=100)[2, 2] == pytest.approx(1)
    assert weight_map(STEP, "entropy", classes=4)[3, 2] == pytest.approx(0.970951 / 2, abs=1e-6)


@pytest.mark.parametrize("options", [{"window": (1, 4, 5)}, {"base": 1}, {"edge": "wrap"}])
def test_impossible_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        weight_map(STEP, "entropy", **options)
