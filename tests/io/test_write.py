from __future__ import annotations

import shutil
from collections import namedtuple

import numpy as np
import pytest

from napari_em_da import io
from napari_em_da.errors import DataError, ResourceError
from napari_em_da.volume import Volume

Usage = namedtuple("Usage", "total used free")


class Failing:
    """An array whose third section fails to read."""

    shape, dtype, ndim = (5, 64, 64), np.dtype(np.uint8), 3

    def __init__(self, error):
        self.error = error

    def __getitem__(self, key):
        if key[0].start == 3:
            raise self.error
        return np.random.default_rng(0).integers(0, 255, (1, 64, 64), dtype=np.uint8)


def small():
    return Volume.from_array(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), voxel_nm=(4, 4, 4))


def test_existing_files_stay_unless_overwriting(tmp_path):
    path = tmp_path / "v.tif"
    path.write_bytes(b"precious")
    with pytest.raises(DataError, match="exists already"):
        small().save(path)
    assert path.read_bytes() == b"precious"
    small().save(path, overwrite=True)
    np.testing.assert_array_equal(Volume.open(path).read(), small().read())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), OSError("disk gone"), DataError("bad")])
def test_a_failed_write_leaves_nothing_behind(tmp_path, error):
    path = tmp_path / "v.tif"
    with pytest.raises(type(error)):
        Volume.from_array(Failing(error)).save(path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"precious")
    with pytest.raises(type(error)):
        Volume.from_array(Failing(error)).save(path, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_cancelled_generator_leaves_nothing_behind(tmp_path):
    def job():
        with io.replacing(tmp_path / "x.tif") as temporary:
            temporary.write_bytes(b"half")
            yield
            temporary.write_bytes(b"whole")

    running = job()
    next(running)
    running.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "store"
    for text in ("old", "new"):
        with io.replacing(target, overwrite=True) as temporary:
            temporary.mkdir()
            (temporary / text).write_text(text)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    assert [p.name for p in target.iterdir()] == ["new"]


def test_a_volume_can_be_saved_onto_itself(tmp_path):
    path = small().save(tmp_path / "v.tif")
    Volume.open(path).save(path, overwrite=True)
    np.testing.assert_array_equal(Volume.open(path).read(), small().read())


def test_a_full_disk_is_noticed_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10, 10, 5_000_000))
    volume = Volume.from_array(np.random.default_rng(0).integers(0, 255, (10, 1024, 1024), dtype=np.uint8))
    with pytest.raises(ResourceError, match=r"0\.01 GB.*0\.01 GB free|0\.01 GB.*0\.00 GB free"):
        volume.save(tmp_path / "v.tif")
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_unknown_suffix_and_folder_in_the_way(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        small().save(tmp_path / "no" / "v.tif")
    with pytest.raises(DataError, match=r"'\.png'.*\.tif"):
        small().save(tmp_path / "v.png")
    (tmp_path / "d.tif").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        small().save(tmp_path / "d.tif", overwrite=True)


def test_open_lists_why_no_reader_fits(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="does not begin like a TIFF"):
        Volume.open(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="does not exist"):
        Volume.open(tmp_path / "nothing.tif")
