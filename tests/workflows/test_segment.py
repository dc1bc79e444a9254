"""Segmenting files: cancel and continue, checkpoints, units, and what is left on disk."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_em_da.config import (
    ChainConfig,
    EvaluateConfig,
    LabelledConfig,
    NetworkConfig,
    SamplingConfig,
    SegmentConfig,
    TrainConfig,
    TrainingConfig,
)
from napari_em_da.errors import ConfigError, DataError, ResourceError
from napari_em_da.events import Notice, Progress
from napari_em_da.jobs import run
from napari_em_da.postprocess import apply_chain
from napari_em_da.postprocess._along_z import Plan
from napari_em_da.postprocess._base import Stack
from napari_em_da.volume import Volume
from napari_em_da.workflows import evaluate, segment, train
from napari_em_da.workflows.segment import resample, resize_sections


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segment") / "run"
    config = TrainConfig(
        run=folder,
        source=(LabelledConfig(image=tiny / "A.tif", labels=tiny / "A-labels.tif"),),
        classes={"mito": (2,), "membrane": (1,)},
        network=NetworkConfig(options={"features": 4, "levels": 2}),
        sampling=SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=2),
        training=TrainingConfig(steps=4, validate_every=4, checkpoint_every=4, device="cpu", precision="fp32"),
    )
    run(train(config))
    return folder


def job(tiny: Path, trained: Path, output: Path, **changes: Any) -> SegmentConfig:
    return SegmentConfig(**{"image": tiny / "B.tif", "run": trained, "output": output, "precision": "fp32", **changes})


def test_a_stopped_segmentation_goes_on_and_equals_an_unstopped_one(tiny: Path, trained: Path, tmp_path: Path) -> None:
    run(segment(job(tiny, trained, tmp_path / "whole.tif")))
    parts = job(tiny, trained, tmp_path / "parts.tif")
    stopped = segment(parts)
    for event in stopped:
        if isinstance(event, Progress) and event.unit == "blocks" and event.done == 3:
            break
    stopped.close()
    assert not (tmp_path / "parts.tif").exists()
    first = next(e for e in segment(parts) if isinstance(e, Progress) and e.unit == "blocks")
    assert first.done >= 3
    run(segment(parts))
    np.testing.assert_array_equal(
        Volume.open(tmp_path / "parts.tif").read(), Volume.open(tmp_path / "whole.tif").read()
    )
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["parts.tif", "parts.tif.json", "whole.tif", "whole.tif.json"]


def test_output_holds_the_label_values_of_the_training_labels(tiny: Path, trained: Path, tmp_path: Path) -> None:
    result = run(segment(job(tiny, trained, tmp_path / "s.tif", probabilities=tmp_path / "p.tif")))
    labels, p = Volume.open(tmp_path / "s.tif").read(), Volume.open(tmp_path / "p.tif").read()
    np.testing.assert_array_equal(np.array([0, 2, 1])[p.argmax(-1)], labels)  # index 1 is mito (2), 2 is membrane (1)
    assert result.foreground["mito"] == pytest.approx((labels == 2).mean())
    assert json.loads((tmp_path / "s.tif.json").read_text())["classes"] == {"mito": [2], "membrane": [1]}


def test_a_volume_is_averaged_along_z_as_the_step_averages_probabilities(
    tiny: Path, trained: Path, tmp_path: Path
) -> None:
    """The step is checked against scipy; a share of 1 makes the phantom's small objects wide enough."""
    for name, share in (("plain", 0.0), ("averaged", 1.0)):
        out = tmp_path / f"{name}.tif"
        run(segment(job(tiny, trained, out, probabilities=tmp_path / f"{name}-p.zarr", smooth_z=share)))
    plain, averaged = (Volume.open(tmp_path / f"{name}-p.zarr") for name in ("plain", "averaged"))
    chain = ChainConfig(steps=({"name": "smooth_z", "options": {"share": 1.0}},))
    stack = Stack(plain.read(), "probabilities", plain.voxel_nm, ("background", "mito", "membrane"))
    expected = apply_chain(chain, stack).data
    assert np.abs(expected - plain.read()).max() > 0.01, "nothing to average would prove nothing"
    np.testing.assert_allclose(averaged.read(), expected, atol=1e-5)
    labels = np.array([0, 2, 1])[averaged.read().argmax(-1)]
    np.testing.assert_array_equal(Volume.open(tmp_path / "averaged.tif").read(), labels)
    about = [json.loads((tmp_path / f"{name}.tif.json").read_text()) for name in ("plain", "averaged")]
    assert about[0]["averaged_nm"] == {} and about[1]["averaged_nm"]["mito"] > 0


def test_a_disk_that_is_full_while_averaging_says_what_needs_less(
    tiny: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Plan, "average", full)
        with pytest.raises(ResourceError, match="smooth_z 0"):
            run(segment(job(tiny, trained, tmp_path / "s.tif", smooth_z=1.0)))
    assert not (tmp_path / "s.tif").exists()
    run(segment(job(tiny, trained, tmp_path / "s.tif", smooth_z=1.0)))


def test_averaging_that_was_stopped_is_made_again(tiny: Path, trained: Path, tmp_path: Path) -> None:
    run(segment(job(tiny, trained, tmp_path / "whole.tif", smooth_z=1.0)))
    stopped = segment(job(tiny, trained, tmp_path / "parts.tif", smooth_z=1.0))
    for event in stopped:
        if isinstance(event, Progress) and event.stage == "averaging along z" and event.done == 2:
            break
    stopped.close()
    events = list(segment(job(tiny, trained, tmp_path / "parts.tif", smooth_z=1.0)))
    blocks = [e for e in events if isinstance(e, Progress) and e.unit == "blocks"]
    assert all(e.done == e.total for e in blocks), "no block is segmented again"
    parts, whole = (Volume.open(tmp_path / f"{name}.tif").read() for name in ("parts", "whole"))
    np.testing.assert_array_equal(parts, whole)


def test_symmetry_average_of_a_flipped_image_is_the_flipped_average(tiny: Path, trained: Path, tmp_path: Path) -> None:
    image = Volume.open(tiny / "B.tif").read()[:2]
    for name, data in (("a", image), ("b", image[:, :, ::-1])):
        Volume.from_array(np.ascontiguousarray(data), voxel_nm=(8, 8, 8)).save(tmp_path / f"{name}.tif")
        config = job(tiny, trained, tmp_path / f"{name}-s.tif", image=tmp_path / f"{name}.tif", tta=True)
        run(segment(config.model_copy(update={"probabilities": tmp_path / f"{name}-p.tif"})))
    a, b = (Volume.open(tmp_path / f"{n}-p.tif").read() for n in "ab")
    np.testing.assert_allclose(a, b[:, :, ::-1], atol=1e-5)


def test_resampling_keeps_smooth_images_and_the_grid(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :120].astype(np.float32)
    smooth = np.sin(y / 15) + np.cos(x / 17)
    volume = Volume.from_array(smooth[None], voxel_nm=(40, 4, 4))
    small = resample(volume, 0.5)
    assert small.shape == (1, 48, 60)
    expected = np.sin((2 * np.mgrid[:48, :60][0] + 0.5) / 15) + np.cos((2 * np.mgrid[:48, :60][1] + 0.5) / 17)
    np.testing.assert_allclose(small.read()[0, 2:-2, 2:-2], expected[2:-2, 2:-2], atol=5e-3)
    back = resize_sections(small.data, (96, 120)).compute()[0]
    np.testing.assert_allclose(back[4:-4, 4:-4], smooth[4:-4, 4:-4], atol=2e-2)


def test_unknown_voxel_size_is_said(tiny: Path, trained: Path, tmp_path: Path) -> None:
    Volume.from_array(Volume.open(tiny / "B.tif").read()).save(tmp_path / "plain.tif")
    events = list(segment(job(tiny, trained, tmp_path / "s.tif", image=tmp_path / "plain.tif")))
    assert any(isinstance(e, Notice) and "unknown" in e.text and "--voxel-nm" in e.text for e in events)


def test_bad_input_stops_before_work(tiny: Path, trained: Path, tmp_path: Path) -> None:
    rgb = tmp_path / "rgb.tif"
    Volume.from_array(np.zeros((2, 32, 32, 3), np.uint8)).save(rgb)
    cases = [
        ({"image": rgb}, DataError, "3 channels"),
        ({"run": tmp_path}, DataError, "no run folder"),
        ({"output": tmp_path / "s.xyz"}, DataError, "No writer for '.xyz'"),
        ({"probabilities": tmp_path / "none" / "p.tif"}, DataError, "does not exist"),
        ({"tile_px": 8}, ConfigError, "tile"),
    ]
    for change, kind, text in cases:
        with pytest.raises(kind, match=text):
            run(segment(job(tiny, trained, **{"output": tmp_path / "s.tif", **change})))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rgb.tif"]


def test_evaluate_refuses_what_cannot_be_compared(tiny: Path, tmp_path: Path) -> None:
    labels = Volume.open(tiny / "B-labels.tif")
    Volume.from_array(labels.read()[:3]).save(tmp_path / "short.tif")
    Volume.from_array(labels.read().astype(np.float32)).save(tmp_path / "float.tif")
    Volume.from_array(labels.read() * 0).save(tmp_path / "empty.tif")
    good = tiny / "B-labels.tif"
    cases = [
        ("short.tif", good, r"shape \(3, 160, 160\).*\(6, 160, 160\)"),
        ("float.tif", good, "float32.*integers"),
        ("empty.tif", tmp_path / "empty.tif", "only the background"),
    ]
    for name, truth, text in cases:
        with pytest.raises(DataError, match=text):
            run(evaluate(EvaluateConfig(prediction=tmp_path / name, labels=truth)))
    perfect = run(evaluate(EvaluateConfig(prediction=good, labels=good)))
    assert perfect.scores["iou"] == 1.0


def test_an_annotation_may_use_other_values_than_the_training_labels(tiny: Path, trained: Path, tmp_path: Path) -> None:
    """The classes given are the annotation's; the prediction's own values stand in the file beside it."""
    run(segment(job(tiny, trained, tmp_path / "s.tif")))
    truth = Volume.open(tiny / "B-labels.tif").read()
    Volume.from_array(np.array([0, 1, 7, 0], np.uint8)[truth]).save(tmp_path / "other.tif")  # mitochondria are 7 there
    config = EvaluateConfig(prediction=tmp_path / "s.tif", labels=tmp_path / "other.tif", classes={"mito": (7,)})
    found = Volume.open(tmp_path / "s.tif").read() == 2
    expected = (found & (truth == 2)).sum() / (found | (truth == 2)).sum()
    assert expected > 0
    assert run(evaluate(config)).scores["iou"] == pytest.approx(expected)
    with pytest.raises(ConfigError, match="Did you mean 'mito'"):
        run(evaluate(config.model_copy(update={"classes": {"mitos": (7,)}})))
