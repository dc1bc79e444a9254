"""From the click on *Learn from my corrections* to its result in a view of 512 x 512: seconds, and what they go to.

    python benchmarks/corrections.py [--features 16 32] [--seconds 8] [--steps 40]

U-Nets of the presets' sizes are trained shortly on EPFL mitochondria; then the truth of 256 x 256 pixels of a VNC
section is the paint. The round runs as the window runs it, on layers whose image has a file, in a process of its own
that has loaded the package but trained nothing; a second round follows in the same process. The goal is 10 s on 2
cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import DATA, record

import napari_em_da as em
from napari_em_da import layers
from napari_em_da.workflows import correct  # noqa: F401 (as the window has it when somebody clicks)

GOAL_S = 10
EPFL, VNC = DATA / "epfl_hippocampus", DATA / "vnc_sstem"
MITO_EPFL, MITO_VNC = 2, 3
VNC_NM = (50.0, 4.6, 4.6)
ROUNDS = ((4, 300, 200), (11, 500, 600))  # section, y, x of the painted window
PAINTED_PX, VIEW_PX = 256, 512


def train(run: Path, features: int, steps: int) -> None:
    """Train a network whose quality does not matter here."""
    source = em.LabelledConfig(image=EPFL / "image.tif", labels=EPFL / "labels.tif", voxel_nm=(5, 5, 5))
    more = em.LabelledConfig(image=EPFL / "image_sparse.tif", labels=EPFL / "labels_sparse.tif", voxel_nm=(5, 5, 5))
    config = em.TrainConfig(
        run=run,
        source=(source, more),
        classes={"mito": (MITO_EPFL,)},
        network=em.NetworkConfig(options={"features": features}),
        training=em.TrainingConfig(steps=steps, validate_every=steps, checkpoint_every=steps),
    )
    em.run(em.train(config))


def learn(run: Path, seconds: float) -> list[dict[str, Any]]:
    """Do the rounds one after another and return what each took."""
    path = VNC / "image.tif"
    image = layers.Snapshot(em.Volume.open(path, voxel_nm=VNC_NM), path)
    truth = em.Volume.open(VNC / "labels.tif").read()
    paint = np.full(truth.shape, 255, np.uint8)
    found = []
    for z, y, x in ROUNDS:
        place = (z, slice(y, y + PAINTED_PX), slice(x, x + PAINTED_PX))
        paint[place] = np.where(truth[place] == MITO_VNC, MITO_EPFL, 0)
        view = (z, y - (VIEW_PX - PAINTED_PX) // 2, x - (VIEW_PX - PAINTED_PX) // 2, VIEW_PX)
        busy, clicked, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
        painted = (paint, {"name": "corrections"}, "labels")
        result = em.run(layers.correct(image, painted, run, view=view, seconds=seconds))
        took = time.perf_counter() - clicked
        found.append(
            {
                "click_to_result_s": round(took, 2),
                "cpu_s": round(time.process_time() - cpu, 2),
                "load_average": round(busy, 1),
                "steps": result.steps,
                "kept": result.kept,
                "source_iou": result.source_iou,
                "iou_on_paint": result.iou,
                "parts_s": result.parts,
            }
        )
        run = result.run
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--seconds", type=float, default=em.CorrectConfig.model_fields["seconds"].default)
    parser.add_argument("--steps", type=int, default=40, help="of the training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learn", type=Path, help="do the rounds of this run and print what they took")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.learn is not None:
        print(json.dumps(learn(arguments.learn, arguments.seconds)))
        return
    results: dict[str, Any] = {"goal_s": GOAL_S, "seconds": arguments.seconds, "threads": arguments.threads}
    with tempfile.TemporaryDirectory() as folder:
        for features in arguments.features:
            run = Path(folder) / f"features-{features}"
            train(run, features, arguments.steps)
            words = ["--learn", str(run), "--seconds", str(arguments.seconds), "--threads", str(arguments.threads)]
            done = subprocess.run(
                [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True, cwd=Path.cwd()
            )
            first, second = json.loads(done.stdout.splitlines()[-1])
            results[f"{features} features"] = {"first round of a process": first, "next round": second}
            print(features, first, second, sep="\n")
    print(record("corrections", results))


if __name__ == "__main__":
    main()
