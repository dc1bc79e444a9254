"""S0's claim on EPFL membranes: do entropy and distance weights beat fixed class ratios at the same budget?

    python benchmarks/weight_maps_s0.py --work runs/s0-weights [--seeds 3] [--steps 300]

Weightings of the cross-entropy, everything else equal, ``--seeds`` runs each: the distance map in the paper's mode
(``inside_edt``) and in ``decay``, the entropy map on two classes and, beside its own control, on four (boundary,
mitochondria, vesicles, rest), where its neighbourhoods hold more than membranes. Scored on sections of the test volume
as Jaccard, precision and recall of the boundary class, once at the largest probability and once at the threshold that
is best on the held-out part of the *training* volume (weights shift the balance, a threshold shifts it back). Finished
runs are kept, so a stopped study goes on. Results go to benchmarks/results/weight_maps_s0.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from _record import DATA, record

import napari_em_da as em
from napari_em_da.config import (
    AugmentConfig,
    LabelledConfig,
    LossConfig,
    NetworkConfig,
    SamplingConfig,
    SegmentConfig,
    TrainConfig,
    TrainingConfig,
    WeightConfig,
)
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume

EPFL = DATA / "epfl_hippocampus"
VOXEL = (5.0, 5.0, 5.0)
TWO = {"boundary": (1,)}
FOUR = {"boundary": (1,), "mitochondria": (2,), "vesicles": (5,)}
WEIGHTS = {
    "none": (TWO, WeightConfig()),
    "ratio 2:1": (TWO, WeightConfig(kind="ratio", params={"ratio": 2})),
    "ratio 5:1": (TWO, WeightConfig(kind="ratio", params={"ratio": 5})),
    "ratio 10:1": (TWO, WeightConfig(kind="ratio", params={"ratio": 10})),
    "entropy": (TWO, WeightConfig(kind="entropy")),
    "distance": (TWO, WeightConfig(kind="distance")),
    "distance inside_edt": (TWO, WeightConfig(kind="distance", params={"mode": "inside_edt"})),
    "none 4 classes": (FOUR, WeightConfig()),
    "entropy 4 classes": (FOUR, WeightConfig(kind="entropy")),
}
THRESHOLDS = np.arange(0.05, 1.0, 0.05)


def config(run: Path, variant: str, seed: int, steps: int) -> TrainConfig:
    """Return one training job with cross-entropy alone."""
    classes, weights = WEIGHTS[variant]
    return TrainConfig(
        run=run,
        source=(LabelledConfig(image=EPFL / "image.tif", labels=EPFL / "labels.tif", voxel_nm=VOXEL),),
        classes=classes,
        network=NetworkConfig(options={"features": 16}),
        loss=LossConfig(overlap="none"),
        weights=weights.model_copy(update={"scale": "mean1"}) if weights.kind else weights,
        augment=AugmentConfig(scale=(0.9, 1.1)),
        sampling=SamplingConfig(patch_px=(1, 128, 128), batch=8, balance=0.0, validation=0.1),
        training=TrainingConfig(steps=steps, seed=seed, validate_every=steps),
    )


def probabilities(run: Path, image: Path, output: Path) -> np.ndarray:
    """Return boundary probabilities of a volume (kept on disk)."""
    if not output.exists():
        labels = output.with_name(f"{output.stem}-labels.tif")
        job = SegmentConfig(
            smooth_z=0,
            image=image,
            run=run,
            output=labels,
            probabilities=output,
            voxel_nm=VOXEL,
            checkpoint="last",
            overwrite=True,
        )
        em.run(em.segment(job))
    return Volume.open(output).read()[..., 1]


def overlap(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return Jaccard, precision and recall of a mask."""
    hits = float((found & truth).sum())
    return {
        "jaccard": hits / (found | truth).sum(),
        "precision": hits / max(1, found.sum()),
        "recall": hits / truth.sum(),
    }


def score(run: Path, work: Path) -> dict[str, Any]:
    """Score one run on the test sections, at one half and at the threshold chosen on held-out training columns."""
    held = work / "held-out.tif"
    cut = round(1024 * 0.9)
    if not held.exists():
        Volume.from_array(Volume.open(EPFL / "image.tif").data[::5, :, cut:], voxel_nm=VOXEL).save(held)
    truth = Volume.open(EPFL / "labels.tif").read()[::5, :, cut:] == 1
    p = probabilities(run, held, run / "held-out.tif")
    chosen = max(THRESHOLDS, key=lambda t: overlap(p > t, truth)["jaccard"])
    test = probabilities(run, EPFL / "image_test.tif", run / "test.tif")
    labels = Volume.open(EPFL / "labels_test.tif").read() == 1
    return {"half": overlap(test > 0.5, labels), "chosen": overlap(test > chosen, labels), "threshold": float(chosen)}


def main() -> None:
    """Train, score and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/s0-weights"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in WEIGHTS}
    for seed in range(arguments.seeds):
        for name in WEIGHTS:
            run = arguments.work / f"{name.replace(' ', '-').replace(':', '-')}-{seed}"
            done = (run / "run.json").is_file() and RunFolder(run).info()["finished"]
            if not done:
                resume = (run / "config.yaml").is_file()
                em.run(em.train(config(run, name, seed, arguments.steps), resume=resume), progress=True)
            rows[name].append(score(run, arguments.work))
            print(name, seed, json.dumps(rows[name][-1]), flush=True)
    table: dict[str, Any] = {}
    for name, scores in rows.items():
        table[name] = {}
        for at in ("half", "chosen"):
            for key in ("jaccard", "precision", "recall"):
                values = [s[at][key] for s in scores]
                mean, spread = np.mean(values), np.std(values, ddof=1) if len(values) > 1 else 0.0
                table[name][f"{key} at {at}"] = {"mean": round(float(mean), 4), "sd": round(float(spread), 4)}
        table[name]["thresholds"] = [s["threshold"] for s in scores]
    print(record("weight_maps_s0", {"steps": arguments.steps, "seeds": arguments.seeds, "table": table}))


if __name__ == "__main__":
    main()
