"""The S0 pipeline: four stages from one file, each resumable, heads replaced where classes change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from napari_em_da.config import parse
from napari_em_da.errors import ConfigError
from napari_em_da.events import Notice, Progress
from napari_em_da.jobs import run
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.pipeline import PipelineConfig, expand, pipeline, s0_template


def small(tiny: Path, out: Path) -> dict[str, Any]:
    values = copy.deepcopy(s0_template())
    values["run"] = str(out)
    base = values["base"]
    base["source"] = [{"image": str(tiny / "A.tif"), "labels": str(tiny / "A-labels.tif")}]
    base["network"]["options"] = {"features": 4, "levels": 2}
    base["sampling"] = {"patch_px": [1, 32, 32], "batch": 2, "validation_patches": 2}
    base["training"] |= {"device": "cpu", "precision": "fp32", "validate_every": 2, "checkpoint_every": 2}
    values["stages"]["M1"]["classes"] = {"boundary": [1], "mitochondria": [2]}
    for name, steps in (("M1", 4), ("M2", 2), ("M3", 2), ("M4", 4)):
        values["stages"][name]["training"] = {"steps": steps}
    values["stages"]["M4"]["target"] = [{"image": str(tiny / "B.tif")}]
    return values


def test_template_is_the_papers_stage_table() -> None:
    stages = expand(parse(PipelineConfig, s0_template()))
    assert list(stages) == ["M1", "M2", "M3", "M4"]
    assert stages["M1"].weights.kind == "entropy"
    assert len(stages["M1"].classes) == 3  # and the background: 4 classes
    assert {s.weights.kind for n, s in stages.items() if n != "M1"} == {"distance"}
    assert stages["M2"].weights.params["mode"] == "inside_edt"
    assert stages["M2"].augment.photometric == 0
    assert stages["M3"].augment.photometric == 0.5
    assert stages["M4"].method.name == "adversarial"
    assert stages["M4"].target
    assert [stages[n].init.name if stages[n].init else None for n in stages] == [None, "M1", "M2", "M3"]
    assert {s.training.learning_rate for s in stages.values()} == {1e-4}


def test_stages_start_from_each_other_and_resume(tiny: Path, tmp_path: Path) -> None:
    config = parse(PipelineConfig, small(tiny, tmp_path / "s0"))
    job = pipeline(config)
    stage = ""
    for event in job:
        if isinstance(event, Notice) and event.text.startswith("Stage"):
            stage = event.text
        if stage.startswith("Stage M2") and isinstance(event, Progress) and event.unit == "steps":
            break
    job.close()
    events = [e.text for e in pipeline(config) if isinstance(e, Notice) and e.text.startswith("Stage")]
    assert ["finished" in events[0], "resuming" in events[1]] == [True, True]
    folders = {name: RunFolder.open(tmp_path / "s0" / name) for name in ("M1", "M2", "M3", "M4")}
    assert [f.info()["network"]["classes"] for f in folders.values()] == [3, 2, 2, 2]
    assert all(f.info()["finished"] for f in folders.values())
    whole = parse(PipelineConfig, small(tiny, tmp_path / "again"))
    run(pipeline(whole))
    for name, folder in folders.items():
        a, _ = checkpoint.load(folder.last)
        b, _ = checkpoint.load(tmp_path / "again" / name / "last.safetensors")
        assert all(torch.equal(a[k], b[k]) for k in a), name


def test_a_wrong_stage_stops_before_the_first(tiny: Path, tmp_path: Path) -> None:
    values = small(tiny, tmp_path / "s0")
    values["stages"]["M3"]["init"] = "M9"
    with pytest.raises(ConfigError, match=r"Stage M3.*'M9'"):
        next(pipeline(parse(PipelineConfig, values)))
    values["stages"]["M3"] = {"trainning": {}}
    with pytest.raises(ConfigError, match=r"Stage M3.*training"):
        next(pipeline(parse(PipelineConfig, values)))
    assert not (tmp_path / "s0").exists()
