"""Pseudo-labels in a run folder: where they lie, whether they are those that a round made, and how training reads them.

There is no field for them in any config: only what a round wrote into its own folder is ever read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.sampling import Source
from napari_em_da.training.checkpoint import write_text
from napari_em_da.volume import Volume
from napari_em_da.workflows.plan import Plan, memory_budget

PSEUDO = "pseudo"  # folder in a run
MANIFEST = "pseudo.json"


@dataclass(frozen=True)
class PseudoVolume:
    """What is known of the pseudo-labels of one target volume.

    ``target`` and ``labels`` are fingerprints, ``counts`` the accepted voxels of each class, background first, of
    ``voxels`` in all.
    """

    target: str
    labels: str
    counts: tuple[int, ...]
    voxels: int


def labels_path(run: Path, index: int) -> Path:
    """Return where the pseudo-labels of a run's target volume ``index`` lie: (Z, Y, X) uint8, 255 = not accepted."""
    return run / PSEUDO / f"{index}.zarr"


def write_manifest(run: Path, volumes: Sequence[PseudoVolume]) -> None:
    """Say that the pseudo-labels of a run are complete."""
    text = json.dumps([asdict(volume) for volume in volumes], indent=2)
    write_text(run / PSEUDO / MANIFEST, text + "\n")


def read_manifest(run: Path) -> list[PseudoVolume] | None:
    """Return what a run knows of its pseudo-labels, or None while they are not complete."""
    path = run / PSEUDO / MANIFEST
    if not path.is_file():
        return None
    data: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [PseudoVolume(**{**item, "counts": tuple(item["counts"])}) for item in data]


def check_pseudo(plan: Plan) -> None:
    """Check, before work, that the run folder holds pseudo-labels if the method learns from them.

    Raises
    ------
    ConfigError
        If there are none.
    DataError
        If they are not the ones that were made, or of other target volumes.
    """
    if not plan.method.pseudo:
        return
    name, run = plan.config.method.name, plan.config.run
    found = read_manifest(run)
    if found is None:
        raise ConfigError(
            f"The method {name!r} learns from what a trained network predicts on the target, in rounds, but {run} "
            f"holds no such pseudo-labels. Run 'adapt --method {name}' on a trained run; with --resume it goes on."
        )
    if [item.target for item in found] != [volume.fingerprint for volume in plan.target]:
        raise DataError(f"The pseudo-labels in {run / PSEUDO} are of other target volumes; adapt in a new folder.")
    for index, item in enumerate(found):
        path = labels_path(run, index)
        if Volume.open(path).fingerprint != item.labels:
            raise DataError(f"{path} was changed since a round of {name!r} made it; adapt in a new folder.")


def pseudo_sources(plan: Plan, run: Path) -> list[Source]:
    """Return the target volumes with their pseudo-labels, in memory where they fit, without those that have none."""
    found = []
    for index, (volume, item) in enumerate(zip(plan.target, read_manifest(run) or (), strict=True)):
        labels = Volume.open(labels_path(run, index))
        if any(item.counts):
            fits = labels.nbytes * 2 < memory_budget()
            found.append(Source(volume, labels.read() if fits else labels.source))
    return found
