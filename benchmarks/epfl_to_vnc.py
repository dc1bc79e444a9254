"""EPFL to VNC mitochondria: source only, adversarial label distribution, and target supervised.

    python benchmarks/epfl_to_vnc.py --source runs/epfl --work runs/vnc [--steps 500]

``--source`` is the run of epfl_supervised.py. The first 67 % of the VNC stack along x is its training part, whose
labels only the supervised bound reads; the last 33 % is scored. Results go to benchmarks/results/epfl_to_vnc.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from _record import DATA, record

import napari_em_da as em
from napari_em_da.config import (
    AdaptConfig,
    AdaptTrainingConfig,
    AugmentConfig,
    EvaluateConfig,
    ImageConfig,
    LabelledConfig,
    MethodConfig,
    SamplingConfig,
    SegmentConfig,
    TrainConfig,
    TrainingConfig,
)
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume

VNC = DATA / "vnc_sstem"
VOXEL = (50.0, 4.6, 4.6)
PIXEL_NM = 7.5


def split(work: Path) -> None:
    """Write the training and test parts of the target."""
    work.mkdir(parents=True, exist_ok=True)
    for name in ("image", "labels"):
        volume = Volume.open(VNC / f"{name}.tif", voxel_nm=VOXEL)
        cut = round(volume.shape[2] * 0.67)
        for part, x in (("train", slice(0, cut)), ("test", slice(cut, None))):
            path = work / f"{name}-{part}.tif"
            if not path.exists():
                Volume.from_array(volume.data[:, :, x], voxel_nm=VOXEL).save(path)


def score(run: Path, work: Path, name: str) -> dict[str, Any]:
    """Segment the test part and score it: best and last checkpoint."""
    found: dict[str, Any] = {}
    for checkpoint in ("best", "last"):
        output = work / f"{name}-{checkpoint}.tif"
        job = SegmentConfig(
            smooth_z=0, image=work / "image-test.tif", run=run, output=output, checkpoint=checkpoint, overwrite=True
        )
        em.run(em.segment(job))
        job = EvaluateConfig(prediction=output, labels=work / "labels-test.tif", classes={"mito": (3,)})
        scores = em.run(em.evaluate(job)).scores
        found[checkpoint] = {key: round(scores[key], 4) for key in ("iou", "dice")}
    minutes = RunFolder(run).info()["result"]["seconds"] / 60
    return {**found, "minutes": round(minutes, 1)}


def main() -> None:
    """Train what is not there yet, score all three, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=Path("runs/epfl"))
    parser.add_argument("--work", type=Path, default=Path("runs/vnc"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--supervised-steps", type=int, default=800)
    arguments = parser.parse_args()
    work = arguments.work
    split(work)
    target = ImageConfig(image=work / "image-train.tif", voxel_nm=VOXEL)
    sampling = SamplingConfig(pixel_nm=PIXEL_NM)
    if not (work / "adversarial").exists():
        adaptation = AdaptConfig(
            run=arguments.source,
            target=(target,),
            out=work / "adversarial",
            method=MethodConfig(name="adversarial"),
            augment=AugmentConfig(match_target=0.5),
            sampling=sampling,
            training=AdaptTrainingConfig(steps=arguments.steps, validate_every=100, ema=0.98),
        )
        em.run(em.adapt(adaptation), progress=True)
    if not (work / "supervised").exists():
        labelled = LabelledConfig(image=work / "image-train.tif", labels=work / "labels-train.tif", voxel_nm=VOXEL)
        bound = TrainConfig(
            run=work / "supervised",
            source=(labelled,),
            classes={"mito": (3,)},
            sampling=SamplingConfig(pixel_nm=PIXEL_NM, validation=0.06),
            augment=AugmentConfig(scale=(0.75, 1.35), rotate_deg=180, elastic=0.2),
            training=TrainingConfig(steps=arguments.supervised_steps, weight_decay=0.01),
        )
        em.run(em.train(bound), progress=True)
    results = {
        name: score(run, work, name)
        for name, run in (
            ("source_only", arguments.source),
            ("adversarial", work / "adversarial"),
            ("target_supervised", work / "supervised"),
        )
    }
    print(record("epfl_to_vnc", results), results)


if __name__ == "__main__":
    main()
