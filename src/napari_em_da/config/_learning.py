"""How networks learn: from labels, without labels of the target, from a few labels, from corrections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from napari_em_da.config._base import Config, Count, Fraction, NonNegative, Positive, Range, VoxelSize


class ImageConfig(Config):
    """An unlabelled volume; it has no place for labels, so none can leak into training."""

    image: Path = Field(description="File or folder of sections")
    voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; taken from the file if absent")


class CheckConfig(Config):
    """Look at volumes that belong together before any work starts."""

    source: Path | None = Field(None, description="Labelled image")
    labels: Path | None = Field(None, description="Its labels")
    target: Path | None = Field(None, description="Image to segment")
    truth: Path | None = Field(None, description="Annotation of the image to segment, which only scores look at")
    source_voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; taken from the file if absent")
    target_voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; taken from the file if absent")


class LabelledConfig(ImageConfig):
    """A volume with its label map."""

    labels: Path = Field(description="Label map of the same shape")
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Share of the sections whose labels are used"
    )


class NetworkConfig(Config):
    """Which network, and its own options."""

    name: str = Field("unet", description="Name in the catalog of networks")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that network")


class MethodConfig(Config):
    """Which training method, and its own options."""

    name: str = Field("supervised", description="Name in the catalog of methods")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that method")


class LossConfig(Config):
    """Segmentation loss: weighted cross-entropy plus an overlap loss."""

    cross_entropy: NonNegative = Field(1.0, description="Weight of the cross-entropy")
    reduction: Literal["mean_valid", "weight_mean", "sum"] = Field("mean_valid", description="Of the cross-entropy")
    overlap: Literal["dice", "squared_dice", "jaccard", "none"] = Field("dice", description="Overlap loss")
    overlap_weight: NonNegative = Field(1.0, description="Weight of the overlap loss")


class WeightConfig(Config):
    """Pixel weight map of the labels."""

    kind: str | None = Field(None, description="Name in the catalog of weight maps; none for equal weights")
    scale: Literal["none", "max1", "mean1"] | None = Field(
        None, description="Scaling of the raw map; the kind's own if absent"
    )
    floor: NonNegative | None = Field(None, description="Smallest weight; the kind's default if absent")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of that kind")


class AugmentConfig(Config):
    """Random changes of the training windows; probabilities are per window."""

    flip: bool = Field(True, description="Flip along x, y and (3D) z, each with probability 1/2")
    rotate90: bool = Field(True, description="Rotate in the plane by multiples of 90 degrees")
    scale: Range = Field((0.8, 1.25), description="In-plane magnification, log-uniform")
    rotate_deg: NonNegative = Field(0.0, description="In-plane rotation, uniform up to this angle")
    piecewise_affine: Fraction = Field(0.0, description="Probability of a random piecewise affine deformation")
    piecewise_affine_strength: Range = Field((0.01, 0.05), description="Node displacement, fraction of the window")
    elastic: Fraction = Field(0.0, description="Probability of an elastic deformation")
    elastic_kind: Literal["smoothed", "coarse"] = Field(
        "smoothed", description="Smoothed noise (Guay), or a normal 3x3 grid (the original U-Net; amplitude 10)"
    )
    elastic_px: NonNegative = Field(20.0, description="Amplitude of the elastic deformation")
    elastic_spacing_px: Positive = Field(40.0, description="Node spacing of the smoothed noise")
    photometric: Fraction = Field(0.5, description="Probability of each intensity change, per section")
    brightness: NonNegative = Field(0.12, description="Shift, fraction of the robust range")
    contrast: Range = Field((0.8, 1.2), description="Gain around the volume's mean")
    gamma: Range = Field((0.7, 1.5), description="Exponent of the intensity curve")
    blur_px: NonNegative = Field(1.0, description="Largest sigma of the Gaussian blur")
    noise: NonNegative = Field(0.05, description="Largest sigma of the noise, fraction of the robust range")
    invert: Fraction = Field(0.0, description="Probability of inverting the contrast")
    match_target: Fraction = Field(0.0, description="Probability of giving source windows the target's histogram")


class SamplingConfig(Config):
    """Which windows are drawn."""

    patch_px: tuple[Count, Count, Count] = Field((1, 192, 192), description="Window z,y,x; z is 1 for 2D networks")
    batch: Count = Field(8, description="Windows per step")
    balance: Fraction = Field(0.5, description="Share of windows centred on a class chosen uniformly")
    validation: Annotated[float, Field(ge=0, lt=0.9)] = Field(0.1, description="Share of x held out for validation")
    validation_patches: Count = Field(16, description="Windows scored at each validation")
    selection_patches: Count = Field(64, description="Target windows that a candidate is judged by, without labels")
    pixel_nm: Positive | None = Field(None, description="In-plane pixel size to train at; the data's own if absent")
    section_nm: Positive | None = Field(
        None, description="Section spacing that a 3D network trains at; the coarsest of the data if absent"
    )
    threads: Annotated[int, Field(ge=0, le=64)] = Field(1, description="Threads that prepare windows ahead")


class TrainingConfig(Config):
    """How long and how fast to train."""

    steps: Count = Field(2000, description="Training steps")
    learning_rate: Positive = Field(1e-3, description="Peak learning rate")
    schedule: Literal["onecycle", "cosine", "constant", "step", "warm"] = Field(
        "onecycle", description="Learning-rate schedule"
    )
    decay: Annotated[float, Field(gt=0, le=1)] = Field(0.75, description="Factor of the step schedule")
    decay_every: Count = Field(2512, description="Steps between decays of the step schedule")
    optimiser: Literal["adam", "adamw", "sgd"] = Field("adamw", description="Optimiser")
    weight_decay: NonNegative = Field(1e-4, description="Weight decay")
    clip_norm: NonNegative = Field(1.0, description="Largest gradient norm; 0 switches clipping off")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Decay of the weight average; 0 switches it off")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the machine computes it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of everything random")
    validate_every: Count = Field(200, description="Steps between validations")
    checkpoint_every: Count = Field(200, description="Steps between checkpoints")


class TrainConfig(Config):
    """One complete training or adaptation job; a run folder saves exactly this."""

    run: Path = Field(description="Run folder to create")
    source: tuple[LabelledConfig, ...] = Field(
        description="Labelled volumes; none only where init is adapted by a method that needs none"
    )
    target: tuple[ImageConfig, ...] = Field((), description="Unlabelled volumes to adapt to")
    classes: dict[str, tuple[int, ...]] = Field(
        min_length=1, description="Class name: label values; others are background"
    )
    ignore_label: int | None = Field(None, description="Label value that is not annotated")
    init: Path | None = Field(None, description="Run folder whose network to start from")
    init_head: Literal["by_class", "new"] = Field(
        "by_class", description="Of its classification layer: what stands for classes of the same names, or nothing"
    )
    network: NetworkConfig = NetworkConfig()
    method: MethodConfig = MethodConfig()
    loss: LossConfig = LossConfig()
    weights: WeightConfig = WeightConfig()
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = SamplingConfig()
    training: TrainingConfig = TrainingConfig()


class AdaptTrainingConfig(TrainingConfig):
    """How long and how fast to adapt."""

    steps: Count = Field(1000, description="Adaptation steps")
    learning_rate: Positive = Field(1e-4, description="Peak learning rate")
    schedule: Literal["onecycle", "cosine", "constant", "step", "warm"] = Field(
        "constant", description="Learning-rate schedule"
    )
    weight_decay: NonNegative = Field(0.0, description="Weight decay")


class AdaptConfig(Config):
    """Adapt a trained run to unlabelled volumes; what is not set here comes from that run."""

    run: Path = Field(description="Run folder of the trained source model")
    target: tuple[ImageConfig, ...] = Field(min_length=1, description="Unlabelled volumes")
    out: Path = Field(description="Run folder to create")
    source_free: bool = Field(False, description="Read nothing of the source, even if its files are at hand")
    method: MethodConfig = MethodConfig(name="adversarial")
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = SamplingConfig()
    training: AdaptTrainingConfig = AdaptTrainingConfig()


class FinetuneConfig(Config):
    """Train a trained or adapted run on with a few labels; what is not set here comes from that run."""

    run: Path = Field(description="Run folder of the network to start from")
    source: tuple[LabelledConfig, ...] = Field(min_length=1, description="Labelled volumes, those of the target")
    out: Path = Field(description="Run folder to create")
    classes: Annotated[dict[str, tuple[int, ...]], Field(min_length=1)] | None = Field(
        None, description="Class name: label values; as in the run if absent"
    )
    ignore_label: int | None = Field(None, description="Label value that is not annotated; with the run's classes, its")
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = SamplingConfig()
    training: TrainingConfig = TrainingConfig()


class CorrectConfig(Config):
    """Learn from corrections painted on a volume that a run segmented; what is not set here comes from that run."""

    run: Path = Field(description="Run folder that segmented the volume, or the last round of corrections")
    image: Path = Field(description="File or folder of sections")
    corrections: Path = Field(description="Label volume of its shape: the run's label values where painted")
    out: Path | None = Field(None, description="Run folder to create; the next rounds/round-N of the run if absent")
    ignore_label: int = Field(255, description="Value of the corrections where nothing is painted")
    voxel_nm: VoxelSize | None = Field(None, description="Voxel size z,y,x in nm; as the run knew it if absent")
    seconds: Positive = Field(8.0, description="Length of the round, all that it reads, predicts and saves included")
    steps: Count | None = Field(None, description="Steps to do, however long they take, instead of the seconds")
    view: tuple[int, int, int, Count] | None = Field(
        None, description="Section, y, x and size of the window to predict; 512 pixels around the paint if absent"
    )
    batch: Count = Field(4, description="Windows per step, replayed ones included")
    replay: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="Share of windows from the run's source")
    recency: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="How often a round's paint is drawn, compared with that of the round after it"
    )
    keep: NonNegative = Field(0.1, description="Weight of the start's own predictions where nothing is painted")
    forget: Fraction = Field(
        0.05,
        description="Most IoU that all rounds together may lose on held-out windows of the source; 1 sets no bound",
    )
    learning_rate: Positive | None = Field(None, description="A third of the run's if absent; between rounds the same")
    seed: Annotated[int, Field(ge=0)] | None = Field(None, description="Seed of everything random; the run's if absent")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the machine computes it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
