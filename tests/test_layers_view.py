"""What is in view equals what the whole volume will be: sections, regions, weight maps; colours and growing labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from skimage.transform import resize

import napari_em_da as em
from napari_em_da import layers
from napari_em_da.config import LabelledConfig, TrainConfig, WeightConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Finished, Progress
from napari_em_da.io import working_store
from napari_em_da.volume import Volume

torch = pytest.importorskip("torch")
TRAINED_NM = 8.0


@pytest.fixture(scope="module")
def tissue() -> tuple[np.ndarray, np.ndarray]:
    """A bright block, label 7, and a brighter one, label 3, whose contrast changes along z."""
    labels = np.zeros((6, 48, 80), np.uint8)
    labels[:, 8:40, 8:40] = 7
    labels[:, 16:32, 48:72] = 3
    noise = np.random.default_rng(0).integers(0, 60, labels.shape)
    image = noise + 60 * (labels == 7) + 120 * (labels == 3) + 10 * np.arange(6)[:, None, None]
    return image.astype(np.uint8), labels


def train(folder: Path, tissue: tuple[np.ndarray, np.ndarray], network: str = "unet") -> Path:
    place = {"scale": (TRAINED_NM,) * 3, "units": ("nm",) * 3}
    image, labels = (
        (data, {**place, "name": name}, kind)
        for data, name, kind in zip(tissue, ("raw", "truth"), ("image", "labels"), strict=True)
    )
    sections = {
        "network": em.NetworkConfig(name=network, options={"features": 4, "levels": 2}),
        "sampling": em.SamplingConfig(
            patch_px=(1 if network == "unet" else 4, 32, 32), batch=2, validation_patches=2, threads=0
        ),
        "training": em.TrainingConfig(steps=6, validate_every=3, checkpoint_every=3, precision="fp32", device="cpu"),
    }
    em.run(layers.train(image, labels, {"square": (7,), "mito": (3,)}, folder / network, **sections))
    return folder / network


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tissue: Any) -> Path:
    return train(tmp_path_factory.mktemp("runs"), tissue)


def layer(image: np.ndarray, nm: float | tuple[float, ...] = TRAINED_NM) -> Any:
    sizes = (nm,) * 3 if isinstance(nm, float) else nm
    return image, {"name": "raw", "scale": sizes, "units": ("nm",) * 3}, "image"


def whole(image: Any, run: Path, folder: Path, **options: Any) -> tuple[np.ndarray, Any]:
    """Segment each section for itself, as a view is."""
    job = layers.segment(image, run, folder / "whole.tif", precision="fp32", device="cpu", smooth_z=0, **options)
    result = em.run(job)
    return Volume.open(result.output).read(), result


def seen(image: Any, run: Path, section: Any, box: Any = None, **options: Any) -> Any:
    return em.run(layers.segment_view(image, run, section, box, precision="fp32", device="cpu", **options))


@pytest.mark.parametrize("nm", [TRAINED_NM, 11.0, 5.0], ids=["same", "coarser", "finer"])
def test_the_view_equals_the_whole(run: Path, tissue: Any, tmp_path: Path, nm: float) -> None:
    image = layer(tissue[0], nm)
    expected, _ = whole(image, run, tmp_path)
    assert len(np.unique(expected)) > 1, "an empty result would prove nothing"
    for z in (0, 4):
        found = seen(image, run, z)
        np.testing.assert_array_equal(found.labels, expected[z : z + 1])
    found = seen(image, run, slice(1, 4), (slice(10, 37), slice(21, 78)))
    np.testing.assert_array_equal(found.labels, expected[1:4, 10:37, 21:78])
    assert found.classes == {"square": (7,), "mito": (3,)}
    assert set(np.unique(expected)) <= {0, 3, 7}


def test_the_view_of_a_3d_network_and_its_probabilities(tmp_path: Path, tissue: Any) -> None:
    run = train(tmp_path, tissue, "unet3d")
    image = layer(tissue[0], (4.0, TRAINED_NM, TRAINED_NM))  # thinner sections: two interleaved stacks
    expected, result = whole(image, run, tmp_path, probabilities=tmp_path / "p.zarr")
    scores = Volume.open(result.probabilities).read()
    for z in (2, 3):
        found = seen(image, run, z, probabilities=True)
        np.testing.assert_array_equal(found.labels[0], expected[z])
        np.testing.assert_allclose(found.probabilities[:, 0], np.moveaxis(scores[z], -1, 0), atol=1e-6)
    data, look, kind = layers.uncertainty_layer(result, image)
    np.testing.assert_allclose(np.asarray(data), 1 - scores.max(-1), atol=1e-6)
    assert kind == "image" and look["scale"] == image[1]["scale"]
    assert not isinstance(data, np.ndarray), "it is computed when it is looked at"


def test_the_network_stays_loaded_until_its_checkpoint_changes(
    run: Path, tissue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_em_da.training.folder import RunFolder

    loads: list[str] = []
    load = RunFolder.network
    monkeypatch.setattr(RunFolder, "network", lambda self, which="best": loads.append(which) or load(self, which))
    image = layer(tissue[0])
    seen(image, run, 0)
    loads.clear()
    seen(image, run, 1)
    assert not loads
    stamp = (run / "best.safetensors").stat().st_mtime
    os.utime(run / "best.safetensors", (stamp + 5, stamp + 5))
    seen(image, run, 1)
    assert loads == ["best"]


def test_what_cannot_be_segmented_is_said(run: Path, tissue: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lies outside the image"):
        seen(layer(tissue[0]), run, 6)
    with pytest.raises(DataError, match="is a colour picture"):
        layers.segment_view((np.zeros((4, 4, 3)), {"rgb": True}, "image"), run, 0)
    with pytest.raises(DataError, match="is no run folder"):
        layers.run_classes(tmp_path)
    (tmp_path / "config.yaml").write_text("run: x\n")
    with pytest.raises(DataError, match="before its first checkpoint"):
        layers.run_classes(tmp_path)
    (tmp_path / "best.safetensors").touch()
    (tmp_path / "run.json").write_text('{"classes": 3}')
    with pytest.raises(DataError, match="made by another version"):
        layers.run_classes(tmp_path)
    (tmp_path / "run.json").write_text('{"classes": {"a": [1]}}')
    with pytest.raises(DataError, match="lacks network, pixel_nm"):
        seen(layer(tissue[0]), tmp_path, 0)
    assert layers.run_classes(run) == {"square": (7,), "mito": (3,)}


def test_a_flat_image_and_a_multiscale_one(run: Path, tissue: Any) -> None:
    flat = seen((tissue[0][2], {"scale": (8, 8), "units": ("nm",) * 2}, "image"), run, 0)
    assert flat.labels.shape == (1, 48, 80)
    levels = [tissue[0], tissue[0][:, ::2, ::2]]
    data, about, kind = layer(tissue[0])
    fine = seen((levels, {**about, "multiscale": True}, kind), run, 3)
    np.testing.assert_array_equal(fine.labels, seen((data, about, kind), run, 3).labels)


@pytest.mark.parametrize("nm", [TRAINED_NM, 11.0], ids=["same", "resampled"])
def test_labels_grow_with_the_blocks_and_a_cancelled_job_goes_on(
    run: Path, tissue: Any, tmp_path: Path, nm: float
) -> None:
    image, output = layer(tissue[0], nm), tmp_path / "out.tif"
    expected, _ = whole(image, run, tmp_path)
    growing = layers.GrowingLabels(tissue[0].shape, layers.run_classes(run))
    growing.follow(output)
    assert not np.asarray(growing).any()
    options: dict[str, Any] = {"precision": "fp32", "device": "cpu", "batch": 2, "smooth_z": 0}
    job = layers.segment(image, run, output, **options)
    for event in job:
        if isinstance(event, Progress) and event.unit == "blocks" and event.done == 2:
            break
    job.close()
    assert layers.finished_share(output) == pytest.approx(2 / 6)
    if nm == TRAINED_NM:
        np.testing.assert_array_equal(growing[:2], expected[:2])
    else:  # meanwhile each pixel shows the nearest one of the network's
        seen_by_network = zarr.open_array(str(working_store(output) / "labels"))[:2]
        values = np.array([0, *(members[0] for members in layers.run_classes(run).values())])
        nearest = resize(seen_by_network, (2, 48, 80), order=0, preserve_range=True, anti_aliasing=False).astype(int)
        np.testing.assert_array_equal(growing[:2], values[nearest])
        assert (growing[:2] == expected[:2]).mean() > 0.8
    assert not growing[2:].any()
    np.testing.assert_array_equal(growing[1, 4:20, ::2], growing[1][4:20, ::2])

    looked = np.full((1, 8, 8), 7, np.uint8)
    growing.put((slice(5, 6), slice(0, 8), slice(8, 16)), looked)
    assert (growing[5, :8, 8:16] == 7).all() and (growing[5] == 7).sum() == 64

    first = None
    for event in layers.segment(image, run, output, **options):
        if isinstance(event, Progress) and event.unit == "blocks" and first is None:
            first = event.done
        last = event
    assert first == 2, "finished blocks are not made again"
    assert isinstance(last, Finished)
    np.testing.assert_array_equal(Volume.open(output).read(), expected)
    assert layers.finished_share(output) is None and not working_store(output).exists()


def test_the_box_in_view() -> None:
    corners = [(100.2, -30), (400.7, 9000)]
    assert layers.view_box((9, 2048, 2000), 4, corners) == (slice(4, 5), slice(0, 2048), slice(0, 2000))
    assert layers.view_box((9, 4000, 5000), 4, corners) == (slice(4, 5), slice(100, 401), slice(0, 5000))
    assert layers.view_box((9, 600, 700), 0, corners, depth=5) == (slice(0, 5), slice(100, 401), slice(0, 700))
    assert layers.view_box((3, 600, 700), 2, corners, depth=5)[0] == slice(0, 3)


def test_a_class_has_one_colour() -> None:
    one = layers.class_colours({"mitochondria": (3, 4), "axon": (1,)})
    other = layers.class_colours({"axon": (9,), "membrane": (1,), "mitochondria": (2,)})
    assert one[3] == one[4] == other[2] and one[1] == other[9]
    assert one[0] == one[None] == "transparent"
    many = layers.class_colours({f"class {n}": (n,) for n in range(1, 17)})
    assert len({many[n] for n in range(1, 17)}) == 16


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("entropy", {"window": (3, 5, 5)}),
        ("frequency", {}),
        ("border", {"objects": "components"}),
        ("distance", {"mode": "inside_edt", "sigma": 2.0}),
        ("ratio", {"boundary": (2,), "ratio": 3.0}),
        ("diffusion", {}),
        ("entropy", {"scale": "mean1", "floor": 0.3}),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_the_previewed_weights_are_those_of_training(
    tissue: Any, tmp_path: Path, kind: str, params: dict[str, Any], lazy: bool
) -> None:
    from napari_em_da.workflows.plan import open_labelled
    from napari_em_da.workflows.streams import load_maps

    image, labels = tissue[0], tissue[1].copy()
    labels[1, :9, :9] = 255
    labels[4, 30:, 60:] = 5  # of no class
    files = [Volume.from_array(a).save(tmp_path / f"{n}.tif") for n, a in (("image", image), ("labels", labels))]
    classes = {"square": (7, 5), "mito": (3,)}
    options = dict(params)
    weights = WeightConfig(
        kind=kind, scale=options.pop("scale", None), floor=options.pop("floor", None), params=options
    )
    config = TrainConfig(
        run=tmp_path / "run",
        source=({"image": files[0], "labels": files[1]},),
        classes=classes,
        ignore_label=255,
        weights=weights,
    )
    item = open_labelled(LabelledConfig(image=files[0], labels=files[1]), classes, config.ignore_label)
    _, expected = load_maps(item, config)

    given: Any = labels
    if lazy:
        import dask.array as da

        given = da.from_array(labels, chunks=(1, 32, 80))
    sections = layers.SectionWeights(given, classes)
    for z in (0, 1, 3, 5):
        np.testing.assert_array_equal(sections.section(z, kind, **params), expected[z])
    data, _, _ = layers.weight_map_layer(labels, kind, classes=classes, **params)
    np.testing.assert_array_equal(data, expected)
    section = layers.weight_section(layers.snapshot(labels), kind, 3, classes=classes, **params)
    np.testing.assert_array_equal(section, expected[3])
