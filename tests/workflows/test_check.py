"""Looking at files that belong together, as the Data page looks at layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_em_da as em
from napari_em_da import cli, layers
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Notice


def found(**files: Any) -> dict[str, tuple[str, str]]:
    """Return level and role of what is found, by its text."""
    result = em.run(em.check(em.CheckConfig(**files)))
    assert result.fits == all(finding.level != "error" for finding in result.findings)
    return {finding.text: (finding.level, finding.role) for finding in result.findings}


def save(path: Path, array: np.ndarray, size: tuple[float, float, float] | None = (8, 8, 8)) -> Path:
    return em.Volume.from_array(array, voxel_nm=size).save(path)


def test_files_that_fit(tiny: Path) -> None:
    assert found(source=tiny / "A.tif", labels=tiny / "A-labels.tif") == {}


def test_each_fault_is_named_with_its_file(tiny: Path, tmp_path: Path) -> None:
    shape = em.Volume.open(tiny / "A.tif").shape
    floats = save(tmp_path / "floats.tif", np.ones(shape, np.float32))
    small = save(tmp_path / "small.tif", np.ones((2, 3, 4), np.uint8))
    image = em.Volume.open(tiny / "B.tif").read()
    image[1] = image[1].mean()
    blank = save(tmp_path / "blank.tif", image, (8, 40, 40))
    texts = found(source=tiny / "A.tif", labels=floats, target=blank, truth=small)
    expected = {
        "floats is stored as decimal numbers (float32); labels must be whole numbers.": ("error", "labels"),
        f"small has 2 x 3 x 4 voxels, blank {' x '.join(map(str, image.shape))}; choose labels of the same region.":
        ("error", "truth"),
        "A pixel is 8 nm in A and 40 nm in blank, 5 times different. Is one of them wrong? Then give the right one.":
        ("warning", "target"),
    }  # fmt: skip
    assert expected.items() <= texts.items(), texts
    assert any(text.startswith("Some sections of blank are blank (1") for text in texts)
    assert list(texts.values())[0][0] == "error", "errors come first"


def test_voxel_sizes_that_are_given_count(tiny: Path) -> None:
    given = {"source": tiny / "A.tif", "target": tiny / "B.tif"}
    assert any("A pixel is 16 nm in A" in text for text in found(**given, source_voxel_nm=(8, 16, 16)))


def test_a_page_of_layers_and_its_files_find_the_same(tiny: Path, tmp_path: Path) -> None:
    inverted = 255 - em.Volume.open(tiny / "B.tif").read()
    paths = {"source": tiny / "A.tif", "labels": tiny / "A-labels.tif", "target": save(tmp_path / "B.tif", inverted)}
    opened = {
        role: em.run(layers.open_layer(path, "labels" if role == "labels" else "image")) for role, path in paths.items()
    }
    config = layers.check_config(**opened)
    assert {role: getattr(config, role) for role in paths} == paths
    result = em.run(em.check(config))
    assert list(result.findings) == layers.check_data(**opened) != []
    changed = (np.zeros((6, 160, 160), np.uint8), opened["source"][1], "image")
    with pytest.raises(ConfigError, match="No file holds the layer 'A' as it is now"):
        layers.check_config(source=changed)


def test_findings_are_events_and_a_command(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = em.CheckConfig(source=tiny / "A.tif", target=tiny / "A.tif")
    notices = [event for event in em.check(config) if isinstance(event, Notice)]
    assert [(n.level, n.text.split(".")[0]) for n in notices] == [("warning", "Work cannot start")]
    assert cli.main(["check", "--source", str(tiny / "A.tif"), "--target", str(tiny / "A.tif"), "--json"]) == 0
    assert '"fits": false' in capsys.readouterr().out
    with pytest.raises(ConfigError, match="nothing to look at"):
        em.run(em.check(em.CheckConfig()))
    with pytest.raises(DataError, match="does not exist"):
        em.run(em.check(em.CheckConfig(source=tiny / "nowhere.tif")))
