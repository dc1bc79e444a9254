"""Every method does what it is for: on the phantom of another microscope it finds more than the unadapted network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_em_da.config import AdaptConfig, EvaluateConfig, SegmentConfig, TrainConfig
from napari_em_da.jobs import run
from napari_em_da.methods import METHODS
from napari_em_da.synthetic import phantom
from napari_em_da.workflows.adapt import adapt
from napari_em_da.workflows.evaluate import evaluate
from napari_em_da.workflows.segment import segment
from napari_em_da.workflows.train import train

CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in METHODS.names() if name != "supervised"]
CASES.append(("supervised", {"match_target": 1.0}))  # histogram matching alone


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled volume A, unlabelled B and labelled C of B's microscope, and a network trained on A."""
    folder = tmp_path_factory.mktemp("gains")
    for seed, (name, look) in enumerate((("A", "fibsem"), ("B", "sbem"), ("C", "sbem")), start=3):
        structure = phantom((8, 256, 256), seed=seed, domain=look)
        structure.image.save(folder / f"{name}.tif")
        structure.labels.save(folder / f"{name}-labels.tif")
    config = TrainConfig(
        run=folder / "source",
        source=({"image": folder / "A.tif", "labels": folder / "A-labels.tif"},),
        classes={"mitochondrion": (2,)},
        network={"options": {"features": 8, "levels": 2}},
        sampling={"patch_px": (1, 96, 96), "batch": 8},
        training={"steps": 150, "learning_rate": 3e-3, "validate_every": 150, "seed": 1},
    )
    run(train(config))
    return folder


def iou(home: Path, network: Path, out: Path) -> float:
    """Return the IoU on a volume of the second microscope that no training has seen."""
    run(segment(SegmentConfig(image=home / "C.tif", run=network, output=out)))
    scored = EvaluateConfig(
        prediction=out, labels=home / "C-labels.tif", metrics=("iou",), classes={"mitochondrion": (2,)}
    )
    return float(run(evaluate(scored)).scores["iou"])


@pytest.fixture(scope="module")
def unadapted(home: Path) -> float:
    return iou(home, home / "source", home / "unadapted.tif")


@pytest.mark.parametrize(("method", "augment"), CASES, ids=[f"{name}{'-matched' * bool(a)}" for name, a in CASES])
def test_it_finds_more_than_the_unadapted_network(
    home: Path, unadapted: float, tmp_path: Path, method: str, augment: dict[str, Any]
) -> None:
    """Trained, chosen and used as by default, in 40 steps.

    What is trained gains on other phantoms, too, but after so few steps the choice may keep the source there.
    """
    config = AdaptConfig(
        run=home / "source",
        target=({"image": home / "B.tif"},),
        out=tmp_path / "run",
        method={"name": method},
        augment=augment,
        training={"steps": 40, "learning_rate": 5e-4, "validate_every": 40, "seed": 1},
    )
    run(adapt(config))
    assert iou(home, tmp_path / "run", tmp_path / "C.tif") > unadapted + 0.05
