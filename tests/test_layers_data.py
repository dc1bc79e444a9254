"""Opening, checking and mending data, without a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_em_da import layers
from napari_em_da.errors import DataError
from napari_em_da.jobs import run
from napari_em_da.layers import Finding
from napari_em_da.volume import Volume

NM = {"units": ("nm",) * 3, "axis_labels": ("z", "y", "x"), "translate": (0.0, 0.0, 0.0)}


def grey(seed: int = 0, *, dark: bool = True) -> np.ndarray:
    """Fourteen cells per section, with dark (or bright) membranes between them."""
    rng, shape = np.random.default_rng(seed), (4, 64, 64)
    out = np.empty(shape)
    for section in out:
        seeds = rng.integers(0, 64, (14, 2))
        squares = ((np.indices(shape[1:])[:, None] - seeds.T[:, :, None, None]) ** 2).sum(0)
        first, second = np.sqrt(np.sort(squares, axis=0)[:2])
        section[:] = np.where(second - first < 3, 60, 190)
    out = (out + rng.normal(0, 8, shape)).clip(0, 255)
    return (out if dark else 255 - out).astype(np.uint8)


def image(data: Any, name: str, voxel: tuple[float, ...] = (30, 8, 8), **more: Any) -> tuple[Any, dict[str, Any], str]:
    return data, {"name": name, "scale": voxel, **NM, **more}, "image"


def labels(data: Any, name: str = "cells", **more: Any) -> tuple[Any, dict[str, Any], str]:
    return data, {"name": name, "scale": (30, 8, 8), **NM, **more}, "labels"


def brief(found: list[Finding]) -> list[tuple[str, str | None, str]]:
    return [(f.level, f.fix_name, f.role) for f in found]


def test_good_data_has_no_findings() -> None:
    cells = np.zeros((4, 64, 64), np.uint8)
    found = layers.check_data(
        source=image(grey(0), "A"), labels=labels(cells), target=image(grey(1), "B"), truth=labels(cells, "truth")
    )
    assert found == []
    assert layers.check_data() == []


def test_sizes() -> None:
    one, other = grey(0), grey(1)
    (found,) = layers.check_data(source=image(one, "A"), target=image(other, "B", (30, 12, 12)))
    assert brief([found]) == [("info", None, "target")] and "8 nm in A and 12 nm in B" in found.text
    (found,) = layers.check_data(source=image(one, "A"), target=image(other, "B", (30, 0.008, 0.008)))
    assert brief([found]) == [("warning", "voxel", "target")] and "1e+03 times" in found.text
    unknown = (other, {"name": "B"}, "image")
    (found,) = layers.check_data(source=image(one, "A"), target=unknown)
    assert brief([found]) == [("warning", "voxel", "target")] and "size of B is unknown" in found.text
    (found,) = layers.check_data(source=(one, {"name": "A"}, "image"), target=unknown)
    assert brief([found]) == [("warning", None, "source")] and "A and B" in found.text
    micro = image(other, "B", (0.03, 0.008, 0.008), units=("um",) * 3)
    assert layers.check_data(source=image(one, "A"), target=micro) == [], "30 nm are 0.03 um"


def test_labels_that_do_not_fit() -> None:
    raw, cells = image(grey(0), "A"), np.zeros((4, 64, 64), np.uint8)
    (found,) = layers.check_data(source=raw, labels=labels(cells[:, :60]))
    assert brief([found]) == [("error", None, "labels")] and "4 x 60 x 64" in found.text
    for wrong in ({"translate": (0.0, 8.0, 0.0)}, {"scale": (30, 8, 8.1)}, {"units": ("pixel",) * 3}):
        (found,) = layers.check_data(source=raw, labels=labels(cells, **wrong))
        assert brief([found]) == [("warning", "align", "labels")], wrong
        place = layers.align_place(labels(cells, **wrong), raw)
        assert layers.check_data(source=raw, labels=labels(cells, **{**wrong, **place})) == []
    assert layers.check_data(source=raw, labels=labels(cells, scale=(0.03, 0.008, 0.008), units=("um",) * 3)) == []
    both = labels(cells)
    found = layers.check_data(source=raw, labels=both, target=image(grey(1), "B"), truth=both)
    assert brief(found) == [("error", None, "truth")]


def test_contrast_and_identity() -> None:
    (found,) = layers.check_data(source=image(grey(0), "A"), target=image(grey(1, dark=False), "B"))
    assert brief([found]) == [("warning", "invert", "target")]
    (found,) = layers.check_data(source=image(grey(0), "A"), target=image(grey(0), "B"))
    assert brief([found]) == [("error", None, "target")] and "labelled image itself" in found.text
    (found,) = layers.check_data(target=image(np.zeros((4, 64, 64), np.uint8), "B"))
    assert found.level == "error" and "labels do" in found.text
    found, *_ = layers.check_data(source=image(np.full((4, 64, 64), 7.0), "A"))
    assert found.level == "error" and "constant" in found.text


def test_contrast_that_cannot_be_told_is_said() -> None:
    noise = np.random.default_rng(0).integers(20, 220, (4, 64, 64)).astype(np.uint8)
    (found,) = layers.check_data(source=image(grey(0), "A"), target=image(noise, "B"))
    assert brief([found]) == [("info", "invert", "target")] and "cannot be told" in found.text


def test_only_the_middle_of_a_huge_volume_is_read() -> None:
    read: list[int] = []

    def block(block_info: Any = None) -> np.ndarray:
        place = block_info[None]["array-location"]
        shape = tuple(stop - start for start, stop in place)
        read.append(int(np.prod(shape)))
        return np.resize(np.arange(200, dtype=np.uint8), shape)

    huge = da.map_blocks(block, chunks=((1,) * 200, (1024,) * 7, (1024,) * 7), dtype=np.uint8)
    read.clear()
    run(layers.checking({"target": image(huge, "B")}))
    assert 0 < sum(read) < huge.size / 20


@pytest.mark.parametrize("role", ["source", "target"])
def test_what_is_refused_has_a_fix(role: str) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3)).astype(np.uint8)
    (found,) = layers.check_data(**{role: image(colours, "A", rgb=True)})
    assert brief([found]) == [("error", "grey", role)]
    data, about, kind = run(layers.fixed_layer("grey", image(colours, "A", rgb=True)))
    red, green, blue = colours[1, 2, 3].astype(float)
    assert kind == "image" and data.dtype == np.uint8 and about["name"] == "A (grey)"
    assert data[1, 2, 3] == round(0.299 * red + 0.587 * green + 0.114 * blue)

    series = np.random.default_rng(0).integers(0, 255, (5, 2, 4, 8, 8)).astype(np.uint8)
    five = {"scale": (1, 1, 30, 8, 8), "units": ("pixel", "pixel", "nm", "nm", "nm"), "name": "T"}
    (found,) = layers.check_data(**{role: (series, five, "image")})
    assert brief([found]) == [("error", "frame", role)] and "(5, 2, 4, 8, 8)" in found.text
    data, about, _ = run(layers.fixed_layer("frame", (series, five, "image"), at=(3, 1)))
    np.testing.assert_array_equal(data, series[3, 1])
    assert about["name"] == "T (3, 1)" and layers.layer_voxel((data, about, "image")) == (30, 8, 8)

    turned = image(np.arange(4 * 6 * 5).reshape(4, 6, 5), "X", (8, 9, 30), axis_labels=("x", "y", "z"))
    (found,) = layers.check_data(**{role: turned})
    assert brief([found]) == [("error", "reorder", role)] and "x, y, z" in found.text
    assert layers.layer_voxel(turned) == (30, 9, 8)
    data, about, _ = run(layers.fixed_layer("reorder", turned))
    np.testing.assert_array_equal(data, turned[0].transpose(2, 1, 0))
    assert layers.layer_voxel((data, about, "image")) == (30, 9, 8) and layers.axis_order((data, about)) == "zyx"


def test_labels_that_are_no_integers() -> None:
    raw, cells = image(grey(0), "A"), np.zeros((4, 64, 64), np.float32)
    cells[1, 2, 3] = 300
    (found,) = layers.check_data(source=raw, labels=image(cells, "cells"))
    assert brief([found]) == [("error", "integers", "labels")]
    data, about, kind = run(layers.fixed_layer("integers", image(cells, "cells")))
    assert kind == "labels" and data.dtype == np.uint16 and data[1, 2, 3] == 300 and data.sum() == 300
    assert layers.check_data(source=raw, labels=(data, about, kind)) == []
    cells[3, 0, 0] = 0.25
    with pytest.raises(DataError, match=r"0\.25 \(section 3\)"):
        run(layers.fixed_layer("integers", image(cells, "cells")))
    (found,) = layers.check_data(source=raw, labels=image(np.zeros((4, 64, 64), np.uint8), "cells"))
    assert brief([found]) == [("error", "labels", "labels")]
    assert run(layers.fixed_layer("labels", image(np.zeros((4, 64, 64), np.uint8), "cells")))[2] == "labels"


def test_inversion_keeps_the_type_and_stays_lazy() -> None:
    data = np.array([[[0, 5, 250]]], np.uint8)
    assert run(layers.fixed_layer("invert", image(data, "A")))[0].tolist() == [[[255, 250, 5]]]
    lazy = run(layers.fixed_layer("invert", image(da.from_array(data), "A")))[0]
    assert isinstance(lazy, da.Array)
    floats = np.linspace(-1, 3, 4000).reshape(1, 40, 100)
    turned = run(layers.fixed_layer("invert", image(floats, "A")))[0]
    np.testing.assert_allclose(turned, 2 - floats, atol=0.02)


def test_voxel_place_keeps_a_layer_in_its_voxel() -> None:
    layer = image(grey(), "A", (1, 2, 2), units=("pixel",) * 3, translate=(3.0, 4.0, 0.0))
    place = layers.voxel_place(layer, (30, 8, 10))
    assert place == {"scale": [30, 8, 10], "units": ["nm"] * 3, "translate": [90, 16, 0]}
    flat = (grey()[0], {"scale": (1, 1), "units": ("pixel",) * 2, "translate": (0, 0)}, "image")
    assert layers.voxel_place(flat, (30, 8, 10))["scale"] == [8, 10]
    turned = image(grey(), "A", (1, 1, 1), axis_labels=("x", "y", "z"))
    assert layers.voxel_place(turned, (30, 8, 10))["scale"] == [10, 8, 30]
    with pytest.raises(DataError, match="not three positive"):
        layers.voxel_place(layer, (0, 8, 8))


def test_files_are_opened_as_layers(tmp_path: Path) -> None:
    raw = grey()
    Volume.from_array(raw, voxel_nm=(30, 8, 8)).save(tmp_path / "A.tif")
    data, about, kind = run(layers.open_layer(tmp_path / "A.tif"))
    assert kind == "image" and isinstance(data, da.Array)
    np.testing.assert_array_equal(data, raw)
    assert (about["name"], about["scale"], about["units"]) == ("A", (30, 8, 8), ("nm",) * 3)
    assert about["axis_labels"] == ("z", "y", "x") and about["metadata"]["path"] == str(tmp_path / "A.tif")
    assert about["contrast_limits"] == pytest.approx(np.percentile(raw, (0.1, 99.9)), abs=1)
    assert layers.snapshot((data, about, kind)).path == tmp_path / "A.tif"
    data, _, kind = run(layers.open_layer(tmp_path / "A.tif", "labels", name="cells"))
    assert kind == "labels" and isinstance(data, np.ndarray), "small labels can be painted on"
    tifffile.imwrite(tmp_path / "float.tif", raw.astype(np.float32), photometric="minisblack")
    assert run(layers.open_layer(tmp_path / "float.tif", "labels"))[2] == "image", "napari has no labels of floats"
    folder = tmp_path / "sections"
    folder.mkdir()
    for z, section in enumerate(raw):
        tifffile.imwrite(folder / f"{z:03}.tif", section)
    data, about, _ = run(layers.open_layer(folder))
    np.testing.assert_array_equal(data, raw)
    assert "scale" not in about
    Volume.from_array(raw, voxel_nm=(30, 8, 8)).save(tmp_path / "A.zarr")
    np.testing.assert_array_equal(run(layers.open_layer(tmp_path / "A.zarr"))[0], raw)
    with pytest.raises(DataError, match="does not exist"):
        run(layers.open_layer(tmp_path / "gone.tif"))
