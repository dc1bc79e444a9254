from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr

from napari_em_da.errors import DataError
from napari_em_da.volume import Volume


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint64", "float32"])
@pytest.mark.parametrize("shape", [(20, 30, 300), (20, 30, 30, 3)])
def test_round_trip(tmp_path, dtype, shape):
    array = (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    saved = Volume.from_array(array, voxel_nm=(50, 4.6, 3.3)).save(tmp_path / "v.zarr")
    opened = Volume.open(saved)
    assert (opened.voxel_nm, opened.dtype, opened.shape) == ((50, 4.6, 3.3), dtype, shape)
    np.testing.assert_array_equal(opened.read(), array)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).read((slice(3, 19),)), array[3:19])
    np.testing.assert_array_equal(opened.data[2:5, ::2].compute(), array[2:5, ::2])


def test_overwriting_replaces_the_whole_folder(tmp_path):
    for value in (1, 2):
        array = np.full((4 // value, 5, 6), value, np.uint8)
        Volume.from_array(array).save(tmp_path / "v.zarr", overwrite=True)
    opened = Volume.open(tmp_path / "v.zarr")
    np.testing.assert_array_equal(opened.read(), array)
    assert opened.voxel_nm is None
    assert [p.name for p in tmp_path.iterdir()] == ["v.zarr"]


def test_overwriting_spares_a_folder_that_is_no_volume(tmp_path):
    (tmp_path / "v.zarr").mkdir()
    (tmp_path / "v.zarr" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not a volume"):
        Volume.from_array(np.ones((2, 3, 4))).save(tmp_path / "v.zarr", overwrite=True)
    assert (tmp_path / "v.zarr" / "thesis.txt").read_text() == "precious"


def test_groups_and_damaged_metadata_are_refused(tmp_path):
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    with pytest.raises(DataError, match="zarr group"):
        Volume.open(tmp_path / "group.zarr")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text('{"node_type": "array"')
    with pytest.raises(DataError, match=r"bad\.zarr"):
        Volume.open(tmp_path / "bad.zarr")


def test_format_2_arrays_open(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    stored = zarr.create_array(str(tmp_path / "old.zarr"), shape=array.shape, dtype=array.dtype, zarr_format=2)
    stored[:] = array
    np.testing.assert_array_equal(Volume.open(tmp_path / "old.zarr").read(), array)
