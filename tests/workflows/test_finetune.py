"""Fine-tuning: what is left open comes from the run, gentler, and the start is what the run segments with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import napari_em_da as em
from napari_em_da import cli
from napari_em_da.config import (
    AdaptConfig,
    AdaptTrainingConfig,
    AugmentConfig,
    FinetuneConfig,
    LabelledConfig,
    MethodConfig,
    SamplingConfig,
    TrainConfig,
    TrainingConfig,
)
from napari_em_da.errors import DataError
from napari_em_da.events import Progress
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.finetune import expand
from napari_em_da.workflows.plan import build_network

MACHINE: dict[str, Any] = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def source(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finetune") / "source"
    config = TrainConfig(
        run=out,
        source=({"image": tiny / "A.tif", "labels": tiny / "A-labels.tif"},),
        classes={"mito": (2,)},
        ignore_label=77,
        network={"options": {"features": 4, "levels": 2}},
        augment={"rotate_deg": 30.0, "match_target": 0.5},
        sampling={"patch_px": (1, 32, 32), "batch": 2, "validation_patches": 2, "selection_patches": 4},
        training={"steps": 13, "learning_rate": 4e-3, "validate_every": 6, "ema": 0.9, "seed": 8, **MACHINE},
    )
    em.run(em.train(config))
    return out


@pytest.fixture(scope="module")
def adapted(tiny: Path, source: Path) -> Path:
    """Adapted to B at another pixel size, with batch-norm statistics of its own."""
    out = source.with_name("adapted")
    config = AdaptConfig(
        run=source,
        target=({"image": tiny / "B.tif", "voxel_nm": (50, 6, 6)},),
        out=out,
        method=MethodConfig(name="coral"),
        training=AdaptTrainingConfig(steps=6, validate_every=3, **MACHINE),
    )
    em.run(em.adapt(config))
    return out


def job(run: Path, tiny: Path, out: Path, fraction: float = 1.0, **changes: Any) -> FinetuneConfig:
    item = LabelledConfig(image=tiny / "B.tif", labels=tiny / "B-labels.tif", voxel_nm=(50, 6, 6), fraction=fraction)
    base: dict[str, Any] = {"run": run, "source": (item,), "out": out, "training": TrainingConfig(**MACHINE)}
    return FinetuneConfig(**{**base, **changes})


def test_what_is_left_open_comes_from_the_run(source: Path, tiny: Path, tmp_path: Path) -> None:
    full = expand(job(source, tiny, tmp_path / "out"))
    assert full.training.learning_rate == pytest.approx(4e-4) and full.training.steps == 6
    assert (full.training.ema, full.training.seed, full.training.validate_every) == (0.9, 8, 6)
    assert full.network.options == {"features": 4, "levels": 2} and full.init == source
    assert (full.classes, full.ignore_label) == ({"mito": (2,)}, 77)
    assert (full.sampling.patch_px, full.sampling.pixel_nm) == ((1, 32, 32), pytest.approx(8.0))
    assert (full.augment.rotate_deg, full.augment.match_target) == (30.0, 0.0)
    assert (full.method, full.target) == (MethodConfig(name="supervised"), ())


def test_what_the_user_sets_wins(source: Path, tiny: Path, tmp_path: Path) -> None:
    training = TrainingConfig(steps=50, learning_rate=0.5, seed=1, **MACHINE)
    changes: dict[str, Any] = {"training": training, "sampling": SamplingConfig(batch=5, pixel_nm=7.0)}
    changes |= {"augment": AugmentConfig(flip=False), "classes": {"mito": (3,)}}
    full = expand(job(source, tiny, tmp_path / "out", **changes))
    assert (full.training.steps, full.training.learning_rate, full.training.seed) == (50, 0.5, 1)
    assert full.training.ema == 0.9
    assert (full.sampling.batch, full.sampling.pixel_nm, full.sampling.patch_px) == (5, 7.0, (1, 32, 32))
    assert (full.augment.flip, full.augment.rotate_deg) == (False, 30.0)
    # other classes mean other label values, of which the run's ignored one says nothing
    assert (full.classes, full.ignore_label) == ({"mito": (3,)}, None)
    both = expand(job(source, tiny, tmp_path / "out", classes={"mito": (3,)}, ignore_label=9))
    assert both.ignore_label == 9
    none = expand(job(source, tiny, tmp_path / "out", ignore_label=None))
    assert (none.classes, none.ignore_label) == ({"mito": (2,)}, None)


def test_an_adapted_run_starts_with_the_targets_statistics(
    adapted: Path, source: Path, tiny: Path, tmp_path: Path
) -> None:
    full = expand(job(adapted, tiny, tmp_path / "out"))
    assert full.sampling.pixel_nm == pytest.approx(6.0)
    network, _ = build_network(full)
    start = network.state_dict()
    best = checkpoint.unprefixed("network", checkpoint.load(RunFolder(adapted).best)[0])
    assert start.keys() == best.keys()
    assert all(torch.equal(start[name], best[name]) for name in start)
    # coral normalises source and target apart; the run's method keeps the other domain's statistics in the network
    last = checkpoint.load(RunFolder(adapted).last)[0]
    means = [name for name in start if name.endswith("running_mean")]
    method = checkpoint.unprefixed("method", last)
    segments_with = checkpoint.unprefixed("network", last)
    assert means
    assert any(not torch.equal(method[f"network.{name}"], segments_with[name]) for name in means)


def test_it_trains_on_the_target_and_resumes_bitwise(adapted: Path, tiny: Path, tmp_path: Path) -> None:
    first = em.run(em.finetune(job(adapted, tiny, tmp_path / "whole", 0.3)))
    assert first.steps == 3  # half of the adaptation's 6
    info = RunFolder(tmp_path / "whole").info()
    assert info["pixel_nm"] == pytest.approx(6.0) and len(info["source"][0]["sections"]) == 2
    assert info["source"][0]["path"] == str(tiny / "B.tif") and info["target"] == []
    parts = em.finetune(job(adapted, tiny, tmp_path / "parts", 0.3))
    for event in parts:
        if isinstance(event, Progress) and event.unit == "steps" and event.done == 2:
            break
    parts.close()
    assert em.run(em.finetune(job(adapted, tiny, tmp_path / "parts", 0.3), resume=True)).digest == first.digest


def test_a_tiny_rate_leaves_the_network_where_it_started(source: Path, tiny: Path, tmp_path: Path) -> None:
    still = TrainingConfig(steps=1, learning_rate=1e-12, ema=0.0, **MACHINE)
    em.run(em.finetune(job(source, tiny, tmp_path / "out", training=still)))
    before, after = (RunFolder(path).network().state_dict() for path in (source, tmp_path / "out"))
    for name, tensor in before.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], tensor, atol=1e-8, rtol=0)


def test_no_run_no_work(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run folder"):
        em.run(em.finetune(job(tmp_path / "absent", tiny, tmp_path / "out")))


def test_the_command_line(source: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["finetune", str(tiny / "B.tif"), str(tiny / "B-labels.tif"), "--run", str(source)]
    command += ["--out", str(tmp_path / "out"), "--label-fraction", "0.3", "--training.steps", "2"]
    assert cli.main(command) == 0
    config = RunFolder(tmp_path / "out").config()
    assert config.training.steps == 2 and config.training.learning_rate == pytest.approx(4e-4)
    assert config.source[0].fraction == 0.3 and config.classes == {"mito": (2,)} and config.ignore_label == 77
    capsys.readouterr()
    assert cli.main(command[:2] + command[3:]) == 2
    assert "1 volumes given" in capsys.readouterr().err
    assert cli.main([*command, "--resume"]) == 0
