"""Verbs that use what was trained, and all that needs no training: segment, evaluate, postprocess, tune, measure, …."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from napari_em_da.cli import configs
from napari_em_da.cli.app import app
from napari_em_da.cli.output import finish
from napari_em_da.cli.values import (
    Classes,
    Json,
    Names,
    Numbers,
    Sections,
    Settings,
    Voxel,
    WeightName,
    options,
)
from napari_em_da.config import ScoringConfig
from napari_em_da.errors import ConfigError


@app.command
def info(*, as_json: Json = False) -> None:
    """Show versions, the device that will be used and why, cores, memory and bf16 support.

    Parameters
    ----------
    as_json
        Print JSON for machines.
    """
    from napari_em_da.info import collect, text

    found = collect()
    print(json.dumps(found, indent=2, default=str) if as_json else text(found))


@app.command
def check(
    *,
    source: Path | None = None,
    labels: Path | None = None,
    target: Path | None = None,
    truth: Path | None = None,
    source_voxel_nm: Voxel = None,
    target_voxel_nm: Voxel = None,
    as_json: Json = False,
) -> None:
    """Look at volumes that belong together: shapes, label types, pixel sizes, blank sections, contrast.

    Parameters
    ----------
    source
        Labelled image.
    labels
        Its labels.
    target
        Image to segment.
    truth
        Annotation of the image to segment, which only scores look at.
    source_voxel_nm
        Voxel size z,y,x of the labelled image in nm; taken from the file if absent.
    target_voxel_nm
        Voxel size z,y,x of the image to segment in nm; taken from the file if absent.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.check import check as job

    finish(job(configs.check(given)), as_json)


@app.command
def weights(
    labels: Path,
    kind: WeightName,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    floor: float | None = None,
    scale: Literal["none", "max1", "mean1"] | None = None,
    ignore_label: int = 255,
    option: Settings = None,
    overwrite: bool = False,
    as_json: Json = False,
) -> None:
    """Compute a pixel weight map of a label volume.

    Parameters
    ----------
    labels
        Label volume.
    kind
        Kind of map.
    output
        Float volume to write.
    floor
        Smallest weight; the kind's default if absent.
    scale
        Scaling of the raw map.
    ignore_label
        Label value that gets weight 0.
    option
        name=value, a parameter of the kind; may be repeated.
    overwrite
        Replace the output if it exists.
    as_json
        Print JSON for machines.
    """
    from napari_em_da.workflows.weights import weights as job

    finish(job(labels, kind, output, floor, scale, ignore_label, options(option), overwrite), as_json)


@app.command
def segment(
    image: Path,
    *,
    run: Path,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    probabilities: Path | None = None,
    voxel_nm: Voxel = None,
    checkpoint: Literal["best", "last"] = "best",
    tta: bool = False,
    smooth_z: float = 0.2,
    tile_px: int | None = None,
    batch: int | None = None,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
    device: str = "auto",
    overwrite: bool = False,
    as_json: Json = False,
) -> None:
    """Segment a volume of any size with a trained or adapted run.

    Parameters
    ----------
    image
        File or folder of sections.
    run
        Run folder.
    output
        Label volume to write.
    probabilities
        Probability volume to write.
    voxel_nm
        Voxel size z,y,x in nm; taken from the file if absent.
    checkpoint
        Which weights of the run.
    tta
        Average over the 8 in-plane symmetries.
    smooth_z
        Average along z what a 2D network finds: standard deviation as a share of each class's width; 0: each section
        for itself.
    tile_px
        In-plane tile; chosen from the memory if absent.
    batch
        Tiles per pass; chosen from the memory if absent.
    precision
        auto: bf16 where the machine computes it.
    device
        auto, cpu, cuda, cuda:N or mps.
    overwrite
        Replace outputs that exist.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.segment import segment as job

    finish(job(configs.segment(given)), as_json)


@app.command
def evaluate(
    prediction: Path,
    labels: Path,
    *,
    classes: Classes = None,
    ignore_label: int | None = None,
    metrics: Names = ("iou", "dice", "precision", "recall"),
    kind: Literal["membrane", "object", "instances"] | None = None,
    voxel_nm: Voxel = None,
    scoring: ScoringConfig = ScoringConfig(),
    overlay: Path | None = None,
    image: Path | None = None,
    plots: Path | None = None,
    as_json: Json = False,
) -> None:
    """Score a segmentation against an annotation.

    Parameters
    ----------
    prediction
        Label, instance or probability volume.
    labels
        Annotated label volume of the same shape.
    classes
        name=value[+value…][,name=…]; what 'segment' recorded if absent.
    ignore_label
        Label value that is not annotated.
    metrics
        Scores or families of them, separated by commas (vrand,vi,warping); docs/metrics.md lists all.
    kind
        What the volumes hold, for scores of partitions: a boundary map (membrane or object is 1), or instance ids.
    voxel_nm
        Voxel size z,y,x in nm; taken from the files if absent.
    overlay
        PNG of the section with the most foreground: hits green, misses red, false alarms blue.
    image
        Volume to show below the overlay.
    plots
        Folder for plots: curves, confusion, montage, splits and merges.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.evaluate import evaluate as job

    finish(job(configs.evaluate(given)), as_json)


@app.command
def postprocess(
    volume: Path,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    chain: Path | None = None,
    run: Path | None = None,
    holds: Literal["probabilities", "labels", "instances"] | None = None,
    labelled: Sections = (),
    voxel_nm: Voxel = None,
    in_memory_gib: float = 1.0,
    overwrite: bool = False,
    as_json: Json = False,
) -> None:
    """Run a post-processing chain on stored probabilities, labels or instances; nothing is predicted again.

    Parameters
    ----------
    volume
        Probability volume of 'segment', or labels, or instances.
    output
        Volume to write.
    chain
        YAML file with the steps; docs/postprocessing.md lists all.
    run
        Run folder whose chain.yaml is taken.
    holds
        What the volume holds; from its type and axes if absent.
    labelled
        Sections that hold ground truth, separated by commas.
    voxel_nm
        Voxel size z,y,x in nm; taken from the file if absent.
    in_memory_gib
        Larger volumes are worked on block by block.
    overwrite
        Replace an output that exists.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.postprocess import read_chain
    from napari_em_da.workflows.postprocess import run_chain as job

    if (chain is None) == (run is None):
        raise ConfigError("Give either --chain, a YAML file, or --run, a run folder that has a chain.yaml.")
    finish(job(configs.postprocess({**given, "chain": read_chain(chain or run or Path())})), as_json)


@app.command
def tune(
    volume: Path,
    labels: Path,
    *,
    chain: Path,
    option: str,
    values: Numbers,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    metric: str = "arand",
    kind: Literal["membrane", "object", "instances"] | None = None,
    classes: Classes = None,
    ignore_label: int | None = None,
    scoring: ScoringConfig = ScoringConfig(),
    voxel_nm: Voxel = None,
    overwrite: bool = False,
    as_json: Json = False,
) -> None:
    """Choose one option of a chain by a score on a training volume; never on the labels of a target.

    Parameters
    ----------
    volume
        Stored probabilities of a volume that was trained on.
    labels
        Its annotation.
    chain
        YAML file with the steps.
    option
        step.option, for example watershed_fusion.weight.
    values
        Values to try: a,b,c or first:last:step.
    output
        YAML file for the tuned chain; RUN/chain.yaml makes it the run's own.
    metric
        Score to choose by.
    kind
        What the chain's outcome is scored as, as in evaluate.
    classes
        name=value of the annotation; what 'segment' recorded if absent.
    ignore_label
        Label value that is not annotated.
    voxel_nm
        Voxel size z,y,x in nm; taken from the file if absent.
    overwrite
        Replace an output that exists.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.postprocess import read_chain
    from napari_em_da.workflows.tune import tune as job

    finish(job(configs.tune({**given, "chain": read_chain(chain)})), as_json)


@app.command
def measure(
    labels: Path,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    image: Path | None = None,
    columns: Names | None = None,
    unit: Literal["nm", "um", "px"] = "nm",
    voxel_nm: Voxel = None,
    overwrite: bool = False,
    as_json: Json = False,
) -> None:
    """Measure every object of an instance volume: size, surface, shape, place, intensity, contacts.

    Parameters
    ----------
    labels
        Instance volume.
    output
        CSV to write, one row per object.
    image
        Volume whose intensities are measured.
    columns
        Groups of measurements, separated by commas; all if absent.
    unit
        Of lengths, areas and volumes.
    voxel_nm
        Voxel size z,y,x in nm; taken from the file if absent.
    overwrite
        Replace an output that exists.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.measure import measure as job

    finish(job(configs.measure(given)), as_json)
