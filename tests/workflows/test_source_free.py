"""Adapting where only the run is at hand: the source's files are gone, or are not to be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_em_da as em
from napari_em_da.config import AdaptConfig, AdaptTrainingConfig, MethodConfig, SamplingConfig, TrainConfig
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.events import Notice
from napari_em_da.selection._base import Reference
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.adapt import expand
from napari_em_da.workflows.judging import read_records
from napari_em_da.workflows.plan import make_plan
from napari_em_da.workflows.replay import replay
from napari_em_da.workflows.source_record import REFERENCE
from napari_em_da.workflows.streams import reference

SAMPLING = SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=2, selection_patches=4)
STEPS: dict[str, Any] = {"steps": 4, "validate_every": 2, "checkpoint_every": 4, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def trained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, A.tif and its labels, and the run trained on it."""
    folder = tmp_path_factory.mktemp("source_free")
    for name in ("A.tif", "A-labels.tif"):
        shutil.copy(tiny / name, folder / name)
    config = TrainConfig(
        run=folder / "run",
        source=({"image": folder / "A.tif", "labels": folder / "A-labels.tif"},),
        classes={"mito": (2,)},
        network={"options": {"features": 4, "levels": 2}},
        sampling=SAMPLING,
        training=em.TrainingConfig(**{**STEPS, "steps": 20, "validate_every": 10}),
    )
    em.run(em.train(config))
    return folder


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Path:
    """The trained run as a stranger gets it: the source's files lie where its config does not look."""
    shutil.copytree(trained / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    gone = tmp_path / "gone"
    config.write_text(config.read_text("utf-8").replace(f"{trained}/A", f"{gone}/A"), encoding="utf-8")
    return tmp_path


def job(home: Path, tiny: Path, method: str, out: str = "out", **changes: Any) -> AdaptConfig:
    base: dict[str, Any] = {
        "run": home / "run",
        "target": ({"image": tiny / "B.tif"},),
        "out": home / out,
        "method": MethodConfig(name=method),
        "training": AdaptTrainingConfig(**STEPS),
    }
    return AdaptConfig(**{**base, **changes})


def test_a_reference_survives_its_file_to_the_last_bit() -> None:
    labels = (np.random.default_rng(0).random((3, 70, 90)) < 0.4).astype(np.uint8)
    first = Reference.from_labels(labels, ["mito", "absent"], (32, 40))
    second = Reference.from_json(first.to_json())
    assert second.names == first.names
    for one, other in zip(first.shapes, second.shapes, strict=True):
        for name, value in vars(one).items():
            found = vars(other)[name]
            assert type(found) is type(value)
            assert np.array_equal(found, value) and getattr(found, "dtype", 0) == getattr(value, "dtype", 0)


def test_training_keeps_what_its_source_looks_like(trained: Path) -> None:
    folder = RunFolder.open(trained / "run")
    labels = Volume.open(trained / "A-labels.tif").read()
    share = float((labels == 2).mean())
    assert folder.info()["prior"] == pytest.approx([1 - share, share])
    kept = Reference.from_json((folder.path / REFERENCE).read_text("utf-8"))
    own = reference(make_plan(folder.config()), (32, 32))
    assert kept.to_json() == own.to_json()


@pytest.mark.parametrize("method", ["adabn", "source_free"])
def test_adapts_without_the_source_and_repeats_it(home: Path, tiny: Path, method: str) -> None:
    config = job(home, tiny, method)
    plan = make_plan(expand(config))
    source = RunFolder.open(home / "run")
    assert plan.source == ()
    assert list(plan.prior) == source.info()["prior"]
    assert plan.pixel_nm == source.info()["pixel_nm"]
    events = list(em.adapt(config))
    assert any(isinstance(e, Notice) and "No source volume is read" in e.text for e in events)
    out = RunFolder.open(home / "out")
    assert out.config().source == ()
    records = read_records(out)
    assert [r.step for r in records] == [0, 2, 4]
    assert all(r.source_iou is None and r.scores for r in records)
    # whoever adapts the result further finds the same record
    assert (out.path / REFERENCE).read_bytes() == (source.path / REFERENCE).read_bytes()
    assert out.info()["prior"] == source.info()["prior"]
    assert em.run(replay(home / "out")).identical


def test_what_the_source_image_holds_changes_nothing(trained: Path, tiny: Path, tmp_path: Path) -> None:
    """Poison: garbage in place of the source gives the same weights and scores as the source itself."""
    image = Volume.open(trained / "A.tif")
    found = []
    for number, garbage in enumerate((None, np.random.default_rng(1))):
        folder = tmp_path / str(number)
        shutil.copytree(trained / "run", folder / "run")
        for name in ("A.tif", "A-labels.tif"):
            shutil.copy(trained / name, folder / name)
        if garbage is not None:
            noise = Volume.from_array(garbage.integers(0, 255, image.shape, np.uint8), voxel_nm=image.voxel_nm)
            noise.save(folder / "A.tif", overwrite=True)
            (folder / "A-labels.tif").write_bytes(b"no labels")
        config = folder / "run" / "config.yaml"
        config.write_text(config.read_text("utf-8").replace(f"{trained}/A", f"{folder}/A"), encoding="utf-8")
        result = em.run(em.adapt(job(folder, tiny, "source_free", source_free=True)))
        found.append((result.digest, [(r.step, r.scores) for r in read_records(RunFolder(folder / "out"))]))
    assert found[0] == found[1]


def test_the_source_is_kept_where_it_is_at_hand(trained: Path, tiny: Path, tmp_path: Path) -> None:
    config = job(trained, tiny, "source_free").model_copy(update={"out": tmp_path / "out"})
    assert expand(config).source == RunFolder.open(trained / "run").config().source
    assert expand(config.model_copy(update={"source_free": True})).source == ()


def test_a_method_that_needs_the_source_says_what_is_missing(home: Path, trained: Path, tiny: Path) -> None:
    with pytest.raises(ConfigError, match=r"'coral' learns from .*A\.tif, .*A-labels\.tif are missing.*source_free"):
        em.run(em.adapt(job(home, tiny, "coral")))
    here = job(trained, tiny, "coral", source_free=True).model_copy(update={"out": home / "out"})
    with pytest.raises(ConfigError, match="which is left out"):
        em.run(em.adapt(here))
    assert not (home / "out").exists()


def test_auto_tries_what_needs_no_source(home: Path, tiny: Path) -> None:
    result = em.run(em.adapt(job(home, tiny, "auto")))
    assert result.candidates == 5
    assert sorted(p.name for p in (home / "out" / "portfolio").iterdir()) == ["adabn", "source_free"]


def test_an_older_run_says_so(home: Path, tiny: Path) -> None:
    (home / "run" / REFERENCE).write_text('{"names": ["mito"]}', encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        em.run(em.adapt(job(home, tiny, "adabn")))
    (home / "run" / REFERENCE).unlink()
    with pytest.raises(DataError, match=r"older version trained it.*Train it again"):
        em.run(em.adapt(job(home, tiny, "adabn")))


@pytest.mark.parametrize(
    ("sampling", "message"),
    [(SamplingConfig(pixel_nm=20.0), "leave sampling.pixel_nm out"), (SamplingConfig(patch_px=(1, 64, 64)), "32 x 32")],
)
def test_shapes_are_compared_at_one_scale_only(home: Path, tiny: Path, sampling: SamplingConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        em.run(em.adapt(job(home, tiny, "adabn", sampling=sampling)))


def test_the_target_is_brought_to_the_pixel_size_of_the_source(home: Path, tiny: Path) -> None:
    own = RunFolder.open(home / "run").info()["pixel_nm"]
    coarse = ({"image": tiny / "B.tif", "voxel_nm": (50.0, 2 * own, 2 * own)},)
    plan = make_plan(expand(job(home, tiny, "adabn", target=coarse)))
    assert plan.pixel_nm == own
    assert any("resampled to the source's" in text for text in plan.notices)
    info = home / "run" / "run.json"
    info.write_text(json.dumps({**json.loads(info.read_text("utf-8")), "pixel_nm": None}), encoding="utf-8")
    plan = make_plan(expand(job(home, tiny, "adabn", target=coarse)))
    assert plan.pixel_nm is None
    assert any("pixel by pixel" in text for text in plan.notices)


def test_training_needs_labelled_volumes(tmp_path: Path) -> None:
    config = TrainConfig(run=tmp_path / "run", source=(), classes={"mito": (2,)})
    with pytest.raises(ConfigError, match="No labelled volume is given"):
        em.run(em.train(config))


def test_labels_too_sparse_to_measure_still_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((60, 48, 48), np.uint8)
    labels[1, 5:20, 5:20] = 2  # in none of the sections that are measured
    Volume.from_array(rng.integers(0, 255, labels.shape, np.uint8), voxel_nm=(8, 8, 8)).save(tmp_path / "A.tif")
    Volume.from_array(labels, voxel_nm=(8, 8, 8)).save(tmp_path / "L.tif")
    config = TrainConfig(
        run=tmp_path / "run",
        source=({"image": tmp_path / "A.tif", "labels": tmp_path / "L.tif"},),
        classes={"mito": (2,)},
        network={"options": {"features": 4, "levels": 2}},
        sampling=SAMPLING.model_copy(update={"validation": 0.0}),
        training=em.TrainingConfig(**{**STEPS, "steps": 1}),
    )
    em.run(em.train(config))
    assert not (tmp_path / "run" / REFERENCE).exists()
