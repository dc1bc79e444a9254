"""What the plugin gives to napari: widgets, menus, readers, writers and preferences, as napari finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_em_da import Volume
from napari_em_da.errors import DataError
from napari_em_da.layers.reading import get_reader, read, write_image, write_labels
from napari_em_da.layers.settings import Settings, apply_settings, read_settings

ROOT = Path(__file__).parents[1]
PLACE = {"name": "x", "scale": (30.0, 8.0, 4.0), "units": ("nm",) * 3}


@pytest.fixture(scope="module")
def manifest() -> Any:
    npe2 = pytest.importorskip("npe2")
    return npe2.PluginManifest.from_file(ROOT / "src" / "napari_em_da" / "napari.yaml")


def test_the_guide_comes_first_and_each_page_alone(manifest: Any) -> None:
    names = [widget.display_name for widget in manifest.contributions.widgets]
    pages = ["EM data", "Weight maps", "Train", "Adapt", "Segment", "Refine", "Evaluate", "Correct"]
    assert names == ["EM DA", *pages]
    commands = {command.id: command.python_name for command in manifest.contributions.commands}
    homes = {commands[widget.command].split(":")[0] for widget in manifest.contributions.widgets}
    assert homes == {"napari_em_da._napari"}


def test_menus_say_what_the_commands_do(manifest: Any) -> None:
    menus = {menu: [item.command for item in items] for menu, items in manifest.contributions.menus.items()}
    names = {menu: [command.split(".")[1] for command in commands] for menu, commands in menus.items()}
    assert names == {
        "napari/layers/segment": ["guide", "train", "adapt", "segment"],
        "napari/layers/annotate": ["correct"],
        "napari/layers/measure": ["refine", "evaluate"],
        "napari/layers/filter": ["weight_maps"],
        "napari/layers/metadata": ["data"],
    }


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_layers_are_written_and_read_with_their_voxel_size(tmp_path: Path, suffix: str) -> None:
    labels = np.arange(24, dtype=np.int64).reshape(2, 3, 4)
    path = tmp_path / f"my labels{suffix}"
    assert write_labels(str(path), labels, PLACE) == [str(path)]
    saved = Volume.open(path)
    assert saved.voxel_nm == (30, 8, 4)
    assert saved.dtype == np.uint8, "the smallest type that holds them"
    reader = get_reader(str(path))
    assert reader is not None
    ((data, about, kind),) = reader(str(path))
    assert kind == "labels"
    np.testing.assert_array_equal(np.asarray(data), labels)
    assert tuple(about["scale"]) == (30, 8, 4)
    assert tuple(about["units"]) == ("nm",) * 3
    assert tuple(about["axis_labels"]) == ("z", "y", "x")

    image = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    path = tmp_path / f"raw{suffix}"
    write_image(str(path), image, PLACE)
    ((data, about, kind),) = read([str(path)])
    assert kind == "image"
    np.testing.assert_array_equal(np.asarray(data), image)
    assert tuple(about["scale"]) == (30, 8, 4)


def test_what_cannot_be_read_or_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("no picture")
    (tmp_path / "empty").mkdir()
    assert get_reader(str(tmp_path / "absent.tif")) is None
    assert get_reader(str(tmp_path / "empty")) is None
    assert get_reader([str(tmp_path / "notes.tif")] * 2) is None
    reader = get_reader(str(tmp_path / "notes.tif"))
    if reader is not None:
        with pytest.raises(DataError, match=r"notes\.tif"):
            reader(str(tmp_path / "notes.tif"))
    path = tmp_path / "x.tif"
    write_image(str(path), np.ones((2, 3, 4), np.uint8), {"name": "x"})
    before = path.read_bytes()
    with pytest.raises(DataError, match="colour"):
        write_image(str(path), np.zeros((2, 3, 4, 3), np.uint8), {"name": "x", "rgb": True})
    with pytest.raises(DataError, match="axes"):
        write_image(str(path), np.zeros((5, 2, 3, 4), np.uint8), {"name": "x"})
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"notes.tif", "empty", "x.tif"}


def test_napari_finds_reader_and_writer(tmp_path: Path, manifest: Any) -> None:
    npe2 = pytest.importorskip("npe2")
    plugins = npe2.PluginManager()
    plugins.register(manifest)
    path = str(tmp_path / "x.zarr")
    writer, found = plugins.get_writer(path, ["labels"])
    assert (writer.command, found) == ("napari-em-da.write_labels", path)
    assert plugins.get_writer(path, ["image"])[0].command == "napari-em-da.write_image"
    assert plugins.get_writer(path, ["points"])[0] is None
    assert [reader.command for reader in plugins.iter_compatible_readers([path])] == ["napari-em-da.get_reader"]


def test_preferences_have_the_defaults_of_the_manifest(manifest: Any) -> None:
    (group,) = manifest.contributions.configurations.values()
    given = {key: value.default for key, value in group.properties.items()}
    assert given == {"device": "auto", "threads": 0, "project_folder": "", "cache_mb": 256}
    assert Settings() == Settings(device="auto", threads=0, project_folder=None, cache_mb=256)


def test_preferences_are_read_from_napari(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = pytest.importorskip("napari.settings")
    if not hasattr(settings, "get_plugin_settings"):
        pytest.skip("this napari has no preferences of plugins")
    group = type("Group", (), {"device": "cpu", "threads": 2, "project_folder": str(tmp_path), "cache_mb": 64})()
    monkeypatch.setattr(settings, "get_plugin_settings", lambda name: type("Found", (), {"em_da": group})())
    assert read_settings() == Settings("cpu", 2, tmp_path, 64)

    def unknown(name: str) -> Any:
        raise KeyError(name)

    monkeypatch.setattr(settings, "get_plugin_settings", unknown)
    assert read_settings() == Settings()


def test_the_cache_follows_the_preferences(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_em_da.io import _sections

    monkeypatch.setattr(_sections.CACHE, "limit_bytes", 1)
    apply_settings(Settings(cache_mb=32))
    assert _sections.CACHE.limit_bytes == 32 * 1024 * 1024
