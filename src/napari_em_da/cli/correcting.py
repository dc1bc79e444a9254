"""The verb that learns from painted corrections: correct."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from napari_em_da.cli import configs
from napari_em_da.cli.app import app
from napari_em_da.cli.output import finish
from napari_em_da.cli.values import Json, Voxel


@app.command
def correct(
    image: Path,
    corrections: Path,
    *,
    run: Path,
    out: Path | None = None,
    ignore_label: int = 255,
    voxel_nm: Voxel = None,
    seconds: float = 8.0,
    steps: int | None = None,
    view: Annotated[tuple[int, int, int, int] | None, Parameter(negative="")] = None,
    batch: int = 4,
    replay: float = 0.5,
    recency: float = 0.5,
    keep: float = 0.1,
    forget: float = 0.05,
    learning_rate: float | None = None,
    seed: int | None = None,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    device: str = "auto",
    resume: bool = False,
    as_json: Json = False,
) -> None:
    """Learn from corrections painted on a volume, in seconds, without forgetting the source.

    Parameters
    ----------
    image
        The volume that was segmented.
    corrections
        Label volume of its shape: the run's label values where painted.
    run
        Run folder that segmented the volume, or the last round of corrections.
    out
        Run folder to create; the next rounds/round-N of the run if absent.
    ignore_label
        Value where nothing is painted.
    voxel_nm
        Voxel size z,y,x in nm; as the run knew it if absent.
    seconds
        Length of the round, all that it reads, predicts and saves included.
    steps
        Steps to do, however long they take, instead of the seconds.
    view
        Section, y, x and size of the window to predict; 512 pixels around the paint if absent.
    batch
        Windows per step, replayed ones included.
    replay
        Share of windows from the run's source.
    recency
        How often a round's paint is drawn, compared with that of the round after it.
    keep
        Weight of the start's own predictions where nothing is painted.
    forget
        Most IoU that all rounds together may lose on held-out windows of the source; 1 sets no bound.
    learning_rate
        A third of the run's if absent; between rounds the same.
    seed
        Seed of everything random; the run's if absent.
    precision
        auto: bf16 where the machine computes it.
    device
        auto, cpu, cuda, cuda:N or mps.
    resume
        Go on with the stopped round in ``out``.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.corrections import correct as job

    finish(job(configs.correct(given), resume=resume), as_json)
