"""A round of corrections without a window: segment, look where it is suggested, paint, learn, segment again.

Two phantoms stand for two microscopes: a network is trained on one and makes mistakes on the other. Instead of a
person, the ground truth paints the suggested windows. What counts is what the other sections gain. Run it with::

    python docs/correction_round.py FOLDER

In your own script, layers of a viewer stand in the place of the volumes; ``layers.suggest`` and ``layers.correct`` are
what the window calls, too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import napari_em_da as em
from napari_em_da import layers
from napari_em_da.synthetic import phantom_pair

CLASSES = {"membrane": (1,), "mitochondrion": (2,)}
NOT_PAINTED = 255


def run(
    folder: Path, *, shape: tuple[int, int, int] = (12, 256, 256), window: int = 128, train: int = 300, **options: Any
) -> dict[str, float]:
    """Do one round and return the mean IoU on the sections where nothing was painted, before and after.

    ``options`` go to ``layers.correct``, such as ``seconds``, or ``steps`` for a result that repeats exactly.
    """
    source, target = phantom_pair(shape, seed=3, domains=("fibsem", "sbem"))
    image = (target.image.source, {"name": "target"}, "image")
    truth = target.labels.read()

    # a run folder that has never seen the target
    job = layers.train(
        (source.image.source, {"name": "source"}, "image"),
        (source.labels.source, {"name": "labels"}, "labels"),
        CLASSES,
        folder / "run",
        network=em.NetworkConfig(options={"features": 8, "levels": 3}),
        sampling=em.SamplingConfig(patch_px=(1, 64, 64), batch=4),
        training=em.TrainingConfig(steps=train, learning_rate=3e-3, validate_every=train),
    )
    em.run(job)

    # segment, and ask where to look
    first, *probabilities = layers.segment_layers(image, folder / "run", probabilities=folder / "probabilities.tif")
    named = dict(zip(CLASSES, probabilities, strict=True))
    data, about, _ = layers.suggest(named, image=image, run=folder / "run", window_px=(window, window), count=2)
    features = about.get("features", {})
    print(f"{len(data)} windows suggested: {', '.join(features.get('reason', []))}")  # noqa: T201

    # paint: the truth of the suggested windows
    paint = np.full(shape, NOT_PAINTED, np.uint8)
    for z, y, x in zip(features["section"], features["y"], features["x"], strict=True):
        place = (z, slice(y, y + window), slice(x, x + window))
        paint[place] = truth[place]

    # learn, and segment again
    learned = em.run(layers.correct(image, (paint, {"name": "paint"}, "labels"), folder / "run", **options))
    second, *_ = layers.segment_layers(image, learned.run)

    rest = (paint == NOT_PAINTED).all(axis=(1, 2))
    names = {name: values[0] for name, values in CLASSES.items()}
    return {
        when: em.evaluate_arrays(data[rest], truth[rest], ["iou"], classes=names)["iou"]
        for when, (data, _, _) in (("before", first), ("after", second))
    }


if __name__ == "__main__":
    scores = run(Path(sys.argv[1] if len(sys.argv) > 1 else "correction-round"))
    print(f"mean IoU where nothing was painted: {scores['before']:.3f} before, {scores['after']:.3f} after")  # noqa: T201
