"""EPFL mitochondria, supervised: train on the training volume, score on sections of the test volume.

    python benchmarks/epfl_supervised.py --work runs/epfl [--steps 2000]

The run folder stays in ``--work``; scores go to benchmarks/results/epfl_supervised.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _record import DATA, record

import napari_em_da as em
from napari_em_da.config import (
    AugmentConfig,
    EvaluateConfig,
    LabelledConfig,
    SamplingConfig,
    SegmentConfig,
    TrainConfig,
    TrainingConfig,
)
from napari_em_da.training.folder import RunFolder

EPFL = DATA / "epfl_hippocampus"
VOXEL = (5.0, 5.0, 5.0)


def config(run: Path, steps: int) -> TrainConfig:
    """Return the training job: 10 nm per pixel, so that a window of 192 pixels sees 2 um."""
    pairs = (("image", "labels"), ("image_sparse", "labels_sparse"))
    return TrainConfig(
        run=run,
        source=tuple(
            LabelledConfig(image=EPFL / f"{i}.tif", labels=EPFL / f"{t}.tif", voxel_nm=VOXEL) for i, t in pairs
        ),
        classes={"mito": (2,)},
        sampling=SamplingConfig(pixel_nm=10, validation=0.06),
        augment=AugmentConfig(scale=(0.75, 1.35), rotate_deg=180, elastic=0.2, piecewise_affine=0.3, photometric=0.6),
        training=TrainingConfig(steps=steps, weight_decay=0.05, ema=0.99),
    )


def main() -> None:
    """Train (or take a finished run), segment with and without averaging over symmetries, score, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/epfl"))
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    run = arguments.work
    if not (run / "run.json").is_file():
        em.run(em.train(config(run, arguments.steps)), progress=True)
    results = {"training": RunFolder(run).info()["result"]}
    for name, tta in (("plain", False), ("symmetries", True)):
        output = run / f"test-{name}.tif"
        job = SegmentConfig(
            smooth_z=0, image=EPFL / "image_test.tif", run=run, output=output, voxel_nm=VOXEL, tta=tta, overwrite=True
        )
        done = em.run(em.segment(job), progress=True)
        scores = em.run(em.evaluate(EvaluateConfig(prediction=output, labels=EPFL / "labels_test.tif"))).scores
        results[name] = {k: round(scores[k], 4) for k in ("iou", "dice", "precision", "recall")} | {
            "seconds": done.seconds
        }
    print(record("epfl_supervised", results), results)


if __name__ == "__main__":
    main()
