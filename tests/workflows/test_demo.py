"""The demo's whole path at toy size: three trainings, three segmentations, scores, pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_em_da.config import AdaptTrainingConfig, NetworkConfig, SamplingConfig, TrainingConfig
from napari_em_da.errors import ConfigError
from napari_em_da.events import Notice
from napari_em_da.jobs import run
from napari_em_da.workflows.auto import DEFAULT_PORTFOLIO
from napari_em_da.workflows.demo import demo


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the demo small enough for a test."""
    where = "napari_em_da.workflows.demo"
    monkeypatch.setattr(f"{where}.SHAPE", (6, 128, 192))
    monkeypatch.setattr(f"{where}.NETWORK", NetworkConfig(options={"features": 4, "levels": 2}))
    monkeypatch.setattr(f"{where}.SAMPLING", SamplingConfig(patch_px=(1, 32, 32), batch=2, validation_patches=4))
    steps = {"steps": 4, "validate_every": 2, "checkpoint_every": 4, "device": "cpu"}
    monkeypatch.setattr(f"{where}.TRAINING", TrainingConfig(**steps))
    monkeypatch.setattr(f"{where}.ADAPTATION", AdaptTrainingConfig(**steps))


def test_demo_leaves_scores_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    result = run(demo(tmp_path / "demo"))
    scores = json.loads((tmp_path / "demo" / "scores.json").read_text())
    assert scores == result.scores
    assert set(scores) == {"source_only", "adapted", "target_supervised", "seconds"}
    for name in ("source_only", "adapted", "target_supervised"):
        assert 0 <= scores[name]["iou"] <= scores[name]["dice"] <= 1
        assert (tmp_path / "demo" / f"overlay-{name}.png").stat().st_size > 1000
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 10_000
    adaptation = (tmp_path / "demo" / "adapted" / "config.yaml").read_text()
    assert "B-train.tif" in adaptation
    assert "B-train-labels" not in adaptation  # only the score and the supervised bound read the labels of B
    ways = tmp_path / "demo" / "adapted" / "portfolio"
    assert {e.name for e in DEFAULT_PORTFOLIO} <= {way.name for way in ways.iterdir()}
    previews = list((ways / "coarse" / "previews").glob("*.png"))
    assert {p.name for p in previews} == {f"{s:06d}-{n}.png" for s in (0, 2, 4) for n in ("image", "prediction")}
    assert run(demo(tmp_path / "demo")).scores == scores  # finished: reported again, nothing trained
    with pytest.raises(ConfigError, match="exists already"):
        next(demo(tmp_path / "demo", seed=1))


def test_a_stopped_demo_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    job = demo(tmp_path / "demo")
    for event in job:
        if isinstance(event, Notice) and event.text.startswith("3/3"):
            break
    job.close()
    adapted = (tmp_path / "demo" / "adapted" / "best.safetensors").read_bytes()
    texts = [e.text for e in demo(tmp_path / "demo") if isinstance(e, Notice)]
    assert sum("steps in" in t for t in texts) == 1  # the supervised bound alone was trained
    assert (tmp_path / "demo" / "adapted" / "best.safetensors").read_bytes() == adapted
