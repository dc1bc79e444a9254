"""A pipeline: training stages that start from each other, each resumable; S0's is the template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from napari_em_da.catalog import unknown
from napari_em_da.config import Config, TrainConfig, parse
from napari_em_da.errors import ConfigError
from napari_em_da.events import Finished, Notice
from napari_em_da.jobs import Job, forward
from napari_em_da.workflows.train import full, train


class PipelineConfig(Config):
    """Stages in order. Each is a TrainConfig in the making: ``base`` merged with the stage's own entries.

    ``init`` of a stage may name an earlier stage; its run folder is ``run`` / the stage's name.
    """

    run: Path = Field(description="Folder that holds one run folder per stage")
    base: dict[str, Any] = Field(default_factory=dict, description="What all stages share")
    stages: dict[str, dict[str, Any]] = Field(min_length=1, description="Stage name: what it changes")


def pipeline(config: PipelineConfig) -> Job:
    """Run the stages in order; finished ones are kept, a stopped one is resumed. Finished carries {stage: folder}.

    Raises
    ------
    ConfigError
        Before the first stage starts, if any stage is wrong.
    """
    stages = expand(config)
    folders: dict[str, Path] = {}
    for name, stage in stages.items():
        folders[name] = stage.run
        about = stage.run / "run.json"
        if about.is_file() and json.loads(about.read_text(encoding="utf-8")).get("finished"):
            yield Notice(f"Stage {name} is finished; {stage.run} is kept.")
            continue
        resume = (stage.run / "config.yaml").is_file()
        yield Notice(f"Stage {name}: {'resuming' if resume else 'starting'} in {stage.run}.")
        yield from forward(train(stage, resume=resume))
    yield Finished(folders)


def expand(config: PipelineConfig) -> dict[str, TrainConfig]:
    """Return the complete config of every stage."""
    root = full(config.run)
    result: dict[str, TrainConfig] = {}
    for name, changes in config.stages.items():
        merged = merge(config.base, changes)
        if isinstance(merged.get("init"), str) and not Path(merged["init"]).is_dir():
            earlier = merged["init"]
            if earlier not in result:
                raise ConfigError(f"Stage {name}: " + unknown("earlier stage", earlier, tuple(result)))
            merged["init"] = result[earlier].run
        try:
            result[name] = parse(TrainConfig, {**merged, "run": root / name})
        except ConfigError as error:
            raise ConfigError(f"Stage {name}: {error}") from None
    return result


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` put in, section by section; ``classes`` are replaced as a whole."""
    result = dict(base)
    for key, value in changes.items():
        section = isinstance(value, Mapping) and isinstance(result.get(key), Mapping) and key != "classes"
        result[key] = merge(result[key], value) if section else value
    return result


def load(path: Path) -> PipelineConfig:
    """Read a pipeline from YAML."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the pipeline {path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no pipeline; 'napari-em-da pipeline --template' prints one to start from.")
    return parse(PipelineConfig, values)


def s0_template() -> dict[str, Any]:
    """Return S0's four stages with their published lengths scaled to steps (1 "iteration" = 1 epoch = 100 steps).

    M1 learns all classes under the entropy map; M2 boundaries alone under the distance map, its classification layer
    new; M3 adds random jitter; M4 adapts by the adversarial label distribution.
    """
    jitter = {"photometric": 0.5, "brightness": 0.12, "contrast": [0.8, 1.2], "gamma": [0.7, 1.5]}
    distance = {"kind": "distance", "floor": 0.0, "scale": "max1", "params": {"mode": "inside_edt"}}
    return {
        "run": "runs/s0",
        "base": {
            "source": [{"image": "source.tif", "labels": "labels.tif", "voxel_nm": [10, 10, 10]}],
            "classes": {"boundary": [1]},
            "network": {"name": "unet", "options": {}},
            "augment": {"photometric": 0.0},
            "training": {"learning_rate": 1e-4, "schedule": "constant"},
            "loss": {"overlap": "none"},
        },
        "stages": {
            "M1": {
                "classes": {"boundary": [1], "mitochondria": [3], "glia": [4]},
                "weights": {"kind": "entropy"},
                "training": {"steps": 12000},
            },
            "M2": {"init": "M1", "init_head": "new", "weights": distance, "training": {"steps": 2000}},
            "M3": {
                "init": "M2",
                "weights": distance,
                "augment": {**jitter, "blur_px": 1.0, "noise": 0.05},
                "training": {"steps": 1000},
            },
            "M4": {
                "init": "M3",
                "weights": distance,
                "target": [{"image": "target.tif", "voxel_nm": [30, 6, 6]}],
                "method": {"name": "adversarial", "options": {"lambda_sup": 1.0}},
                "training": {"steps": 400},
            },
        },
    }
