"""What is done with a trained network, and with what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from napari_em_da.config._base import Config, Count, Fraction, NonNegative, VoxelSize


class SegmentConfig(Config):
    """Segment a volume of any size with a trained run."""

    image: Path = Field(description="File or folder of sections")
    run: Path = Field(description="Run folder")
    output: Path = Field(description="Label volume to write (.tif or .zarr)")
    probabilities: Path | None = Field(None, description="Probability volume to write (.tif or .zarr)")
    voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; taken from the file if absent")
    checkpoint: Literal["best", "last"] = Field("best", description="Which weights")
    tta: bool = Field(False, description="Average over the 8 in-plane symmetries")
    smooth_z: Fraction = Field(
        0.2,
        description="Average along z what a 2D network finds: standard deviation as a share of each class's width; "
        "0: each section for itself",
    )
    tile_px: Count | None = Field(None, description="In-plane tile; chosen from the memory if absent")
    batch: Count | None = Field(None, description="Tiles per pass; chosen from the memory if absent")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the machine computes it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    overwrite: bool = Field(False, description="Replace outputs that exist")


class ScoringConfig(Config):
    """How scores are computed; each score reads what concerns it."""

    average: Literal["slice", "pooled"] = Field(
        "slice", description="Boundary maps: mean of the sections' scores, or one score of all sections together"
    )
    thin: bool = Field(True, description="Boundary maps: thin predicted boundaries to one pixel, as ISBI 2012 does")
    thresholds: tuple[Fraction, ...] = Field(
        tuple(i / 10 for i in range(11)), min_length=1, description="Thresholds tried on probability maps"
    )
    parity: Literal["none", "skimage", "elf", "cremi"] = Field(
        "none", description="Repeat the conventions of another implementation of Rand and variation of information"
    )
    alpha: Fraction = Field(0.5, description="Weight of the split score in vrand and vinfo")
    log_base: Annotated[float, Field(gt=1)] = Field(2.0, description="Of entropies: 2 gives bits")
    border_nm: NonNegative = Field(
        0.0, description="Leave out annotated voxels this close to another object in their section (CREMI: 25)"
    )
    tolerance_nm: NonNegative | None = Field(None, description="Of the boundary F-score; 2 in-plane pixels if absent")
    overlaps: tuple[Fraction, ...] = Field(
        tuple(round(0.5 + i / 20, 2) for i in range(10)), min_length=1, description="IoU thresholds of `ap`"
    )
    per_section: bool = Field(False, description="Match, measure distances and count topology in 2D sections, not 3D")
    subsets: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Groups of classes over which `miou` is also averaged"
    )


class EvaluateConfig(Config):
    """Score a segmentation against annotated labels."""

    prediction: Path = Field(description="Label, instance or probability volume")
    labels: Path = Field(description="Annotated label volume of the same shape")
    classes: dict[str, tuple[int, ...]] | None = Field(None, description="Class name: label values in the annotation")
    ignore_label: int | None = Field(None, description="Label value that is not annotated")
    metrics: tuple[str, ...] = Field(("iou", "dice", "precision", "recall"), description="Scores or families of them")
    kind: Literal["membrane", "object", "instances"] | None = Field(
        None, description="What the volumes hold, for scores of partitions: boundary maps (which side is 1?) or ids"
    )
    voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; taken from the files if absent")
    scoring: ScoringConfig = ScoringConfig()
    overlay: Path | None = Field(None, description="PNG of one section: hits green, misses red, false alarms blue")
    image: Path | None = Field(None, description="Volume to show below the overlay")
    plots: Path | None = Field(None, description="Folder for plots: curves, confusion, montage, splits and merges")


class StepConfig(Config):
    """One step of a post-processing chain: `name`, or `name: {option: value}`."""

    name: str = Field(description="Name in the catalog of steps")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that step")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1 and "name" not in value:
            name, options = next(iter(value.items()))
            return {"name": name, "options": options or {}}
        return value


class ChainConfig(Config):
    """A post-processing chain: steps in their order."""

    steps: tuple[StepConfig, ...] = Field(min_length=1, description="Steps in their order")


class PostprocessConfig(Config):
    """Run a chain on stored probabilities or labels of any size."""

    input: Path = Field(description="Probability, label or instance volume")
    chain: ChainConfig = Field(description="The chain")
    output: Path = Field(description="Volume to write (.tif or .zarr)")
    holds: Literal["probabilities", "labels", "instances"] | None = Field(
        None, description="What the input holds; from its type and axes if absent"
    )
    labelled: tuple[int, ...] = Field((), description="Sections that hold ground truth, which no step changes")
    voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; taken from the file if absent")
    in_memory_gib: NonNegative = Field(1.0, description="Larger volumes are worked on block by block")
    overwrite: bool = Field(False, description="Replace an output that exists")


class TuneConfig(Config):
    """Choose an option of a chain by a score, on volumes whose labels were trained on."""

    input: Path = Field(description="Stored probabilities (or labels) of a *training* volume")
    labels: Path = Field(description="Its annotation")
    chain: ChainConfig = Field(description="The chain")
    option: str = Field(description="step.option, for example watershed_fusion.weight")
    values: tuple[float, ...] = Field(min_length=2, description="Values to try")
    output: Path = Field(description="YAML file to write the tuned chain to")
    metric: str = Field("arand", description="Score to choose by; errors are minimised, scores maximised")
    kind: Literal["membrane", "object", "instances"] | None = Field(None, description="As in evaluate")
    classes: dict[str, tuple[int, ...]] | None = Field(None, description="Class name: label values in the annotation")
    ignore_label: int | None = Field(None, description="Label value that is not annotated")
    scoring: ScoringConfig = ScoringConfig()
    voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; taken from the file if absent")
    overwrite: bool = Field(False, description="Replace a file that exists")


class MeasureConfig(Config):
    """Measure every object of an instance volume."""

    labels: Path = Field(description="Instance volume")
    output: Path = Field(description="CSV to write, one row per object")
    image: Path | None = Field(None, description="Volume whose intensities are measured")
    columns: tuple[str, ...] | None = Field(None, description="Groups of measurements; all if absent")
    unit: Literal["nm", "um", "px"] = Field("nm", description="Of lengths, areas and volumes")
    voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; taken from the file if absent")
    overwrite: bool = Field(False, description="Replace an output that exists")
