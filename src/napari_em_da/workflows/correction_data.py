"""What a round of corrections learns from: the paint of all rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_em_da.config import CorrectConfig, ImageConfig
from napari_em_da.errors import DataError
from napari_em_da.sampling import Sample, Sampler, Source
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.volume import Volume
from napari_em_da.workflows.painted import Painted
from napari_em_da.workflows.plan import Plan, open_image

MANIFEST = "corrections.json"
PAINT = "corrections"
CHECK_GROUPS = 16


@dataclass(frozen=True)
class Round:
    """What was painted in one round, and on which volume."""

    number: int
    image: ImageConfig
    painted: Painted


def is_round(path: Path) -> bool:
    """Return whether a run folder is a round of corrections."""
    return (path / MANIFEST).is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the config of a round, the run it starts from, and the list of its paint."""
    try:
        found: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path / MANIFEST} is missing or damaged ({error}); start the round again.") from None
    return found


def write_rounds(folder: RunFolder, config: CorrectConfig, rounds: Sequence[Round]) -> None:
    """Keep the config and all paint in the run folder, so that it can be resumed, repeated and continued."""
    (folder.path / PAINT).mkdir(exist_ok=True)
    items = []
    for item in rounds:
        name = f"{PAINT}/{item.number:03d}.npz"
        item.painted.save(folder.path / name)
        about = item.image.model_dump(mode="json")
        items.append({"round": item.number, "file": name, "image": about, "voxels": item.painted.voxels})
    data = {"config": config.model_dump(mode="json"), "rounds": items}
    checkpoint.write_text(folder.path / MANIFEST, json.dumps(data, indent=2) + "\n")


def read_rounds(path: Path) -> list[Round]:
    """Return the paint of a round and of those before it, oldest first."""
    items = read_manifest(path)["rounds"]
    return [Round(i["round"], ImageConfig(**i["image"]), Painted.load(path / i["file"])) for i in items]


def collect(config: CorrectConfig, image: ImageConfig, start: RunFolder, paint: Volume | None = None) -> list[Round]:
    """Return the paint of all rounds, that of this one last; nothing counts twice.

    ``paint`` stands for the file of the corrections where these are in memory.

    Raises
    ------
    ConfigError, DataError
        If the corrections do not fit the image or the run, or nothing was ever painted.
    """
    labels, volume = Volume.open(config.corrections) if paint is None else paint, open_image(image)
    if labels.shape != volume.shape:
        raise DataError(
            f"{labels.path or labels.name} has shape {labels.shape}, but {image.image} has {volume.shape}; "
            "corrections need exactly the image's sections and pixels."
        )
    newest = Painted.read(labels, start.config().classes, config.ignore_label)
    rounds = []
    older = read_rounds(start.path) if is_round(start.path) else []
    for item in older:
        if item.image.image == image.image and item.painted.shape == newest.shape:
            kept, newest = newest.after(item.painted)
            item = replace(item, painted=kept)
        rounds.append(item)
    number = max((item.number for item in older), default=0) + 1
    rounds = [item for item in (*rounds, Round(number, image, newest)) if item.painted.sections]
    if not rounds:
        raise DataError(
            f"{labels.path or labels.name} holds no painted voxel: all are {config.ignore_label}, which means not "
            "annotated. Paint some, or set ignore_label to the value of unpainted voxels."
        )
    return rounds


def corrected(plan: Plan, rounds: Sequence[Round], batch: int, recency: float) -> tuple[Sampler, list[Sample]]:
    """Return the sampler of corrected windows, each around a painted voxel, and fixed ones to check what was learned.

    A round is drawn ``recency`` times as often as the one after it; within a round all painted voxels count alike, but
    for the balance of classes within neighbouring sections.
    """
    volumes = {item.image.image: open_image(item.image) for item in rounds}
    newest = max(item.number for item in rounds)
    sources: list[Source] = []
    shares: list[float] = []
    for item in reversed(rounds):
        weight = recency ** (newest - item.number) / item.painted.voxels
        for group in item.painted.groups(plan.config.sampling.patch_px[0]):
            sources.append(Source(volumes[item.image.image], item.painted, None, item.painted.region(group)))
            shares.append(weight * sum(map(item.painted.count, group)))
    sampler = Sampler(sources, stream="corrections", shares=shares, **settings(plan, balance=1.0, batch=batch))
    largest = sorted(range(len(sources)), key=lambda i: -shares[i])[:CHECK_GROUPS]
    still = settings(plan, batch=4, augment=None)
    check = Sampler([sources[i] for i in largest], stream="corrections-check", **still)
    return sampler, check.grid(CHECK_GROUPS)


def settings(plan: Plan, **changes: Any) -> dict[str, Any]:
    """Return what all samplers of a round have in common."""
    config = plan.config
    common: dict[str, Any] = {
        "patch_px": config.sampling.patch_px,
        "ndim": plan.network.ndim,
        "seed": config.training.seed,
        "augment": config.augment,
        "pixel_nm": plan.pixel_nm,
        "section_nm": plan.section_nm,
        "classes": len(config.classes) + 1,
        "margin_px": plan.network.margin_px,
        "memory_bytes": 0,  # windows around paint are few: they are read where they lie
    }
    return {**common, **changes}
