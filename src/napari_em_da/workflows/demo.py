"""The main job on the embedded phantom: train on microscope A, adapt to B without labels, segment and score B."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.config import (
    AdaptConfig,
    AdaptTrainingConfig,
    EvaluateConfig,
    ImageConfig,
    LabelledConfig,
    MethodConfig,
    NetworkConfig,
    SamplingConfig,
    SegmentConfig,
    TrainConfig,
    TrainingConfig,
)
from napari_em_da.errors import ConfigError
from napari_em_da.events import Finished, Notice, Saved
from napari_em_da.jobs import Job, forward
from napari_em_da.training.checkpoint import write_text
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.adapt import adapt
from napari_em_da.workflows.auto import AUTO, PORTFOLIO
from napari_em_da.workflows.evaluate import EvaluateResult, evaluate
from napari_em_da.workflows.segment import segment
from napari_em_da.workflows.train import full, train

SHAPE = (24, 384, 384)
CLASSES = {"mitochondrion": (2,)}
NETWORK = NetworkConfig(name="unet", options={"features": 16, "levels": 3})
SAMPLING = SamplingConfig(patch_px=(1, 128, 128), batch=8)
TRAINING = TrainingConfig(steps=300, learning_rate=3e-3, validate_every=50, checkpoint_every=100)
ADAPTATION = AdaptTrainingConfig(
    steps=200, learning_rate=5e-4, schedule="cosine", ema=0.95, validate_every=50, checkpoint_every=100
)


@dataclass(frozen=True)
class DemoResult:
    """Folder and scores: IoU and Dice on microscope B per model, and seconds of all."""

    folder: Path
    scores: dict[str, Any]


def demo(out: Path, *, seed: int = 0) -> Job:
    """Run the demo into ``out`` and yield events; Finished carries a DemoResult.

    B's look, and that ``auto`` adapts to it, were chosen on phantoms with labels at hand; the run itself has none.
    The labels of B are read by the scoring and by the supervised bound alone, which is trained on another part of B
    than the one that is scored.

    A stopped demo goes on in the same folder; a finished one is reported again.

    Raises
    ------
    ConfigError
        If ``out`` holds something else.
    """
    started = time.perf_counter()
    folder = full(out)
    scores: dict[str, Any] = {}
    if claim(folder, seed):
        scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        yield Notice(f"The demo in {folder} is finished; delete that folder to run it again.")
        yield Finished(DemoResult(folder, scores))
        return
    yield Notice(f"Making two phantom volumes, {SHAPE[0]} sections each, in {folder}.")
    make_data(folder, seed)
    training = TRAINING.model_copy(update={"seed": seed})
    source = LabelledConfig(image=folder / "A.tif", labels=folder / "A-labels.tif")
    base = TrainConfig(
        run=folder / "source", source=(source,), classes=CLASSES, network=NETWORK, sampling=SAMPLING, training=training
    )
    yield Notice("1/3 Training on microscope A with its labels.")
    yield from stage(base)
    adaptation = AdaptConfig(
        run=folder / "source",
        target=(ImageConfig(image=folder / "B-train.tif"),),
        out=folder / "adapted",
        method=MethodConfig(name=AUTO),
        training=ADAPTATION.model_copy(update={"seed": seed}),
    )
    yield Notice("2/3 Adapting to microscope B without labels, in several ways; one is chosen without labels, too.")
    if not is_finished(folder / "adapted"):
        yield from forward(adapt(adaptation, resume=(folder / "adapted").exists()))
    bound = LabelledConfig(image=folder / "B-train.tif", labels=folder / "B-train-labels.tif")
    yield Notice("3/3 The bound: training on microscope B with its labels.")
    yield from stage(base.model_copy(update={"run": folder / "supervised", "source": (bound,)}))

    for name, run in (("source_only", "source"), ("adapted", "adapted"), ("target_supervised", "supervised")):
        output = folder / f"B-{name}.tif"
        yield from forward(
            segment(SegmentConfig(image=folder / "B.tif", run=folder / run, output=output, overwrite=True))
        )
        result: EvaluateResult = yield from forward(
            evaluate(
                EvaluateConfig(
                    prediction=output,
                    labels=folder / "B-labels.tif",
                    image=folder / "B.tif",
                    metrics=("iou", "dice"),
                    overlay=folder / f"overlay-{name}.png",
                )
            )
        )
        scores[name] = {key: round(result.scores[key], 4) for key in ("iou", "dice")}
    draw(folder, scores)
    yield Saved(folder / "demo.png", "picture")
    scores["seconds"] = round(time.perf_counter() - started, 1)
    write_text(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
    yield Saved(folder / "scores.json", "scores")
    yield Finished(DemoResult(folder, scores))


def claim(folder: Path, seed: int) -> bool:
    """Make the folder, or take an unfinished demo of the same seed; return whether the demo there is finished."""
    marker = folder / "demo.json"
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == {"seed": seed}:
        return (folder / "scores.json").is_file()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} exists already; choose another folder with --out, or delete it first.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(marker, json.dumps({"seed": seed}) + "\n")
    return False


def stage(config: TrainConfig) -> Job:
    """Train, go on with a stopped training, or keep a finished one."""
    if not is_finished(config.run):
        yield from forward(train(config, resume=(config.run / "config.yaml").is_file()))


def is_finished(run: Path) -> bool:
    """Return whether a run was completed."""
    return (run / "run.json").is_file() and bool(RunFolder(run).info().get("finished"))


def make_data(folder: Path, seed: int) -> None:
    """Write A with labels, and B in two parts: the first two thirds of x to train on, the rest to score."""
    from napari_em_da.synthetic import phantom_pair

    a, b = phantom_pair(SHAPE, seed, domains=("fibsem", "sbem"))
    a.image.save(folder / "A.tif", overwrite=True)
    a.labels.save(folder / "A-labels.tif", overwrite=True)
    cut = SHAPE[2] * 2 // 3
    for name, part in (("B-train", slice(0, cut)), ("B", slice(cut, None))):
        for volume, ending in ((b.image, ""), (b.labels, "-labels")):
            piece = Volume(volume.data[:, :, part], volume.voxel_nm, name)
            piece.save(folder / f"{name}{ending}.tif", overwrite=True)


def draw(folder: Path, scores: dict[str, Any]) -> None:
    """Save ``demo.png`` (both microscopes, overlays, training curves, scores)."""
    import cv2
    from matplotlib.figure import Figure

    titles = {"source_only": "B, source only", "adapted": "B, adapted", "target_supervised": "B, supervised bound"}
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    axes = figure.subplots(2, 5, width_ratios=[1.5, 1, 1, 1, 1], squeeze=False)
    middle = SHAPE[0] // 2
    for axis, name, title in ((axes[0, 0], "A", "A: labelled"), (axes[1, 0], "B-train", "B: unlabelled")):
        axis.imshow(Volume.open(folder / f"{name}.tif").read((slice(middle, middle + 1),))[0], cmap="gray")
        axis.set_title(title)
    for column, (name, title) in enumerate(titles.items(), start=1):
        picture = cv2.imread(str(folder / f"overlay-{name}.png"))
        if picture is not None:
            axes[0, column].imshow(picture[..., ::-1])
        axes[0, column].set_title(f"{title}\nIoU {scores[name]['iou']:.3f}")
    for axis in (*axes[0], axes[1, 0]):
        axis.set_axis_off()
    axes[0, 4].text(0, 0.5, "green: hit\nred: missed\nblue: false alarm", va="center", transform=axes[0, 4].transAxes)
    chosen = RunFolder(folder / "adapted").info()["chosen"]
    way = folder / "adapted" / PORTFOLIO / chosen
    source, bound = folder / "source", folder / "supervised"
    curves = {"training: source": source, f"adaptation\n({chosen})": way, "training: supervised": bound}
    for column, (title, run) in enumerate(curves.items(), start=1):
        plot_curves(axes[1, column], RunFolder(run if run.exists() else source))
        axes[1, column].set_title(title)
    axes[1, 4].bar(["source\nonly", "adapted", "super-\nvised"], [scores[n]["iou"] for n in titles], color="0.4")
    axes[1, 4].set_title("IoU on B")
    axes[1, 4].set_ylim(0, 1)
    figure.savefig(folder / "demo.png", dpi=110)


def plot_curves(axis: Any, run: RunFolder) -> None:
    """Draw a run's losses and its validation IoU over the steps."""
    lines = run.metrics()
    names = sorted({key for line in lines for key in line} - {"step", "score", "guards", "chosen_step"})
    for name in names:
        if "/" in name and name != "val/iou":
            continue
        points = np.array([(line["step"], line[name]) for line in lines if name in line])
        axis.plot(points[:, 0], points[:, 1], label=name, linewidth=1)
    axis.set_xlabel("step")
    axis.legend(fontsize=6)
