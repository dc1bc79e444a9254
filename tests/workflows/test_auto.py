"""Several adaptations, one choice without labels, one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import napari_em_da as em
from napari_em_da import cli
from napari_em_da.config import AdaptConfig, AdaptTrainingConfig, MethodConfig, SamplingConfig, TrainConfig
from napari_em_da.errors import ConfigError
from napari_em_da.events import Notice
from napari_em_da.selection.guards import Guards
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.auto import Entry, starting_point
from napari_em_da.workflows.judging import candidates, read_records

SAMPLING = SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=4, selection_patches=6)
STEPS: dict[str, Any] = {"steps": 4, "validate_every": 2, "checkpoint_every": 4, "device": "cpu", "precision": "fp32"}
PORTFOLIO = [
    {"name": "statistics", "method": {"name": "adabn"}},
    {"name": "aligned", "method": {"name": "coral"}, "augment": {"match_target": 0.5}},
]


@pytest.fixture(scope="module")
def source(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("auto") / "source"
    config = TrainConfig(
        run=run,
        source=({"image": tiny / "A.tif", "labels": tiny / "A-labels.tif"},),
        classes={"mito": (2,)},
        network={"options": {"features": 4, "levels": 2}},
        sampling=SAMPLING,
        training=em.TrainingConfig(**{**STEPS, "steps": 30, "validate_every": 10}),
    )
    em.run(em.train(config))
    return run


def job(source: Path, target: Path, out: Path, **options: Any) -> AdaptConfig:
    return AdaptConfig(
        run=source,
        target=({"image": target},),
        out=out,
        method=MethodConfig(name="auto", options={"portfolio": PORTFOLIO, **options}),
        sampling=SAMPLING,
        training=AdaptTrainingConfig(**STEPS),
    )


def test_auto_leaves_a_run_that_segments(source: Path, tiny: Path, tmp_path: Path) -> None:
    result = em.run(em.adapt(job(source, tiny / "B.tif", tmp_path / "auto")))
    assert result.candidates == 5  # the source model once, two steps of each
    report = (tmp_path / "auto" / "choice.md").read_text("utf-8")
    assert all(name in report for name in ("source_only", "statistics", "aligned", "(chosen)"))
    folder = RunFolder.open(tmp_path / "auto")
    assert folder.info()["chosen"] == result.chosen
    home = next((tmp_path / "auto" / "portfolio").glob("*")) if result.step == 0 else None
    home = home or tmp_path / "auto" / "portfolio" / result.chosen
    chosen = next(r for r in read_records(RunFolder(home)) if r.step == result.step)
    assert folder.best.read_bytes() == chosen.weights.read_bytes()
    out = tmp_path / "seg.tif"
    em.run(em.segment(em.SegmentConfig(image=tiny / "B.tif", run=tmp_path / "auto", output=out)))
    assert set(np.unique(Volume.open(out).read())) <= {0, 2}


def test_the_labels_of_the_target_change_nothing(source: Path, tiny: Path, tmp_path: Path) -> None:
    """Poison: with wrong labels, or none, beside the target, every weight and every score stays the same."""
    runs = []
    for number, poison in enumerate((None, np.zeros, np.ones)):
        folder = tmp_path / str(number)
        folder.mkdir()
        image = Volume.open(tiny / "B.tif")
        target = image.save(folder / "B.tif")
        if poison is not None:
            Volume.from_array(poison(image.shape, np.uint8), voxel_nm=image.voxel_nm).save(folder / "B-labels.tif")
        em.run(em.adapt(job(source, target, folder / "auto")))
        records = [r for run in sorted((folder / "auto" / "portfolio").iterdir()) for r in read_records(RunFolder(run))]
        best = RunFolder(folder / "auto").best.read_bytes()
        runs.append((best, [(r.name, r.step, r.scores, r.weights.read_bytes()) for r in records]))
    assert runs[0] == runs[1] == runs[2]


def test_a_stopped_auto_goes_on(source: Path, tiny: Path, tmp_path: Path) -> None:
    config = job(source, tiny / "B.tif", tmp_path / "auto")
    running = em.adapt(config)
    for event in running:
        if isinstance(event, Notice) and event.text.startswith("4 steps"):
            break
    running.close()
    first = (tmp_path / "auto" / "portfolio" / "statistics" / "candidates" / "000004.safetensors").read_bytes()
    from napari_em_da.workflows.adapt import adapt

    texts = [e.text for e in adapt(config, resume=True) if isinstance(e, Notice)]
    assert sum(text.startswith("4 steps") for text in texts) == 1  # only the second was trained
    assert first == (tmp_path / "auto" / "portfolio" / "statistics" / "candidates" / "000004.safetensors").read_bytes()


def test_a_spent_budget_and_wrong_portfolios_are_told(source: Path, tiny: Path, tmp_path: Path) -> None:
    config = job(source, tiny / "B.tif", tmp_path / "auto", minutes=1e-6)
    texts = [e.text for e in em.adapt(config) if isinstance(e, Notice)]
    assert any("not tried: aligned" in text for text in texts)
    twice = job(source, tiny / "B.tif", tmp_path / "x", portfolio=[PORTFOLIO[0], PORTFOLIO[0]])
    with pytest.raises(ConfigError, match="must differ"):
        em.run(em.adapt(twice))
    with pytest.raises(ConfigError, match="Did you mean 'morphology'"):
        em.run(em.adapt(job(source, tiny / "B.tif", tmp_path / "x", criteria=["morfology"])))
    odd = [{**PORTFOLIO[1], "augment": {"match_targt": 1}}]
    with pytest.raises(ConfigError, match="Did you mean 'match_target'"):
        em.run(em.adapt(job(source, tiny / "B.tif", tmp_path / "x", portfolio=odd)))
    assert not (tmp_path / "x").exists()


def test_the_command_line_offers_auto(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["adapt", "--help"])
    assert "auto" in capsys.readouterr().out


def test_an_entry_can_start_from_one_before(source: Path, tiny: Path, tmp_path: Path) -> None:
    later = {"name": "later", "method": {"name": "mean_teacher"}, "start": "aligned"}
    coarse = {**PORTFOLIO[1], "pixel_factor": 2.0}
    config = job(source, tiny / "B.tif", tmp_path / "auto", portfolio=[PORTFOLIO[0], coarse, later])
    result = em.run(em.adapt(config))
    assert result.candidates == 7  # what "later" starts from is known already
    home = tmp_path / "auto" / "portfolio"
    before, trained = RunFolder(home / "aligned"), RunFolder(home / "later")
    passing = [c.step for c in candidates(read_records(before), Guards()) if not c.refused and c.step]
    assert trained.config().init == (home / "later-start" if passing else source)
    if passing:
        weights = load_file(home / "aligned" / "candidates" / f"{max(passing):06d}.safetensors")
        first = load_file(home / "later" / "candidates" / "000000.safetensors")
        assert weights.keys() == first.keys()
        assert all((first[name] == tensor).all() for name, tensor in weights.items())
        assert trained.info()["pixel_nm"] == before.info()["pixel_nm"]
    for start in ("later", "aligned", "nowhere"):
        odd = [{**later, "start": start}, coarse]
        with pytest.raises(ConfigError, match="Unknown start"):
            em.run(em.adapt(job(source, tiny / "B.tif", tmp_path / "x", portfolio=odd)))


def test_where_nothing_passes_the_entry_starts_from_the_source(source: Path, tiny: Path, tmp_path: Path) -> None:
    config = job(source, tiny / "B.tif", tmp_path / "auto")
    entry = Entry(name="later", method=MethodConfig(name="mean_teacher"), start="aligned")
    run, sampling = starting_point(entry, config, [], tmp_path)
    assert run == source and sampling == config.sampling
    assert not (tmp_path / "later-start").exists()
