"""Watershed fusion and morphological post-processing before and after, on real predictions.

    python benchmarks/postprocessing.py --work runs/postprocessing [--steps 600]

VNC membranes: trained on the first 67 % of the stack along x, the fusion weight fitted there by Rand error, scored on
the last 33 %: V_rand and warping error of the probabilities and of the fused map. EPFL mitochondria: trained on
sections 0, 5, 10 and 15 of the training volume, MPP with these as ground truth, scored on the 16 others: Dice and IoU.
Finished runs and predictions are kept in ``--work``. Results go to benchmarks/results/postprocessing.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from _record import DATA, record

import napari_em_da as em
from napari_em_da.config import (
    AugmentConfig,
    ChainConfig,
    LabelledConfig,
    SamplingConfig,
    SegmentConfig,
    TrainConfig,
    TrainingConfig,
)
from napari_em_da.postprocess import Stack, apply_chain
from napari_em_da.postprocess.watershed_fusion import fit_weight
from napari_em_da.volume import Volume

VNC, VNC_NM = DATA / "vnc_sstem", (50.0, 4.6, 4.6)
EPFL, EPFL_NM = DATA / "epfl_hippocampus", (5.0, 5.0, 5.0)
EVERY = 5


def prepare(work: Path) -> None:
    """Write the training and test parts of the VNC stack, and every fifth EPFL section."""
    work.mkdir(parents=True, exist_ok=True)
    for name in ("image", "labels"):
        volume = Volume.open(VNC / f"{name}.tif", voxel_nm=VNC_NM)
        cut = round(volume.shape[2] * 0.67)
        parts = {f"vnc-{name}-train": volume.data[:, :, :cut], f"vnc-{name}-test": volume.data[:, :, cut:]}
        sparse = Volume.open(EPFL / f"{name}.tif", voxel_nm=EPFL_NM)
        parts[f"epfl-{name}-every{EVERY}"] = sparse.data[::EVERY]
        for part, data in parts.items():
            if not (work / f"{part}.tif").exists():
                size = EPFL_NM if part.startswith("epfl") else VNC_NM
                Volume.from_array(data, voxel_nm=size).save(work / f"{part}.tif")


def train(work: Path, steps: int) -> None:
    """Train both networks, unless they are there."""
    vnc = LabelledConfig(image=work / "vnc-image-train.tif", labels=work / "vnc-labels-train.tif", voxel_nm=VNC_NM)
    epfl = LabelledConfig(
        image=work / f"epfl-image-every{EVERY}.tif", labels=work / f"epfl-labels-every{EVERY}.tif", voxel_nm=EPFL_NM
    )
    for name, source, classes, sampling in (
        ("vnc-membrane", vnc, {"membrane": (1,)}, SamplingConfig(validation=0.06, balance=0.0)),
        ("epfl-sparse", epfl, {"mito": (2,)}, SamplingConfig(validation=0.1)),
    ):
        run = work / name
        if not (run / "run.json").is_file():
            config = TrainConfig(
                run=run,
                source=(source,),
                classes=classes,
                sampling=sampling,
                augment=AugmentConfig(rotate_deg=180, elastic=0.2),
                training=TrainingConfig(steps=steps, weight_decay=0.01),
            )
            em.run(em.train(config), progress=True)


def probabilities(work: Path, name: str, image: Path, run: str, voxel_nm: tuple[float, ...]) -> np.ndarray:
    """Return the probability of the foreground, (Z, Y, X), predicted once."""
    path = work / f"{name}-probs.tif"
    if not path.exists():
        job = SegmentConfig(
            smooth_z=0,
            image=image,
            run=work / run,
            output=work / f"{name}-labels.tif",
            probabilities=path,
            voxel_nm=voxel_nm,
            overwrite=True,
        )
        em.run(em.segment(job))
    return Volume.open(path).read()[..., 1]


def membranes(work: Path) -> dict[str, Any]:
    """Return scores of VNC membranes before and after watershed fusion."""
    train = probabilities(work, "vnc-train", work / "vnc-image-train.tif", "vnc-membrane", VNC_NM)
    truth = (Volume.open(work / "vnc-labels-train.tif").read() == 1).astype(np.uint8)
    fitted = fit_weight(train, truth, kind="membrane")
    test = probabilities(work, "vnc-test", work / "vnc-image-test.tif", "vnc-membrane", VNC_NM)
    labels = (Volume.open(work / "vnc-labels-test.tif").read() == 1).astype(np.uint8)
    rows: dict[str, Any] = {
        "weight fitted on the training part": fitted.weight,
        "rand error there by weight": {str(w): round(float(e), 4) for w, e in fitted.curve},
    }
    scores = ["vrand", "vrand_split", "vrand_merge", "vinfo", "warping_error", "pixel_error"]
    for name, weight in (("before", 0.0), ("after", fitted.weight)):
        chain = ChainConfig(steps=({"watershed_fusion": {"weight": weight}},))
        stack = Stack(np.stack([1 - test, test], -1), "probabilities", VNC_NM, ("background", "membrane"))
        fused = apply_chain(chain, stack).data[..., 1]
        for how, options in (
            ("best threshold, thinned (ISBI)", {}),
            ("threshold 0.5, not thinned", {"thresholds": (0.5,), "thin": False}),
        ):
            found = em.evaluate_arrays(fused, labels, scores, kind="membrane", **options)
            rows[f"{name}, {how}"] = {key: round(value, 4) for key, value in found.items()}
    return rows


def mitochondria(work: Path) -> dict[str, Any]:
    """Return Dice and IoU of EPFL mitochondria on the sections without labels, before and after MPP."""
    foreground = probabilities(work, "epfl", EPFL / "image.tif", "epfl-sparse", EPFL_NM)
    truth = (Volume.open(EPFL / "labels.tif").read() == 2).astype(np.uint8)
    labelled = tuple(range(0, len(truth), EVERY))
    rest = [z for z in range(len(truth)) if z not in labelled]
    rows: dict[str, Any] = {"labelled sections": list(labelled), "scored sections": rest}
    for threshold in (0.2, 0.5):
        mask = (foreground > threshold).astype(np.uint8)
        variants = {"no post-processing": (None, ()), "z steps alone (no labels)": ({"mpp": {"channel": "mito"}}, ())}
        variants["MPP"] = ({"mpp": {"channel": "mito"}}, labelled)
        variants["MPP, simultaneous"] = ({"mpp": {"channel": "mito", "order": "simultaneous"}}, labelled)
        for name, (step, known) in variants.items():
            data = mask.copy()
            if known:
                data[list(known)] = truth[list(known)]
            stack = Stack(data, "labels", EPFL_NM, ("background", "mito"), known)
            if step is not None:
                data = apply_chain(ChainConfig(steps=(step,)), stack).data
            found = em.evaluate_arrays(data[rest], truth[rest], ["iou", "dice", "precision", "recall"])
            keep = ("iou", "dice", "precision", "recall")
            rows[f"p > {threshold}: {name}"] = {key: round(found[key], 4) for key in keep}
    return rows


def main() -> None:
    """Train what is not there, post-process, score, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/postprocessing"))
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    prepare(arguments.work)
    train(arguments.work, arguments.steps)
    results = {"VNC membranes": membranes(arguments.work), "EPFL mitochondria": mitochondria(arguments.work)}
    print(record("postprocessing", results), results)


if __name__ == "__main__":
    main()
