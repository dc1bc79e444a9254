"""Layers in, layers out, without a window."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import napari_em_da as em
from napari_em_da import layers
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Metric, Notice
from napari_em_da.layers.snapshot import smallest
from napari_em_da.volume import Volume

TINY: dict[str, Any] = {
    "network": em.NetworkConfig(options={"features": 4, "levels": 2}),
    "sampling": em.SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=2, threads=0),
    "training": em.TrainingConfig(steps=6, validate_every=3, checkpoint_every=3, precision="fp32", device="cpu"),
}


@pytest.fixture
def stack() -> tuple[layers.LayerData, layers.LayerData]:
    """A bright square on dark noise, and its label 7."""
    rng = np.random.default_rng(0)
    labels = np.zeros((4, 64, 96), np.int32)
    labels[:, 16:48, 16:80] = 7
    image = (rng.integers(0, 60, labels.shape) + 120 * (labels == 7)).astype(np.uint8)
    place = {"scale": (50.0, 8.0, 8.0), "units": ("nm", "nm", "nm"), "translate": (0.0, 80.0, 16.0)}
    return (image, {**place, "name": "raw"}, "image"), (labels, {**place, "name": "square"}, "labels")


@pytest.mark.parametrize(
    ("scale", "units", "expected"),
    [
        ((0.05, 0.004, 0.004), ("um", "um", "um"), (50, 4, 4)),
        ((50, 4, 4), "nm", (50, 4, 4)),
        ((1, 50, 4, 4), ("pixel", "nanometer", "nanometer", "nanometer"), (50, 4, 4)),
        ((2e-5, 4, 4), ("mm", "nm", "angstrom"), (20, 4, 0.4)),
        ((6, 4), ("nm", "nm"), (6, 6, 4)),
        ((2, 2, 2), ("pixel",) * 3, None),
        ((2, 2, 2), None, None),
        (None, "nm", None),
    ],
)
def test_voxel_size(scale: Any, units: Any, expected: Any) -> None:
    found = layers.voxel_size(scale, units)
    assert found == (None if expected is None else pytest.approx(expected))


def test_voxel_size_refuses_what_is_no_length() -> None:
    with pytest.raises(DataError, match=r"'blobs' is scaled in 'second'; set its units to 'nm'"):
        layers.voxel_size((1, 1, 1), ("second", "nm", "nm"), "blobs")


def test_snapshot_of_a_napari_layer() -> None:
    napari_layers = pytest.importorskip("napari.layers")
    data = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    layer = napari_layers.Labels(data, scale=(0.03, 0.005, 0.005), units=("µm",) * 3, translate=(1, 2, 3), name="mine")
    taken = layers.snapshot(layer, copy=True)
    layer.data[:] = 0
    assert taken.volume.voxel_nm == pytest.approx((30, 5, 5))
    assert taken.volume.name == "mine"
    assert taken.volume.read().tolist() == np.arange(24).reshape(2, 3, 4).tolist()
    again = napari_layers.Labels(data, **taken.place)
    np.testing.assert_array_equal(again.extent.world, layer.extent.world)
    assert again.units == layer.units


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (SimpleNamespace(data=np.zeros((2, 3, 4, 5)), name="movie"), r"'movie' has 4 axes \(2, 3, 4, 5\).*Choose one"),
        (SimpleNamespace(data=np.zeros((5, 5, 3)), name="photo", rgb=True), r"'photo' is a colour picture"),
    ],
)
def test_snapshot_refuses(layer: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        layers.snapshot(layer)


@pytest.mark.parametrize("kind", ["entropy", "distance", "frequency"])
def test_weight_map_layer_is_the_weight_map(stack: Any, kind: str) -> None:
    _, labels = stack
    params: dict[str, Any] = {"boundary": (7,)} if kind == "distance" else {}
    data, look, layer_type = layers.weight_map_layer(labels, kind, floor=0.2, **params)
    expected = em.weight_map(labels[0], kind, floor=0.2, **params)
    np.testing.assert_array_equal(data, expected)
    assert layer_type == "image"
    assert look["scale"] == labels[1]["scale"] and look["translate"] == labels[1]["translate"]
    assert look["contrast_limits"] == (0, expected.max())
    section = layers.weight_section(layers.snapshot(labels), kind, 2, floor=0.2, **params)
    np.testing.assert_allclose(section, expected[2], rtol=1e-6)


def test_weight_map_of_one_section_stays_one() -> None:
    labels = np.eye(9, dtype=np.uint8)
    data, _, _ = layers.weight_map_layer(labels, "entropy")
    np.testing.assert_array_equal(data, em.weight_map(labels, "entropy"))


def test_label_values(stack: Any) -> None:
    *_, last = layers.label_values(stack[1])
    assert last == Finished({0: 4 * 64 * 96 - 4 * 32 * 64, 7: 4 * 32 * 64})
    with pytest.raises(DataError, match="more than 64 label values, as instances do"):
        list(layers.label_values(np.arange(100).reshape(1, 10, 10)))


def test_train_resume_segment_evaluate(stack: Any, tmp_path: Path) -> None:
    image, labels = stack
    run = tmp_path / "run"
    job = layers.train(image, labels, {"square": (7,)}, run, **TINY)
    events = []
    for event in job:
        events.append(event)
        if isinstance(event, Metric) and event.step == 4:
            break
    job.close()
    copies = [e.text for e in events if isinstance(e, Notice) and "a copy is written to" in e.text]
    assert len(copies) == 2
    saved = Volume.open(tmp_path / "run-data" / "labels.tif")
    assert saved.dtype == np.uint8, "napari's wide integers are not worth their bytes"
    np.testing.assert_array_equal(saved.read(), labels[0])

    result = em.run(layers.resume(run))
    assert result.steps == 6
    with pytest.raises(ConfigError, match="exists already; choose another run folder, or resume it"):
        next(layers.train(image, labels, {"square": (7,)}, run, **TINY))

    (found,) = layers.segment_layers(image, run, precision="fp32", device="cpu")
    data, look, kind = found
    assert kind == "labels" and data.shape == image[0].shape
    assert set(np.unique(data)) <= {0, 7}, "segmentations use the label values of the training"
    assert {k: look[k] for k in ("scale", "units", "translate")} == {
        k: image[1][k] for k in ("scale", "units", "translate")
    }
    assert look["features"] == {"index": [0, 7], "class": ["background", "square"]}
    assert Volume.open(run / "segmentations" / "raw.tif").voxel_nm == pytest.approx((50, 8, 8))
    assert [p.name for p in (run / "segmentations").iterdir() if p.name.startswith(".")] == []

    scores = layers.evaluate(found, labels, ("iou",), classes={"square": 7})
    hit = (data == 7) & (labels[0] == 7)
    assert scores["iou/square"] == pytest.approx(hit.sum() / ((data == 7) | (labels[0] == 7)).sum())


def test_second_segmentation_gets_a_name_of_its_own(tmp_path: Path) -> None:
    from napari_em_da.layers.jobs import free_name

    for expected in ("a.tif", "a-2.tif", "a-3.tif"):
        path = free_name(tmp_path / "a.tif")
        assert path.name == expected
        path.touch()


def test_an_unchanged_file_is_used_a_changed_layer_is_saved(stack: Any, tmp_path: Path) -> None:
    from napari_em_da.layers.snapshot import as_file

    labels = stack[1][0].astype(np.uint8)
    path = Volume.from_array(labels).save(tmp_path / "labels.tif")
    layer = SimpleNamespace(data=labels.copy(), scale=(1, 1, 1), name="x", source=SimpleNamespace(path=str(path)))

    def used() -> Path:
        job = as_file(layers.snapshot(layer), tmp_path / "copy" / "labels.tif", exact=True)
        while True:
            try:
                next(job)
            except StopIteration as end:
                return Path(end.value)

    assert used() == path
    layer.data[3, 60, 90] = 9  # one voxel is painted
    assert used() == tmp_path / "copy" / "labels.tif"
    np.testing.assert_array_equal(Volume.open(used()).read(), layer.data)


def test_smallest_keeps_every_value() -> None:
    for values, kind in (([0, 255], "uint8"), ([0, 256], "uint16"), ([-1, 3], "int16"), ([0, 2**40], "int64")):
        labels = np.array(values, np.int64).reshape(1, 1, 2)
        found = smallest(Volume.from_array(labels))
        assert found.dtype == kind
        assert found.read().ravel().tolist() == values


def test_samples() -> None:
    fibsem, sbem, labels = layers.phantom_sample()
    assert fibsem[0].shape == sbem[0].shape == labels[0].shape
    assert [d[2] for d in (fibsem, sbem, labels)] == ["image", "image", "labels"]
    assert fibsem[1]["scale"] == (8, 8, 8) and fibsem[1]["units"] == ("nm",) * 3
    image, neurons = layers.flyem_sample()
    assert image[0].shape == neurons[0].shape == (64, 160, 160)
    assert image[1]["scale"] == pytest.approx((10, 10, 10))
    assert neurons[2] == "labels"


def test_demo_layers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run 'napari-em-da demo' first"):
        layers.demo_layers(tmp_path)
    volume = Volume.from_array(np.zeros((2, 8, 8), np.uint8), voxel_nm=(30, 5, 5))
    for name in ("A", "A-labels", "B", "B-train", "B-labels", "B-adapted"):
        volume.save(tmp_path / f"{name}.tif")
    found = {look["name"]: (kind, look["visible"]) for _, look, kind in layers.demo_layers(tmp_path)}
    assert found == {"B": ("image", True), "B-adapted": ("labels", True), "B-labels": ("labels", False)}
