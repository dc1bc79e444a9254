"""What all kinds share: lazy equals in memory, scale, floor, ignored pixels, errors."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.weights import WEIGHTS, weight_map

CASES = [
    ("entropy", {}),
    ("entropy", {"window": (3, 5, 7), "edge": "reflect", "normalise": False}),
    ("distance", {}),
    ("distance", {"mode": "inside_edt"}),
    ("distance", {"mode": "inverted", "sigma": 3, "d_clip": 8}),
    ("distance", {"sigma": 12, "spacing": (40, 6, 6)}),
    ("border", {}),
    ("border", {"objects": "components", "where": "all"}),
    ("diffusion", {"exact": True}),
    ("diffusion", {"parity": True, "symmetric": True}),
    ("ratio", {}),
    ("frequency", {}),
]
TOLERANCE = {"distance": 4e-6}


@pytest.mark.parametrize("chunks", [(1, 96, 120), (3, 31, 120), (4, 96, 17), (2, 40, 50)])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_lazy_equals_in_memory_across_chunk_borders(cells, kind, options, chunks):
    lazy = weight_map(da.from_array(cells, chunks=chunks), kind, **options)
    assert isinstance(lazy, da.Array)
    assert lazy.dtype == np.float32
    assert lazy.chunks == da.from_array(cells, chunks=chunks).chunks
    expected = weight_map(cells, kind, **options)
    np.testing.assert_allclose(
        lazy.compute(), expected, atol=TOLERANCE.get(kind, 1e-7) * max(1, expected.max()), rtol=0
    )


def test_lazy_diffusion_with_the_default_halo(cells):
    lazy = weight_map(da.from_array(cells, chunks=(2, 30, 30)), "diffusion").compute()
    np.testing.assert_allclose(lazy, weight_map(cells, "diffusion"), atol=1e-5)


@pytest.mark.parametrize("scale", ["none", "max1", "mean1"])
@pytest.mark.parametrize("kind", WEIGHTS.names())
def test_scales_are_global(cells, kind, scale):
    weights = weight_map(cells, kind, scale=scale, floor=0)
    lazy = weight_map(da.from_array(cells, chunks=(1, 40, 60)), kind, scale=scale, floor=0).compute()
    np.testing.assert_allclose(lazy, weights, rtol=1e-4, atol=1e-4)
    valid = weights[cells != 255]
    assert {"none": 1, "max1": valid.max(), "mean1": valid.mean(dtype=float)}[scale] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", WEIGHTS.names())
def test_every_kind_keeps_shape_and_ignores(cells, kind):
    before = cells.copy()
    weights = weight_map(cells, kind)
    np.testing.assert_array_equal(cells, before)
    assert weights.shape == cells.shape
    assert weights.dtype == np.float32
    assert np.isfinite(weights).all()
    assert weights.min() >= 0
    assert not weights[cells == 255].any()
    section = weight_map(cells[2], kind)
    assert section.shape == cells[2].shape
    np.testing.assert_array_equal(section, weight_map(cells[2:3], kind)[0])
    lazy = weight_map(da.from_array(cells[2], chunks=50), kind).compute()
    np.testing.assert_allclose(lazy, section, atol=1e-4)


@pytest.mark.parametrize("kind", WEIGHTS.names())
@pytest.mark.parametrize("make", [np.zeros, np.ones, lambda shape, dtype: np.full(shape, 255, dtype)])
def test_uniform_labels_are_finite(kind, make):
    weights = weight_map(make((2, 9, 8), np.uint8), kind, scale="mean1")
    assert np.isfinite(weights).all()


def test_floor_after_scale(cells):
    raw = weight_map(cells, "entropy", floor=0)
    valid = cells != 255
    peak = raw[valid].max()
    np.testing.assert_allclose(weight_map(cells, "entropy", floor=0.3), np.maximum(raw, 0.3) * valid, atol=1e-6)
    affine = weight_map(cells, "entropy", floor=0.3, scale="max1")
    np.testing.assert_allclose(affine, (0.3 + 0.7 * raw / peak) * valid, atol=1e-6)


def test_negative_ignore_index():
    labels = np.array([[-1, 0, 1, 1]])
    assert weight_map(labels, "frequency", ignore_index=-1)[0, 0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "entropi"}, "Did you mean 'entropy'"),
        ({"kind": "distance", "sgima": 3}, "Did you mean 'sigma'"),
        ({"kind": "distance", "sigma": -1}, "sigma.*greater than 0"),
        ({"kind": "ratio", "scale": "max"}, "Did you mean 'max1'"),
        ({"kind": "ratio", "floor": -1}, "floor -1"),
        ({"kind": "distance", "floor": 1.5}, "floor 1.5"),
    ],
)
def test_wrong_options(arguments, message):
    with pytest.raises(ConfigError, match=message):
        weight_map(np.zeros((4, 4), int), **arguments)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 4), np.float32), "astype"),
        (np.zeros((4, 4, 4, 1), int), "4 axes"),
        (np.zeros((0, 4, 4), int), "empty"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(DataError, match=message):
        weight_map(labels, "entropy")


def test_bad_voxel_size():
    with pytest.raises(DataError, match="Voxel size"):
        weight_map(np.zeros((4, 4), int), "distance", spacing=(0, 1, 1))


@pytest.mark.parametrize("kind", WEIGHTS.names())
def test_options_have_help_and_defaults(kind):
    fields = WEIGHTS[kind].options_type.model_fields
    assert all(field.description for field in fields.values())
    assert WEIGHTS[kind].options({}) == WEIGHTS[kind].options_type()
