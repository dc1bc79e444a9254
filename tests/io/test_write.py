from __future__ import annotations

import shutil
import time
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


class Endless:
    """An array of many sections that are slow to read, and counted."""

    shape, dtype, ndim = (5000, 64, 64), np.dtype(np.uint8), 3

    def __init__(self):
        self.read = 0

    def __getitem__(self, key):
        self.read += 1
        time.sleep(0.002)
        return np.full((key[0].stop - key[0].start, 64, 64), self.read % 256, np.uint8)


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


@pytest.mark.parametrize("name", ["v.tif", "v.zarr"])
def test_writing_tells_how_far_it_is(tmp_path, name):
    volume = Volume.from_array(np.random.default_rng(0).integers(0, 255, (40, 32, 32), dtype=np.uint8))
    events = list(io.writing(volume, tmp_path / name))
    done = [event.done for event in events]
    assert done == sorted(done) and done[-1] == 40 and len(set(done)) > 2
    assert {(event.total, event.unit, event.stage) for event in events} == {(40, "sections", f"writing {name}")}
    np.testing.assert_array_equal(Volume.open(tmp_path / name).read(), volume.read())


@pytest.mark.parametrize("name", ["v.tif", "v.zarr"])
def test_writing_that_is_cancelled_stops_and_leaves_what_was_there(tmp_path, name):
    path = small().save(tmp_path / name)
    endless = Endless()
    running = io.writing(Volume.from_array(endless), path, overwrite=True)
    for event in running:
        if event.done:
            break
    running.close()
    read = endless.read
    time.sleep(0.1)
    assert endless.read == read < 2500, "and nothing reads on"
    np.testing.assert_array_equal(Volume.open(path).read(), small().read())
    assert [child.name for child in tmp_path.iterdir()] == [name]


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
