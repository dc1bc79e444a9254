"""Scores of files: classes, boundary maps and ids, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pytest

import napari_em_da as em
from napari_em_da import cli, layers
from napari_em_da.config import EvaluateConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.volume import Volume
from napari_em_da.workflows.sidecar import write_sidecar

NM = (30.0, 6.0, 6.0)


@pytest.fixture
def cells(tmp_path: Path) -> tuple[Path, Path]:
    """A membrane annotation (value 3) of two sections, and a probability map with one gap of the membrane."""
    labels = np.zeros((2, 40, 40), np.uint8)
    labels[:, :, 13] = labels[:, 20, :] = labels[:, :, 30] = 3
    p = np.where(labels == 3, 0.9, 0.1).astype(np.float32)
    p[0, 5, 13] = 0.15
    truth = Volume.from_array(labels, voxel_nm=NM).save(tmp_path / "labels.tif")
    probs = Volume.from_array(np.stack([1 - p, p], -1), voxel_nm=NM).save(tmp_path / "probs.tif")
    write_sidecar(probs, {"membrane": (3,)}, "probabilities")
    return probs, truth


def score(prediction: Path, labels: Path, *metrics: str, **more: Any) -> Any:
    return em.run(em.evaluate(EvaluateConfig(prediction=prediction, labels=labels, metrics=metrics, **more)))


def test_a_boundary_map_is_scored_by_partition_and_topology(cells: tuple[Path, Path]) -> None:
    found = score(*cells, "vrand", "arand", "warping_error", "pixel_error", kind="membrane").scores
    assert found["vrand"] == found["vrand"] and found["arand"] == pytest.approx(1 - found["vrand"])
    assert found["warping_error"] == 0  # at 0.1 < threshold < 0.15 the gap is closed
    half = score(*cells, "vrand_split", "vrand_merge", "warping_error", kind="membrane", scoring={"thresholds": [0.5]})
    assert half.scores["vrand_split"] == pytest.approx(1, abs=0.02)  # the gap merges two of six cells of one section
    assert half.scores["vrand_merge"] < 0.95
    assert half.scores["warping_error"] == pytest.approx(0.5 / 1600)  # one pixel in one of two sections


def test_ids_and_classes_of_one_call_are_kept_apart(tmp_path: Path) -> None:
    ids = np.zeros((3, 30, 30), np.uint16)
    ids[:, 2:10, 2:28], ids[:, 14:28, 2:12] = 255, 9
    labels = Volume.from_array(ids, voxel_nm=NM).save(tmp_path / "ids.tif")
    merged = Volume.from_array(np.where(ids > 0, 4, 0).astype(np.uint8), voxel_nm=NM).save(tmp_path / "merged.tif")
    found = score(merged, labels, "partition", "matching").scores
    one, other = 3 * 8 * 26, 3 * 14 * 10
    together, pairs = (one + other) ** 2, one**2 + other**2
    assert found["vrand"] == pytest.approx(2 * pairs / (pairs + together))  # 255 is an id like any other
    assert found["objects_labels"] == 2 and found["objects_prediction"] == 1


def test_plain_json_has_null_and_a_reason_for_what_is_undefined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = np.zeros((2, 16, 16), np.uint8)
    a[:, 4:9, 4:9] = 1
    one = Volume.from_array(a, voxel_nm=NM).save(tmp_path / "one.tif")
    empty = Volume.from_array(a * 0, voxel_nm=NM).save(tmp_path / "empty.tif")
    arguments = ["evaluate", empty, one, "--classes", "cell=1", "--metrics", "iou,precision,hd95", "--json"]
    assert cli.main([str(x) for x in arguments]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["iou"] == 0
    assert printed["scores"]["precision"] is None and "no voxel" in printed["undefined"]["precision/cell"]
    assert printed["scores"]["hd95"] is None and "hd95" in printed["undefined"]


def test_what_does_not_fit_is_refused(cells: tuple[Path, Path], tmp_path: Path) -> None:
    probs, truth = cells
    with pytest.raises(DataError, match="say with --kind"):
        score(probs, truth, "iou")
    other = Volume.from_array(np.zeros((2, 40, 40), np.uint8), voxel_nm=(30, 8, 8)).save(tmp_path / "other.tif")
    with pytest.raises(DataError, match=r"same pixels, or give --voxel-nm"):
        score(other, truth, "iou")
    assert math.isfinite(score(other, truth, "iou", voxel_nm=NM).scores["iou"])
    with pytest.raises(ConfigError, match="Did you mean 'vrand"):
        score(probs, truth, "vrnd", kind="membrane")
    with pytest.raises(ConfigError, match="kind"):
        score(other, truth, "warping_error", voxel_nm=NM)
    inverted = Volume.from_array(np.where(Volume.open(truth).read() == 3, 0, 1).astype(np.uint8), voxel_nm=NM)
    path = inverted.save(tmp_path / "inverted.tif")
    with pytest.raises(DataError, match="kind"):
        score(path, path, "vrand", kind="membrane", classes={"membrane": (1,)})


def test_measure_writes_one_row_per_object(tmp_path: Path) -> None:
    ids = np.zeros((4, 20, 20), np.uint16)
    ids[1:3, 2:7, 2:12], ids[:, 10:15, 10:15] = 300, 2
    labels = Volume.from_array(ids, voxel_nm=NM).save(tmp_path / "ids.tif")
    image = Volume.from_array((ids > 100).astype(np.uint8) * 50, voxel_nm=NM).save(tmp_path / "image.tif")
    out = tmp_path / "objects.csv"
    assert cli.main(["measure", str(labels), "--image", str(image), "-o", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    voxel = NM[0] * NM[1] * NM[2]
    volumes = {int(row["id"]): float(row["volume_nm3"]) for row in rows}
    assert volumes == pytest.approx({2: 100 * voxel, 300: 100 * voxel})
    assert cli.main(["measure", str(labels), "-o", str(out)]) == 3  # exists
    _, about, kind = layers.measure_layer((ids, {"scale": NM, "units": "nm"}, "labels"))
    assert kind == "labels" and list(about["features"]["index"])[-2:] == [2, 300]


def test_layers_score_show_errors_and_take_edits(cells: tuple[Path, Path]) -> None:
    truth = Volume.open(cells[1]).read()
    ids = cc3d.connected_components(truth != 3, connectivity=6)
    merged = np.where(ids == 2, 1, ids)
    place = {"scale": NM, "units": "nm", "name": "cells"}
    found = layers.evaluate((merged, place, "labels"), (ids, place, "labels"), ["vrand", "vrand_split"])
    assert found["vrand_split"] == 1 and found["vrand"] < 1
    data, about, kind = layers.error_layer((merged, place, "labels"), (ids, place, "labels"))
    assert kind == "labels" and about["scale"] == NM
    wrong = np.unique(ids[np.asarray(data) == 2])
    assert len(wrong) == 1 and wrong[0] in (1, 2)  # the smaller of the two is where pairs were merged
    shown, _, _ = layers.overlay_layer((merged, place, "labels"), (ids, place, "labels"))
    np.testing.assert_array_equal(np.asarray(shown) == 2, ids == 2)


def test_layers_are_drawn(cells: tuple[Path, Path], tmp_path: Path) -> None:
    truth = (Volume.open(cells[1]).read() == 3).astype(np.uint8)
    p = Volume.open(cells[0]).read()[..., 1]
    drawn = layers.plot_layers(
        (p, {"scale": NM, "units": "nm"}, "image"),
        (truth, {"scale": NM, "units": "nm"}, "labels"),
        tmp_path / "plots",
        kind="membrane",
    )
    names = {path.name for path in drawn}
    assert {"thresholds.png", "splits-merges.png", "overlay.png"} <= names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_edits_reach_a_layer_once(cells: tuple[Path, Path]) -> None:
    from napari_em_da.proofreading import merge

    class Layer:
        def __init__(self, data: np.ndarray) -> None:
            self.data = data
            self.set: list[Any] = []

        def data_setitem(self, where: Any, values: Any) -> None:
            self.set.append(where)
            self.data[where] = values

    layer = Layer(cc3d.connected_components(Volume.open(cells[1]).read() != 3, connectivity=6).astype(np.int32))
    before = layer.data.copy()
    edit = merge(layer.data, (1, 2))
    layers.apply_edit(layer, edit)
    np.testing.assert_array_equal(layer.data, np.where(before == 2, 1, before))
    assert len(layer.set) == 1 and len(layer.set[0][0]) == (before == 2).sum()
    with pytest.raises(DataError, match="changed since"):
        layers.apply_edit(layer, edit)
