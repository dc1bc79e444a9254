from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.project import Edited, LabelClass, LayerRecord, Lock, LockHeld, LockLost, Project, files, schema
from napari_em_da.project.files import file_name
from napari_em_da.volume import Volume


class Killed(BaseException):
    """The process died here."""


@pytest.fixture
def project(tmp_path):
    made = Project.create(tmp_path / "p")
    yield made
    made.close()


def reopened(project):
    project.close()
    return Project.open(project.folder)


def labels(shape=(3, 40, 50)):
    return np.random.default_rng(0).integers(1, 9, shape).astype(np.uint16)


def test_a_new_project(tmp_path, project, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Project.is_project(tmp_path / "p") and not Project.is_project(tmp_path)
    stored = json.loads((tmp_path / "p" / "project.json").read_text())
    assert stored["schema"] == 1 and stored["pages"] == {} and stored["layers"] == []
    assert stored["created"] == project.created
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["p", "project.json", "project.lock"]
    project.close()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["p", "project.json"]
    with pytest.raises(ConfigError, match="open it"):
        Project.create(tmp_path / "p")
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        Project.create(tmp_path / "q")
    with pytest.raises(DataError, match="is no project"):
        Project.open(tmp_path / "q")
    assert Project.open(tmp_path / "p" / "project.json").folder == tmp_path / "p"


def test_pages_come_back(project, tmp_path):
    values = {
        "steps": 100, "rate": 1e-3, "on": True, "none": None, "classes": (1, 2), "nested": {"a": [{"b": "ü"}]},
        "run": project.folder / "runs" / "unet", "image": tmp_path / "image.tif", "numpy": np.float32(0.5),
    }  # fmt: skip
    project.pages.set("Train", values)
    project.page = "Train"
    values["classes"] = [1, 2]
    for found in (project, reopened(project)):
        assert found.pages.get("Train") == values
        assert found.pages.get("Adapt") == {}
        assert found.pages.names() == ["Train"] and found.page == "Train"
    found.pages.get("Train")["nested"]["a"].append("mine")  # a copy
    assert found.pages.get("Train") == values


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, r"Train\.a\.b is a set"),
        (float("nan"), "is nan"),
        ({1: 2}, "keys must be text"),
        ({"$path": "x"}, "keys must be text"),
        (LabelClass(value=1), "model_dump"),
    ],
)
def test_what_is_no_json_is_refused(project, value, words):
    with pytest.raises(ConfigError, match=words):
        project.pages.set("Train", {"a": {"b": value}})
    assert project.pages.get("Train") == {}


def test_a_moved_folder(project, tmp_path):
    inside, outside = project.folder / "runs" / "a", tmp_path / "data" / "v.tif"
    project.pages.set("Adapt", {"run": inside, "text": str(inside), "image": outside, "other": str(outside), "w": "p"})
    store = project.start_strokes(LayerRecord(name="fix", kind="labels"), labels())
    assert store.path == project.folder / "layers" / "fix.zarr"
    project.close()
    moved = Path(shutil.move(project.folder, tmp_path / "elsewhere"))
    found = Project.open(moved)
    new = moved / "runs" / "a"
    assert found.pages.get("Adapt") == {
        "run": new, "text": str(new), "image": outside, "other": str(outside), "w": "p",
    }  # fmt: skip
    assert found.layer("fix").strokes == moved / "layers" / "fix.zarr"
    np.testing.assert_array_equal(found.strokes("fix").load(), labels())


def test_layers_come_back(project, tmp_path):
    image = LayerRecord(
        name="EM", kind="image", role="target image", path=tmp_path / "em.tif", voxel_nm=(40, 4, 4),
        axis_labels=("z", "y", "x"), units=("nm",) * 3, scale=np.array([40.0, 4, 4]), translate=(0, 1.5, 0),
        locked=True, display={"opacity": 0.5},
    )  # fmt: skip
    truth = LayerRecord(name="GT", kind="labels", classes=(LabelClass(value=1, name="mito", colour="#ff0000"),))
    project.remember(image)
    project.remember(truth)
    project.remember(truth.model_copy(update={"role": "ground truth"}))
    found = reopened(project)
    assert found.layers() == [image, truth.model_copy(update={"role": "ground truth"})]
    assert found.layer("EM").scale == (40, 4, 4)
    found.rename("EM", "EM 2")
    with pytest.raises(ConfigError, match="already"):
        found.rename("GT", "EM 2")
    found.forget("GT")
    assert [layer.name for layer in reopened(found).layers()] == ["EM 2"]
    with pytest.raises(ConfigError, match="'GT'"):
        found.layer("GT")


def test_missing_files_are_told_per_layer(project, tmp_path):
    array = labels()
    for name in ("here", "gone", "base"):
        Volume.from_array(array).save(tmp_path / f"{name}.tif")
        project.remember(LayerRecord(name=name, kind="labels", path=tmp_path / f"{name}.tif"))
    painted = project.start_strokes(project.layer("base"), Volume.open(tmp_path / "base.tif").data)
    shown = painted.load()
    shown[0, 0, 0] = 99
    painted.save(shown)
    project.start_strokes(LayerRecord(name="lost", kind="labels"), array)
    project.start_strokes(LayerRecord(name="whole", kind="labels", path=tmp_path / "gone.tif"), array)
    (tmp_path / "gone.tif").unlink()
    (tmp_path / "base.tif").rename(tmp_path / "base2.tif")
    shutil.rmtree(project.layer("lost").strokes)
    found = reopened(project)
    why = found.missing()
    assert list(why) == ["gone", "base", "lost"]  # "whole" needs no other file
    assert all(sentence.count(". ") == 0 and sentence.endswith(".") for sentence in why.values())
    assert "gone.tif" in why["gone"] and "say where it is now" in why["gone"]
    assert "its strokes are safe" in why["base"]
    assert "put that folder back" in why["lost"]
    np.testing.assert_array_equal(found.strokes("whole").load(), array)
    with pytest.raises(DataError, match="say where it is now"):
        found.strokes("base")
    found.remember(found.layer("base").model_copy(update={"path": tmp_path / "base2.tif"}))  # the remedy
    expected = array.copy()
    expected[0, 0, 0] = 99
    np.testing.assert_array_equal(found.strokes("base").load(), expected)


def test_one_damaged_record_does_not_hide_the_others(project):
    project.remember(LayerRecord(name="good", kind="image"))
    project.close()
    path = project.folder / "project.json"
    stored = json.loads(path.read_text())
    stored["layers"].insert(0, {"name": "bad", "kind": "points"})
    path.write_text(json.dumps(stored))
    found = Project.open(project.folder)
    assert [layer.name for layer in found.layers()] == ["good"]
    assert "'bad'" in found.missing()["bad"] and "kind" in found.missing()["bad"]


@pytest.mark.parametrize("shape", [(3, 40, 50), (40, 50)])
def test_strokes_of_a_project(project, tmp_path, shape):
    array = labels(shape)
    record = LayerRecord(name="a/b: c*", kind="labels", voxel_nm=(40, 4, 4))
    store = project.start_strokes(record, array)
    array[..., 3, 4] = 77
    store.save(array)
    project.remember(record)  # the viewer knows nothing of the store's folder
    with pytest.raises(ConfigError, match="has strokes already"):
        project.start_strokes(record, array)
    np.testing.assert_array_equal(reopened(project).strokes("a/b: c*").load(), array)
    volume = Volume.from_array(array)
    volume.save(tmp_path / "v.tif")
    lazy = Volume.open(tmp_path / "v.tif").data
    lazy = lazy[0] if len(shape) == 2 else lazy
    only = project.start_strokes(LayerRecord(name="big", kind="labels", path=tmp_path / "v.tif"), lazy)
    assert only.edits_only
    shown = only.load()
    shown[..., 0, 0] = 88
    only.save(shown)
    array[..., 0, 0] = 88
    assert not project.start_strokes(LayerRecord(name="no file", kind="labels"), da.from_array(array)).edits_only
    again = reopened(project).strokes("big").load()
    assert isinstance(again, Edited)
    np.testing.assert_array_equal(again, array)


def test_forgotten_strokes_stay_on_the_disk(project):
    record = LayerRecord(name="Fix", kind="labels")
    first = project.start_strokes(record, labels())
    project.forget("Fix")
    second = project.start_strokes(record, labels())
    assert first.path.is_dir() and second.path.name == "Fix-2.zarr"


def test_names_of_runs_and_exports(project):
    assert [project.new_run("DANN run").name for _ in range(3)] == ["DANN-run", "DANN-run-2", "DANN-run-3"]
    assert project.new_run("dann RUN").name == "dann-RUN-4"  # where case does not count
    assert list((project.folder / "runs" / "DANN-run").iterdir()) == []
    assert project.new_export("mito.tif") == project.folder / "exports" / "mito.tif"
    project.new_export("mito.tif").touch()
    assert project.new_export("mito.tif").name == "mito-2.tif"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("../../etc", "etc"), ("", "unnamed"), ("con", "con-"), ("a" * 99, "a" * 60), ("Zellkörper 1", "Zellkörper-1")],
)
def test_file_names(name, expected):
    assert file_name(name) == expected


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_killed_while_writing_project_json(project, monkeypatch, failing):
    project.pages.set("Train", {"steps": 1})
    real = files.write_bytes

    def torn(path, data, *, sync):
        path.write_bytes(data[: len(data) // 2])
        raise Killed

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(files, "write_bytes", torn)
        else:
            patch.setattr(os, failing, die)
        with contextlib.suppress(Killed):
            project.pages.set("Train", {"steps": 2})
    assert files.write_bytes is real
    found = reopened(project)
    assert found.pages.get("Train") == {"steps": 1}
    found.pages.set("Train", {"steps": 3})
    assert reopened(found).pages.get("Train") == {"steps": 3}


def test_killed_while_creating(tmp_path, monkeypatch):
    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with contextlib.suppress(Killed):
            Project.create(tmp_path / "p")
    (tmp_path / "p" / "project.lock").write_text(lock_of(dead_process()))  # the dead one could not clean up
    Project.create(tmp_path / "p").close()


def test_full_disk(project, monkeypatch):
    project.pages.set("Train", {"steps": 1})
    before = (project.folder / "project.json").read_bytes()

    def write(path, data, *, sync):
        path.write_bytes(data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", write)
        with pytest.raises(ResourceError, match=r"project\.json needs up to 0\.000 MB.* free\. Free some space"):
            project.pages.set("Train", {"steps": 2})
        with pytest.raises(ResourceError):
            project.save()
    assert (project.folder / "project.json").read_bytes() == before
    assert not list(project.folder.glob(".*"))
    project.save()
    assert reopened(project).pages.get("Train") == {"steps": 2}


def test_a_folder_that_went_away(project):
    shutil.rmtree(project.folder)
    with pytest.raises(ResourceError, match="Check that the folder is there"):
        project.pages.set("Train", {"steps": 2})


def test_a_later_version_is_not_touched(project):
    project.close()
    path = project.folder / "project.json"
    path.write_text(json.dumps({"schema": 7, "version": "9.9", "pages": 3}))
    with pytest.raises(ConfigError, match=r"napari-em-da 9\.9 \(schema 7\).*\(schema 1\)\. Update"):
        Project.open(project.folder)
    assert json.loads(path.read_text())["version"] == "9.9"


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "1"}', '{"schema": 0}', '{"schema": 1, "layers": {}}', "\xff"])
def test_damaged_project_json(project, text):
    project.close()
    (project.folder / "project.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"project\.json"):
        Project.open(project.folder)


def test_migration_keeps_a_copy(project, monkeypatch):
    project.pages.set("Learn", {"steps": 5})
    project.close()
    old = (project.folder / "project.json").read_bytes()

    def rename(data):
        return {**data, "pages": {("Train" if k == "Learn" else k): v for k, v in data["pages"].items()}}

    monkeypatch.setattr(schema, "MIGRATIONS", (rename, lambda data: {**data, "new": True}))
    with monkeypatch.context() as patch:  # killed between the copy and the new file
        real, calls = os.replace, []

        def replace(*args):
            calls.append(args)
            if len(calls) == 2:
                raise Killed
            real(*args)

        patch.setattr(os, "replace", replace)
        with contextlib.suppress(Killed):
            Project.open(project.folder)
    assert (project.folder / "project.json").read_bytes() == old
    found = Project.open(project.folder)
    assert found.pages.get("Train") == {"steps": 5}
    assert (project.folder / "project.json.v1").read_bytes() == old
    stored = json.loads((project.folder / "project.json").read_text())
    assert stored["schema"] == 3 and stored["new"] is True
    monkeypatch.setattr(schema, "MIGRATIONS", ())
    with pytest.raises(ConfigError, match="schema 3"):
        reopened(found)


def test_unknown_keys_stay(project):
    project.close()
    path = project.folder / "project.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "note": "mine"}))
    Project.open(project.folder).page = "Data"
    assert json.loads(path.read_text())["note"] == "mine"


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def lock_of(pid, host=None, **more):
    return json.dumps({"pid": pid, "host": host or socket.gethostname(), "since": 0, "token": "theirs", **more})


def test_one_viewer_at_a_time(project):
    other = Project.open(project.folder)  # looking is free
    project.pages.set("Train", {"steps": 1})
    with pytest.raises(ConfigError, match="this program itself"):
        other.lock()
    with pytest.raises(ConfigError, match="this program itself"):
        other.pages.set("Train", {"steps": 2})
    assert project.lock() is project.lock()
    project.close()
    with other.lock():
        assert other.pages.get("Train") == {"steps": 1}  # read again with the lock
        other.pages.set("Train", {"steps": 3})
    project.lock()
    assert project.pages.get("Train") == {"steps": 3}


def test_a_lost_lock_ends_writing(project):
    store = project.start_strokes(LayerRecord(name="fix", kind="labels"), labels())
    other = Project.open(project.folder)
    other.lock(take_over=True)
    with pytest.raises(ConfigError, match="this program itself"):
        store.save(labels() + 1)
    with pytest.raises(ConfigError, match="this program itself"):
        project.page = "Data"
    project.close()
    assert other.lock().held


def test_a_lost_project_stays_lost(project):
    project.pages.set("Train", {"steps": 1})
    assert project.lost is None
    other = Project.open(project.folder)
    other.lock(take_over=True)
    assert "taken over by this program itself" in project.lost
    other.pages.set("Train", {"steps": 2})
    other.close()
    with pytest.raises(LockLost, match="another program, which has closed it again"):
        project.pages.set("Train", {"steps": 3})  # never by itself: the other one has saved something since
    assert Project.open(project.folder).pages.get("Train") == {"steps": 2}
    project.close()
    project.pages.set("Train", {"steps": 4})  # given back and taken anew, it is read again first
    assert project.lost is None


def test_a_lock_file_that_only_went_is_written_again(project):
    project.page = "Data"
    (project.folder / "project.lock").unlink()
    assert project.lost is None
    project.page = "Train"
    assert Project.open(project.folder).page == "Train" and (project.folder / "project.lock").exists()


def test_who_holds_a_project(project):
    path = project.folder / "project.lock"
    assert project.lock().holder().state == "here"
    project.close()
    assert Lock(project.folder).holder() is None
    path.write_text(lock_of(dead_process()))
    assert Lock(project.folder).holder().state == "dead"
    path.write_text(lock_of(os.getppid()))
    assert Lock(project.folder).holder().state == "alive"
    path.write_text(lock_of(7, "microscope-pc", since=1.7e9))
    with pytest.raises(LockHeld) as caught:
        project.lock()
    holder = caught.value.holder
    assert (holder.pid, holder.host, holder.state) == (7, "microscope-pc", "unknown")
    assert "process 7 on microscope-pc since 2023-11-1" in holder.who


def test_a_living_process_keeps_its_lock(project):
    project.close()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    path = project.folder / "project.lock"
    path.write_text(lock_of(child.pid))
    with pytest.raises(ConfigError, match=f"process {child.pid} on {socket.gethostname()}.*take the project over"):
        project.lock()
    path.write_text(lock_of(child.pid, started=1.0))  # the number belongs to another process now
    with project.lock():
        pass
    path.write_text(lock_of(child.pid))
    child.communicate(b"\n")
    with project.lock():  # dead
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_another_host_keeps_its_lock(project):
    project.close()
    (project.folder / "project.lock").write_text(lock_of(dead_process(), "microscope-pc"))
    with pytest.raises(ConfigError, match="on microscope-pc"):
        project.page = "Data"
    project.lock(take_over=True)
    project.page = "Data"


def test_a_lock_file_without_content(project):
    project.close()
    path = project.folder / "project.lock"
    path.touch()
    with pytest.raises(ConfigError, match="try again in 10 s"):
        project.lock()
    os.utime(path, (0, 0))
    with project.lock():
        assert sorted(p.name for p in project.folder.iterdir()) == ["project.json", "project.lock"]


def test_a_project_that_nobody_refers_to_is_free(project):
    project.close()
    other = Project.open(project.folder)
    other.lock()
    del other
    with project.lock():
        pass


def test_neither_torch_nor_a_viewer_is_needed():
    code = "import napari_em_da.project, sys; print(*{'torch', 'napari', 'qtpy', 'zarr', 'scipy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not out.stdout.split()
