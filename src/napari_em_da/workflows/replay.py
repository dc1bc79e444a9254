"""Repeat a finished run from its folder and say whether the result is identical."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_em_da.errors import DataError
from napari_em_da.events import Finished, Notice
from napari_em_da.jobs import Job, forward
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.correction_data import is_round
from napari_em_da.workflows.correction_result import CorrectResult
from napari_em_da.workflows.corrections import repeat_round
from napari_em_da.workflows.plan import open_image
from napari_em_da.workflows.pseudo_volumes import read_manifest
from napari_em_da.workflows.rounds import learn
from napari_em_da.workflows.train import TrainResult, full


@dataclass(frozen=True)
class ReplayResult:
    """``identical`` weights or not, both hashes, and the folder of the repetition."""

    identical: bool
    original: str
    repeated: str
    run: Path


def replay(run: Path, out: Path | None = None) -> Job:
    """Train again what ``run`` holds, into ``out`` (default: the run's name with ``-replay``), and compare weights.

    Raises
    ------
    DataError
        If the run is not finished, or its data changed since.
    """
    folder = RunFolder.open(full(run))
    info = folder.info()
    if not info.get("finished"):
        raise DataError(f"{run} is not finished; continue it with 'train --resume {run}' before repeating it.")
    config = folder.config()
    if read_manifest(folder.path) is not None:
        whole = folder.path.parents[1]
        raise DataError(f"{run} is one of several rounds, each made from the one before; repeat {whole} as a whole.")
    for item, known in zip((*config.source, *config.target), (*info["source"], *info["target"]), strict=True):
        found = open_image(item).fingerprint
        if found != known["fingerprint"]:
            raise DataError(
                f"{item.image} changed since the run: its fingerprint is {found}, it was {known['fingerprint']}. "
                "Put the original file back to repeat the run."
            )
    target = full(out) if out is not None else folder.path.with_name(folder.path.name + "-replay")
    job = (
        repeat_round(folder.path, target) if is_round(folder.path) else learn(config.model_copy(update={"run": target}))
    )
    result: TrainResult | CorrectResult = yield from forward(job)
    original = info["result"]["digest"]
    if result.digest != original:
        changed = {k: v for k, v in RunFolder(target).info()["versions"].items() if info["versions"].get(k) != v}
        machine = RunFolder(target).info()["machine"] != info["machine"]
        why = (
            f"versions differ: {changed}" if changed else "another machine" if machine else "same versions and machine"
        )
        yield Notice(f"The weights differ ({why}).", "warning")
    yield Finished(ReplayResult(result.digest == original, original, result.digest, target))
