from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_em_da.errors import DataError
from napari_em_da.volume import Intensity, Volume, check_voxel_size, spread

RNG = np.random.default_rng


def test_sections_and_booleans_are_wrapped():
    assert Volume.from_array(np.zeros((4, 5))).shape == (1, 4, 5)
    mask = Volume.from_array(da.from_array(np.eye(4, dtype=bool)))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask.read()[0], np.eye(4))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5, 6), (0, 4, 4)])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(DataError, match="it|axes"):
        Volume.from_array(np.zeros(shape))


def test_complex_arrays_are_refused():
    with pytest.raises(DataError, match="complex64"):
        Volume.from_array(np.zeros((2, 3, 4), np.complex64))


@pytest.mark.parametrize("wrap", [np.asarray, da.from_array, lambda a: a.astype(">i2")])
def test_read_gives_a_fresh_native_array(wrap):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    volume = Volume.from_array(wrap(array))
    region = (slice(1, 3), slice(0, 2), slice(2, 5))
    block = volume.read(region)
    np.testing.assert_array_equal(block, array[region])
    assert block.dtype.isnative and block.flags.c_contiguous and block.flags.owndata
    block[:] = -1
    np.testing.assert_array_equal(volume.read(), array)
    np.testing.assert_array_equal(volume.data.compute(), array)


def test_fingerprint_depends_on_values_shape_and_type():
    array = RNG(0).integers(0, 255, (5, 20, 30), dtype=np.uint8)
    changed = array.copy()
    changed[2, 3, 4] ^= 1
    same = [Volume.from_array(a).fingerprint for a in (array, array.copy(), da.from_array(array))]
    other = [Volume.from_array(a).fingerprint for a in (changed, array.reshape(5, 30, 20), array.astype(np.int16))]
    assert len(set(same)) == 1
    assert len({*same, *other}) == 4


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "float32", "float64"])
def test_intensity_standardises_every_type(dtype):
    raw = 1000 * RNG(0).normal(30, 5, (8, 64, 64)) if dtype != "uint8" else RNG(0).normal(120, 20, (8, 64, 64))
    raw = np.clip(raw, 0, np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else None).astype(dtype)
    raw[0, 0, 0] = raw.max()
    out = Volume.from_array(raw).intensity.standardise(raw)
    assert out.dtype == np.float32
    assert abs(out.mean()) < 0.02 and abs(out.std() - 1) < 0.02


def test_intensity_quantiles_agree_with_numpy():
    raw = RNG(1).normal(0, 1, (4, 100, 100)).astype(np.float32)
    found = Volume.from_array(raw).intensity
    low, high = np.percentile(raw, (0.1, 99.9))
    inside = raw[(raw >= low) & (raw <= high)]
    assert len(found.quantiles) == 257
    np.testing.assert_allclose(found.quantiles[64], np.quantile(inside, 0.25), rtol=1e-5)
    np.testing.assert_allclose((found.mean, found.std), (inside.mean(), inside.std()), rtol=1e-4, atol=1e-6)


def test_contrast_survives_a_large_offset():
    raw = (1_500_000_000 + RNG(0).integers(0, 100, (4, 64, 64))).astype(np.int32)
    out = Volume.from_array(raw).intensity.standardise(raw)
    assert len(np.unique(out)) > 90


def test_rare_values_do_not_empty_the_range():
    raw = np.zeros((4, 64, 64), np.int32)
    raw[0, 0, 0] = 7
    assert Volume.from_array(raw).intensity.quantiles[-1] == 7


def test_constant_and_nan_volumes_are_refused():
    with pytest.raises(DataError, match="constant"):
        _ = Volume.from_array(np.full((2, 9, 9), 5)).intensity
    raw = RNG(0).random((2, 9, 9)).astype(np.float32)
    raw[1, 2, 3] = np.nan
    with pytest.raises(DataError, match="1 of 162"):
        _ = Volume.from_array(raw).intensity
    with pytest.raises(DataError, match="1 of 162 voxels are NaN"):
        Intensity(tuple(np.linspace(0, 1, 257)), 0.5, 0.3).standardise(raw)


@pytest.mark.parametrize("size", [(1, 2), (1, 2, 0), (1, 2, float("nan")), (1, -2, 3)])
def test_wrong_voxel_sizes_are_refused(size):
    with pytest.raises(DataError, match="three positive numbers"):
        check_voxel_size(size)


def test_spread_reaches_both_ends():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 64) == [0, 1, 2]


def test_voxel_size_and_name_can_be_given_on_opening(tmp_path):
    path = Volume.from_array(np.zeros((2, 9, 9), np.uint8), voxel_nm=(4, 4, 4)).save(tmp_path / "v.tif")
    opened = Volume.open(path, voxel_nm=(50, 5, 5), name="mine")
    assert (opened.voxel_nm, opened.name, opened.path) == ((50, 5, 5), "mine", path)
