from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.project import Edited, StrokeStore, files, strokes
from napari_em_da.volume import Volume

Usage = namedtuple("Usage", "total used free")
SHAPES = [(3, 300, 520), (300, 520)]


class Killed(BaseException):
    """The process died here: nothing of ours may run as if it had survived."""


def labels(shape=SHAPES[0], dtype=np.uint16):
    return np.random.default_rng(0).integers(1, 9, shape).astype(dtype)


def chunk_hashes(folder):
    files_ = [p for p in (folder / "c").rglob("*") if p.is_file()]
    return {p.relative_to(folder / "c").as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in files_}


@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_as_a_plain_zarr(tmp_path, shape):
    array = labels(shape)
    store = StrokeStore.create(tmp_path / "a.zarr", array, voxel_nm=(40, 4, 4))
    np.testing.assert_array_equal(store.load(), array)
    np.testing.assert_array_equal(StrokeStore.open(tmp_path / "a.zarr").load(), array)
    plain = zarr.open_array(str(tmp_path / "a.zarr"), mode="r")  # what any other program sees
    assert plain.chunks == (1, 256, 256)[-len(shape) :]
    assert plain.metadata.zarr_format == 3
    assert plain.metadata.dimension_names == ("z", "y", "x")[-len(shape) :]
    np.testing.assert_array_equal(plain[...], array)
    assert plain.attrs["voxel_nm"] == [40, 4, 4]
    if len(shape) == 3:
        assert Volume.open(tmp_path / "a.zarr").voxel_nm == (40, 4, 4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("boxed", [True, False])
def test_only_chunks_that_differ_are_written(tmp_path, shape, boxed):
    array = labels(shape)
    store = StrokeStore.create(tmp_path / "a.zarr", array)
    before = chunk_hashes(store.path)
    array[..., 10:20, 250:260] = 77  # both sides of x = 256, in every section
    box = (slice(1, 2),) * (len(shape) - 2) + (slice(0, 300), slice(0, 520))
    if len(shape) == 3:
        array[0], array[2] = store.load()[0], store.load()[2]  # section 1 alone is painted
    assert store.save(array, box if boxed else None) == 2
    after = chunk_hashes(store.path)
    first = "1/" if len(shape) == 3 else ""
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {f"{first}0/0", f"{first}0/1"}
    np.testing.assert_array_equal(store.load(), array)
    assert store.save(array, None) == 0
    assert list((tmp_path / "a.journal").iterdir()) == []


def test_a_box_limits_what_is_looked_at(tmp_path):
    array = labels()
    old = array.copy()
    store = StrokeStore.create(tmp_path / "a.zarr", array)
    array[0, 0, 0], array[2, 299, 519] = 50, 50
    assert store.save(array, (slice(2, 3), slice(280, 400), slice(-5, None))) == 1
    old[2, 299, 519] = 50
    np.testing.assert_array_equal(store.load(), old)
    assert store.save(array, (slice(0, 0), slice(0, 0), slice(0, 0))) == 0


def test_erased_chunks_stay_erased(tmp_path):
    array = labels()
    store = StrokeStore.create(tmp_path / "a.zarr", array)
    array[1] = 0
    array[2, :256, :256] = 1  # 1 is no fill value
    store.save(array)
    np.testing.assert_array_equal(StrokeStore.open(store.path).load(), array)
    np.testing.assert_array_equal(zarr.open_array(str(store.path), mode="r")[...], array)


def bomb(monkeypatch, at):
    """Die in the ``at``-th step that touches the disk; a write then leaves half its bytes. Returns the steps so far."""
    steps = []

    def step():
        steps.append(None)
        return len(steps) == at

    def dying(name, owner, real):
        def call(*args, **kwargs):
            if step():
                raise Killed(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    def torn(path, data, *, sync):
        if step():
            path.write_bytes(data[: len(data) // 2])
            raise Killed("write")
        real_write(path, data, sync=sync)

    real_write = files.write_bytes
    monkeypatch.setattr(files, "write_bytes", torn)
    monkeypatch.setattr(strokes, "write_bytes", torn)
    for name, owner in (("replace", os), ("fsync", os), ("unlink", Path)):
        dying(name, owner, getattr(owner, name))
    return steps


@pytest.mark.parametrize("shape", SHAPES)
def test_killed_at_every_step_of_a_save(tmp_path, monkeypatch, shape):
    old = labels(shape)
    new = old.copy()
    new[..., 100:290, 200:300] = 99  # four chunks of each section
    StrokeStore.create(tmp_path / "start" / "a.zarr", old)
    seen = []
    for at in range(1, 200):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "start", folder)
        store = StrokeStore.open(folder / "a.zarr")
        with monkeypatch.context() as patch:
            steps = bomb(patch, at)
            with contextlib.suppress(Killed):
                store.save(new)
        if len(steps) < at:
            break
        found = StrokeStore.open(folder / "a.zarr").load()
        seen.append("new" if np.array_equal(found, new) else "old" if np.array_equal(found, old) else "mixed")
        np.testing.assert_array_equal(zarr.open_array(str(folder / "a.zarr"), mode="r")[...], found)
        assert list((folder / "a.journal").iterdir()) == []
        reopened = StrokeStore.open(folder / "a.zarr")
        reopened.save(new)
        np.testing.assert_array_equal(reopened.load(), new)
        shutil.rmtree(folder)
    else:
        pytest.fail("the save never ended")
    assert seen == sorted(seen, reverse=True) and set(seen) == {"old", "new"}  # old up to the journal's rename


def test_killed_while_recovering(tmp_path, monkeypatch):
    """A second crash, in the replay after the first one, loses nothing either."""
    old = labels()
    new = old.copy()
    new[:, 100:290, 200:300] = 99
    store = StrokeStore.create(tmp_path / "start" / "a.zarr", old)
    with monkeypatch.context() as patch:
        bomb(patch, 6)  # the entry is written, synced and renamed, and the first chunks are in the array
        with pytest.raises(Killed):
            store.save(new)
    assert len(list((tmp_path / "start" / "a.journal").iterdir())) == 1
    for at in range(1, 100):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "start", folder)
        with monkeypatch.context() as patch:
            steps = bomb(patch, at)
            with contextlib.suppress(Killed):
                StrokeStore.open(folder / "a.zarr")
        np.testing.assert_array_equal(StrokeStore.open(folder / "a.zarr").load(), new)
        if len(steps) < at:
            return
    pytest.fail("the replay never ended")


def test_killed_at_every_step_of_a_creation(tmp_path, monkeypatch):
    array = labels()
    for at in range(1, 100):
        path = tmp_path / str(at) / "a.zarr"
        with monkeypatch.context() as patch:
            steps = bomb(patch, at)
            with contextlib.suppress(Killed):
                StrokeStore.create(path, array)
        if path.exists():
            np.testing.assert_array_equal(StrokeStore.open(path).load(), array)
        else:
            np.testing.assert_array_equal(StrokeStore.create(path, array).load(), array)
        if len(steps) < at:
            return
    pytest.fail("the creation never ended")


def test_what_is_incomplete_in_the_journal_is_dropped(tmp_path):
    array = labels()
    StrokeStore.create(tmp_path / "a.zarr", array)
    journal = tmp_path / "a.journal"
    journal.mkdir()
    (journal / "00000001.entry").write_bytes(b"EMDAJ1\n" + b"\0" * 100)
    (journal / "00000002.entry").write_bytes(b"")
    (journal / ".00000003.entry.partial").write_bytes(b"EMDAJ1\n")
    np.testing.assert_array_equal(StrokeStore.open(tmp_path / "a.zarr").load(), array)
    assert list(journal.iterdir()) == []


WRITER = """
import sys
from pathlib import Path
import numpy as np
from napari_em_da.project import StrokeStore
store = StrokeStore.open(Path(sys.argv[1]))
array = store.load()
print("ready", flush=True)
for value in range(1, 10**6):
    array[:] = value  # every chunk of every section, so that any mix of two saves shows
    store.save(array)
    print(value, flush=True)
"""


def test_sigkill_in_the_middle_of_saves(tmp_path):
    """One save is one step: whatever the moment, all voxels are of the same save, and that is the last reported one."""
    path = tmp_path / "a.zarr"
    StrokeStore.create(path, np.ones((2, 300, 300), np.uint32))
    for i in range(4):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        for _ in range(2):
            child.stdout.readline()
        time.sleep(0.013 * i)
        os.kill(child.pid, signal.SIGKILL)
        reported = [int(line) for line in child.stdout.read().split()]
        child.wait()
        child.stdout.close()
        found = StrokeStore.open(path).load()
        assert (found == found[0, 0, 0]).all()
        last = max(reported, default=2)
        assert last <= found[0, 0, 0] <= last + 1


def no_room(monkeypatch, after, free=10**12):
    """Let ``after`` writes succeed, then the disk is full, whatever its size says."""
    count = []
    real = files.write_bytes

    def write(path, data, *, sync):
        count.append(None)
        if len(count) > after:
            path.write_bytes(data[:3])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data, sync=sync)

    monkeypatch.setattr(files, "write_bytes", write)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, free))


@pytest.mark.parametrize("after", range(4))
def test_full_disk(tmp_path, monkeypatch, after):
    old = labels()
    new = old.copy()
    new[0, 100:290, 200:300] = 99
    store = StrokeStore.create(tmp_path / "a.zarr", old)
    wanted = old if after == 0 else new  # from the first write on, the journal holds the save
    with monkeypatch.context() as patch:
        no_room(patch, after)
        with pytest.raises(ResourceError, match=r"needs up to 0\.\d+ MB.*1000\.00 GB free\. Free some space.*again"):
            store.save(new)
        np.testing.assert_array_equal(store.load(), wanted)
        shutil.copytree(tmp_path, tmp_path / "copy")  # the disk is still full when the viewer starts again
        copy = StrokeStore.open(tmp_path / "copy" / "a.zarr")
        np.testing.assert_array_equal(copy.load(), wanted)
    newer = new.copy()
    newer[0, 150, 250] = 5
    store.save(newer)
    np.testing.assert_array_equal(store.load(), newer)
    np.testing.assert_array_equal(StrokeStore.open(tmp_path / "a.zarr").load(), newer)


def test_a_disk_that_is_known_to_be_full_is_not_tried(tmp_path, monkeypatch):
    array = labels()
    store = StrokeStore.create(tmp_path / "a.zarr", array)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    array[0, 0, 0] = 50
    with pytest.raises(ResourceError, match=r"has 0\.001 MB free"):
        store.save(array)
    assert not (tmp_path / "a.journal").exists()
    assert store.load()[0, 0, 0] != 50


def test_full_disk_at_creation(tmp_path, monkeypatch):
    def write(path, data, *, sync):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(strokes, "write_bytes", write)
        with pytest.raises(ResourceError, match=r"a\.zarr needs up to 0\.936 MB"):  # 3 * 300 * 520 * 2 bytes
            StrokeStore.create(tmp_path / "a.zarr", labels())
    assert list(tmp_path.iterdir()) == []
    StrokeStore.create(tmp_path / "a.zarr", labels())


def lazy(kind, array, folder):
    if kind == "dask":
        return da.from_array(array, chunks=(1, 100, 100)[-array.ndim :])
    return zarr.create_array(str(folder / "base"), data=array, chunks=(3, 64, 64)[-array.ndim :])


@pytest.mark.parametrize("kind", ["dask", "zarr"])
@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_large_volume_only_edits_are_saved(tmp_path, kind, shape):
    array = labels(shape)
    base = lazy(kind, array, tmp_path)
    store = StrokeStore.create(tmp_path / "a.zarr", base, edits_only=True)
    shown = store.load()
    assert isinstance(shown, Edited) and shown.shape == shape and shown.dtype == array.dtype
    np.testing.assert_array_equal(shown, array)
    assert chunk_hashes(store.path) == {}
    where = tuple(np.array(i) for i in ([1, 1, 2], [5, 299, 7], [250, 519, 300]))[-len(shape) :]
    shown[where] = [50, 51, 52]
    shown[..., 100:102, 255:257] = 0
    expected = array.copy()
    expected[where] = [50, 51, 52]
    expected[..., 100:102, 255:257] = 0
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_array_equal(store.read(), array)  # not saved yet
    touched = {tuple(i // c for i, c in zip(v, (1, 256, 256)[-len(shape) :], strict=True)) for v in
               np.argwhere(expected != array).tolist()}  # fmt: skip
    assert store.save(shown) == len(touched)
    assert set(chunk_hashes(store.path)) == {"/".join(map(str, i)) for i in touched}
    assert store.save(shown) == 0
    np.testing.assert_array_equal(StrokeStore.open(store.path, base=base).load(), expected)
    np.testing.assert_array_equal(np.asarray(base[...]), array)  # what the user opened is untouched
    # a whole new array, such as the result of a filter, can be saved as edits too
    changed = expected.copy()
    changed[..., 299, 519] = 3
    store.save(da.from_array(changed))
    np.testing.assert_array_equal(StrokeStore.open(store.path, base=base).read(), changed)
    with pytest.raises(DataError, match="edits of another volume"):
        StrokeStore.open(store.path)
    with pytest.raises(DataError, match="give the volume that they were made on"):
        StrokeStore.open(store.path, base=np.zeros((4, 4, 4), np.uint8))


def test_a_box_of_painted_chunks(tmp_path):
    store = StrokeStore.create(tmp_path / "a.zarr", da.from_array(labels()), edits_only=True)
    shown = store.load()
    shown[:, 0, 0] = 99
    assert store.save(shown, (slice(1, 2), slice(0, 1), slice(0, 1))) == 1
    assert store.read()[:, 0, 0].tolist().count(99) == 1
    assert store.save(shown) == 2
    assert (store.read()[:, 0, 0] == 99).all()


@pytest.mark.parametrize(
    "key",
    [
        0, -1, (1, 2, 3), slice(None), (slice(2, None, -1), slice(10, 250, 7)), (Ellipsis, 5), (1, Ellipsis, -3),
        (np.array([0, 2, -1]), np.array([1, 299, 0]), np.array([0, 519, -520])), (slice(2, 1), 4),
        (0, np.array([[3, 4], [5, 6]]), np.array([[1, 300], [2, 2]])), (np.array([], int),) * 3, (1, slice(250, 260)),
        np.arange(3 * 300 * 520).reshape(3, 300, 520) % 1001 == 0,
    ],
)  # fmt: skip
def test_indexing_is_that_of_numpy(tmp_path, key):
    array = labels()
    store = StrokeStore.create(tmp_path / "a.zarr", da.from_array(array), edits_only=True)
    shown = store.load()
    np.testing.assert_array_equal(shown[key], array[key])
    shown[key] = 60
    array[key] = 60
    np.testing.assert_array_equal(shown, array)
    np.testing.assert_array_equal(shown[key], array[key])


@pytest.mark.parametrize("key", [3, (0, 300), (0, 0, 0, 0), (0, 1.5), (0, 0, -521)])
def test_wrong_indices(tmp_path, key):
    store = StrokeStore.create(tmp_path / "a.zarr", da.from_array(labels()), edits_only=True)
    with pytest.raises(IndexError):
        store.load()[key]


def test_painting_while_saving_is_not_lost(tmp_path, monkeypatch):
    store = StrokeStore.create(tmp_path / "a.zarr", da.from_array(labels()), edits_only=True)
    shown = store.load()
    shown[0, 0, 0] = 50
    real = os.replace

    def replace(*args):
        shown[0, 0, 1] = 51  # a stroke of the main thread, after the save has taken its copy
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        store.save(shown)
    assert store.read()[0, 0, 0] == 50 and store.read()[0, 0, 1] != 51
    assert store.save(shown) == 1
    assert store.read()[0, 0, 1] == 51


def test_a_layer_whose_type_was_converted(tmp_path):
    array = labels(dtype=np.uint8)
    store = StrokeStore.create(tmp_path / "a.zarr", array)
    wide = array.astype(np.int64)
    wide[0, 0, 0] = 200
    store.save(wide)
    assert store.dtype == np.uint8  # it fits
    wide[0, 0, 0] = 70_000
    store.save(wide)
    assert store.dtype == np.int64
    np.testing.assert_array_equal(StrokeStore.open(store.path).load(), wide)
    wide[1, 0, 0] = -1
    store.save(wide)
    assert StrokeStore.open(store.path).load()[1, 0, 0] == -1


def test_killed_at_every_step_of_widening(tmp_path, monkeypatch):
    old = labels((2, 60, 300), np.uint8)
    new = old.astype(np.int32)
    new[1, 5, 5] = 1000
    StrokeStore.create(tmp_path / "start" / "a.zarr", old)
    for at in range(1, 100):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "start", folder)
        store = StrokeStore.open(folder / "a.zarr")
        with monkeypatch.context() as patch:
            steps = bomb(patch, at)
            with contextlib.suppress(Killed):
                store.save(new)
        found = StrokeStore.open(folder / "a.zarr").load()
        assert np.array_equal(found, old) or np.array_equal(found, new)
        if len(steps) < at:
            assert np.array_equal(found, new)
            return
    pytest.fail("the save never ended")


def test_booleans_and_what_cannot_be_labels(tmp_path):
    mask = labels() > 4
    store = StrokeStore.create(tmp_path / "a.zarr", mask)
    assert store.dtype == np.uint8
    mask[0, 0, 0] ^= True
    assert store.save(mask) == 1
    np.testing.assert_array_equal(store.load(), mask)
    with pytest.raises(ConfigError, match="exists already"):
        StrokeStore.create(tmp_path / "a.zarr", mask)
    with pytest.raises(DataError, match="float64"):
        StrokeStore.create(tmp_path / "b.zarr", np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match=r"\(2, 3, 4, 5\)"):
        StrokeStore.create(tmp_path / "b.zarr", np.zeros((2, 3, 4, 5), int))
    with pytest.raises(DataError, match="start new strokes"):
        store.save(np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(DataError, match="put the folder back"):
        StrokeStore.open(tmp_path / "b.zarr")


def test_damaged_files_are_named(tmp_path):
    store = StrokeStore.create(tmp_path / "a.zarr", labels())
    (store.path / "c/1/0/0").write_bytes(b"no zstd")
    with pytest.raises(DataError, match="damaged"):
        StrokeStore.open(store.path).load()
    np.testing.assert_array_equal(store.read((slice(0, 1), slice(0, 9), slice(0, 9))), labels()[:1, :9, :9])
    (store.path / "zarr.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        StrokeStore.open(store.path)
