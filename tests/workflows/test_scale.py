"""Physical scale: section spacing of 3D networks, and what an adaptation does where voxel sizes are unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_em_da as em
from napari_em_da.config import AdaptConfig, AdaptTrainingConfig, AugmentConfig, SamplingConfig, TrainConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Notice
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.adapt import expand
from napari_em_da.workflows.auto import at_pixel
from napari_em_da.workflows.plan import make_plan
from napari_em_da.workflows.replay import replay
from napari_em_da.workflows.segment import spacing_step
from napari_em_da.workflows.train import train

STEPS: dict[str, Any] = {"steps": 2, "validate_every": 2, "checkpoint_every": 2, "device": "cpu", "precision": "fp32"}
FLAT = SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=2, selection_patches=2)
DEEP = FLAT.model_copy(update={"patch_px": (4, 32, 32)})
NET_2D: dict[str, Any] = {"name": "unet", "options": {"features": 4, "levels": 1}}
NET_3D: dict[str, Any] = {"name": "unet3d", "options": {"features": 2, "levels": 1, "convs": 1}}


def save(path: Path, depth: int, voxel_nm: tuple[float, float, float] | None, seed: int) -> Path:
    """Write a volume of noise with bright squares, and labels of the squares beside it."""
    labels = np.zeros((depth, 48, 48), np.uint8)
    labels[:, 8:24, 8:24] = labels[:, 30:44, 26:46] = 1
    image = np.random.default_rng(seed).normal(100 + 40 * labels, 25).clip(0, 255).astype(np.uint8)
    Volume.from_array(image, voxel_nm=voxel_nm).save(path)
    Volume.from_array(labels, voxel_nm=voxel_nm).save(path.with_name(f"{path.stem}-labels.tif"))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes A and B of several spacings; ``-?`` has no voxel size."""
    folder = tmp_path_factory.mktemp("scale")
    save(folder / "A-5.tif", 40, (5, 8, 8), 1)
    save(folder / "A-?.tif", 12, None, 2)
    save(folder / "A-16.tif", 12, (8, 16, 16), 6)
    save(folder / "B-20.tif", 12, (20, 8, 8), 3)
    save(folder / "B-50.tif", 12, (50, 8, 8), 4)
    save(folder / "B-?.tif", 12, None, 5)
    return folder


def labelled(data: Path, *names: str) -> tuple[dict[str, Path], ...]:
    return tuple({"image": data / f"{n}.tif", "labels": data / f"{n}-labels.tif"} for n in names)


def training(run: Path, data: Path, *names: str, **changes: Any) -> TrainConfig:
    base = {"run": run, "source": labelled(data, *names), "classes": {"square": (1,)}, "network": NET_3D,
            "sampling": DEEP, "training": em.TrainingConfig(**STEPS)}  # fmt: skip
    return TrainConfig(**{**base, **changes})


def adaptation(run: Path, data: Path, target: str, out: Path, method: str = "mmd", **changes: Any) -> AdaptConfig:
    base = {"run": run, "target": ({"image": data / f"{target}.tif"},), "out": out, "method": {"name": method},
            "training": AdaptTrainingConfig(**STEPS)}  # fmt: skip
    return AdaptConfig(**{**base, **changes})


@pytest.fixture(scope="module")
def runs(data: Path) -> Path:
    """Runs trained on A: ``deep`` (3D), ``flat`` (2D), ``unknown`` (2D, no voxel size), ``own`` (augment.scale set)."""
    em.run(train(training(data / "deep", data, "A-5")))
    em.run(train(training(data / "flat", data, "A-5", network=NET_2D, sampling=FLAT)))
    unknown = training(data / "unknown", data, "A-?", network=NET_2D, sampling=FLAT)
    em.run(train(unknown))
    own = {"run": data / "own", "augment": AugmentConfig(scale=(0.9, 1.5))}
    em.run(train(unknown.model_copy(update=own)))
    return data


def texts(events: list[Any], level: str | None = None) -> str:
    return "\n".join(e.text for e in events if isinstance(e, Notice) and level in (None, e.level))


# --- sections ---


def test_a_3d_network_trains_at_the_coarsest_spacing_of_its_volumes(data: Path, tmp_path: Path) -> None:
    plan = make_plan(training(tmp_path / "run", data, "A-5", "B-20"))
    assert plan.section_nm == 20
    assert any("sections of A-5 are 5 nm apart: windows take those nearest to every 20 nm" in t for t in plan.notices)
    assert not any("sections of B-20" in t for t in plan.notices)
    asked = DEEP.model_copy(update={"section_nm": 45.0})
    plan = make_plan(training(tmp_path / "run", data, "A-5", "B-20", sampling=asked))
    assert plan.section_nm == 45
    with pytest.raises(ConfigError, match=r"section_nm is 15, but the sections of B-20 are 20 nm apart; .* to 20 or"):
        make_plan(training(tmp_path / "run", data, "A-5", "B-20", sampling=DEEP.model_copy(update={"section_nm": 15})))
    near = DEEP.model_copy(update={"section_nm": 4.95})  # one percent below: the same sections
    assert make_plan(training(tmp_path / "run", data, "A-5", sampling=near)).section_nm == 4.95


def test_too_few_sections_at_the_spacing_are_said(data: Path, tmp_path: Path) -> None:
    coarse = DEEP.model_copy(update={"section_nm": 70.0})  # steps of 14: sections 0, 14 and 28
    plan = make_plan(training(tmp_path / "run", data, "A-5", sampling=coarse))
    assert [w for w in plan.warnings if "The 40 sections of A-5 leave 3 at every 70 nm, fewer than the 4" in w]
    assert not make_plan(training(tmp_path / "run", data, "A-5", "B-20")).warnings


def test_sections_mean_nothing_to_a_2d_network(data: Path, tmp_path: Path) -> None:
    asked = FLAT.model_copy(update={"section_nm": 1.0})
    plan = make_plan(training(tmp_path / "run", data, "A-5", "B-20", network=NET_2D, sampling=asked))
    assert plan.section_nm is None and any("section_nm has no effect: 'unet' is a 2D" in t for t in plan.notices)


def test_unknown_sections_are_taken_as_they_are_unless_a_spacing_is_asked_for(data: Path, tmp_path: Path) -> None:
    assert make_plan(training(tmp_path / "run", data, "A-?")).section_nm is None
    with pytest.raises(
        DataError, match=r"A-\?.tif is unknown, so its sections cannot be taken every 20 nm; .*voxel-nm"
    ):
        make_plan(training(tmp_path / "run", data, "A-?", sampling=DEEP.model_copy(update={"section_nm": 20})))


def test_an_adaptation_trains_at_the_coarser_spacing_and_says_so_in_the_run(runs: Path, tmp_path: Path) -> None:
    assert RunFolder.open(runs / "deep").info()["section_nm"] == 5
    assert RunFolder.open(runs / "flat").info()["section_nm"] is None
    config = adaptation(runs / "deep", runs, "B-20", tmp_path / "out")
    events = list(em.adapt(config))
    assert RunFolder.open(tmp_path / "out").info()["section_nm"] == 20
    assert "windows take those nearest to every 20 nm" in texts(events)
    # a network that knows 20 nm keeps to them on finer volumes, unless told otherwise
    again = expand(adaptation(tmp_path / "out", runs, "A-16", tmp_path / "two"))
    assert again.sampling.section_nm is None and make_plan(again).section_nm == 20
    told = expand(adaptation(tmp_path / "out", runs, "A-16", tmp_path / "two", sampling=SamplingConfig(section_nm=8)))
    assert make_plan(told).section_nm == 8
    # without the source the same holds
    free = adaptation(runs / "deep", runs, "B-50", tmp_path / "free", "adabn", source_free=True)
    assert make_plan(expand(free)).section_nm == 50


def test_segmentation_sees_sections_at_the_spacing_of_the_run(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    em.run(train(training(run, runs, "B-20")))
    output = tmp_path / "s.tif"
    job = {"image": runs / "A-5.tif", "run": run, "output": output, "precision": "fp32", "device": "cpu"}
    events = list(em.segment(em.SegmentConfig(**job, probabilities=tmp_path / "p.tif")))
    assert "trained on sections 20 nm apart, these are 5 nm apart" in texts(events)
    volume, net = Volume.open(runs / "A-5.tif"), RunFolder.open(run).network()
    image = torch.from_numpy(volume.intensity.standardise(volume.read()))
    expected = np.full((2, *volume.shape), np.nan, np.float32)
    with torch.no_grad():
        for phase in range(4):
            expected[:, phase::4] = net(image[None, None, phase::4])[0].softmax(0).numpy()
        unstepped = net(image[None, None])[0].softmax(0).numpy()
    found = np.moveaxis(Volume.open(tmp_path / "p.tif").read(), -1, 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(Volume.open(output).read(), found.argmax(0))
    assert np.abs(unstepped - expected).max() > 1e-3


def test_steps_of_a_segmentation() -> None:
    def volume(z: float | None) -> Volume:
        return Volume.from_array(np.zeros((4, 8, 8), np.uint8), voxel_nm=None if z is None else (z, 4, 4))

    assert spacing_step(volume(5), 50)[0] == 10
    assert spacing_step(volume(30), 50)[0] == pytest.approx(5 / 3)
    for z, trained in ((50, 50.5), (None, 50), (5, None)):
        assert spacing_step(volume(z), trained) == (1.0, None)
    step, notice = spacing_step(volume(50), 5)
    assert step == 1 and notice is not None and notice.level == "warning" and "do not exist" in notice.text


# --- unknown voxel sizes ---


def test_unknown_sizes_widen_the_scale_and_the_run_repeats_it(runs: Path, tmp_path: Path) -> None:
    config = adaptation(runs / "unknown", runs, "B-?", tmp_path / "out")
    events = list(em.adapt(config))
    assert "magnified at random by 0.5 to 2 (augment.scale). Give it with --voxel-nm" in texts(events, "info")
    folder = RunFolder.open(tmp_path / "out")
    assert folder.config().augment.scale == (0.5, 2.0)
    assert RunFolder.open(runs / "unknown").config().augment.scale == (0.8, 1.25)  # training alone is as it was
    assert em.run(replay(tmp_path / "out")).identical
    assert RunFolder.open(tmp_path / "out-replay").config().augment.scale == (0.5, 2.0)
    em.run(em.adapt(config, resume=True))  # the same options again are the same job


def test_the_windows_are_magnified_that_far(runs: Path, tmp_path: Path) -> None:
    """What is recorded is what the samplers get: the spread of drawn magnifications fills 0.5 to 2."""
    from napari_em_da.augment.geometry import random_deformation

    augment = make_plan(expand(adaptation(runs / "unknown", runs, "B-?", tmp_path / "o"))).config.augment
    rng = np.random.default_rng(0)
    drawn = [1 / np.sqrt(abs(np.linalg.det(random_deformation(augment, (1, 8, 8), rng).matrix))) for _ in range(2000)]
    assert 0.5 <= min(drawn) < 0.51 and 1.97 < max(drawn) <= 2.0
    assert np.log2(drawn).mean() == pytest.approx(0, abs=0.05)  # log-uniform: as often half as double


@pytest.mark.parametrize(
    ("run", "given", "scale"),
    [
        ("unknown", {"scale": (0.95, 1.05)}, (0.95, 1.05)),  # set for the adaptation
        ("unknown", {"scale": (0.8, 1.25)}, (0.8, 1.25)),  # even to the default
        ("own", {}, (0.9, 1.5)),  # set for the training
        ("unknown", {"flip": False}, (0.5, 2.0)),  # something else is set
    ],
)
def test_what_the_user_set_stays(
    runs: Path, tmp_path: Path, run: str, given: dict[str, Any], scale: tuple[float, float]
) -> None:
    config = expand(adaptation(runs / run, runs, "B-?", tmp_path / "out", augment=AugmentConfig(**given)))
    plan = make_plan(config)
    assert plan.config.augment.scale == scale
    assert make_plan(plan.config).config == plan.config
    assert any(f"{scale[0]:g} to {scale[1]:g}" in text for text in plan.notices)


@pytest.mark.parametrize(("run", "target"), [("flat", "B-?"), ("unknown", "B-20")])
def test_one_known_side_goes_on_in_pixels_with_a_warning(runs: Path, tmp_path: Path, run: str, target: str) -> None:
    plan = make_plan(expand(adaptation(runs / run, runs, target, tmp_path / "out")))
    assert plan.pixel_nm is None and plan.config.augment.scale == (0.5, 2.0)
    missing = "B-?" if target == "B-?" else "A-?"
    assert len(plan.warnings) == 1 and f"{missing}.tif is unknown" in plan.warnings[0]
    asked = adaptation(runs / run, runs, target, tmp_path / "out", sampling=SamplingConfig(pixel_nm=8.0))
    with pytest.raises(DataError, match=r"\?.tif is unknown, so it cannot be brought.*--voxel-nm"):
        make_plan(expand(asked))


def test_known_sizes_leave_the_scale_alone(runs: Path, tmp_path: Path) -> None:
    plan = make_plan(expand(adaptation(runs / "flat", runs, "B-20", tmp_path / "out")))
    assert plan.config.augment.scale == (0.8, 1.25) and plan.pixel_nm == 8 and not plan.warnings


def test_methods_without_labels_are_not_taught_other_scales(runs: Path, tmp_path: Path) -> None:
    plan = make_plan(expand(adaptation(runs / "unknown", runs, "B-?", tmp_path / "out", "adabn")))
    assert plan.config.augment.scale == (0.8, 1.25)


def test_training_alone_needs_all_sizes_where_they_differ(data: Path, tmp_path: Path) -> None:
    two = training(tmp_path / "run", data, "A-?", "A-5", network=NET_2D, sampling=FLAT)
    plan = make_plan(two)
    assert plan.pixel_nm is None and len(plan.warnings) == 1 and plan.config.augment.scale == (0.8, 1.25)
    with pytest.raises(DataError, match=r"A-\?.tif is unknown, so it cannot be brought"):
        make_plan(training(tmp_path / "run", data, "A-?", "A-5", "A-16", network=NET_2D, sampling=FLAT))


def test_auto_asks_for_no_pixel_size_where_one_is_unknown(runs: Path, tmp_path: Path) -> None:
    unknown = adaptation(runs / "flat", runs, "B-?", tmp_path / "out")
    assert at_pixel(unknown, 1.6).pixel_nm is None
    assert at_pixel(adaptation(runs / "flat", runs, "B-20", tmp_path / "out"), 1.6).pixel_nm == pytest.approx(12.8)
