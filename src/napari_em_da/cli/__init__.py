"""The command line: every verb is a workflow, every option a field of its config."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from napari_em_da.cli.output import display_found, fail, finish
from napari_em_da.cli.values import (
    Classes,
    Json,
    MethodName,
    NetworkName,
    Settings,
    Voxel,
    WeightName,
    options,
    read_yaml,
)
from napari_em_da.config import (
    AdaptConfig,
    AdaptTrainingConfig,
    AugmentConfig,
    Config,
    EvaluateConfig,
    ImageConfig,
    LabelledConfig,
    LossConfig,
    MethodConfig,
    NetworkConfig,
    SamplingConfig,
    SegmentConfig,
    TrainConfig,
    TrainingConfig,
    WeightConfig,
    describe,
    parse,
)
from napari_em_da.errors import ConfigError, DataError, EmDaError, JobFailed, ResourceError

EXIT_CODES = {ConfigError: 2, DataError: 3, ResourceError: 4, JobFailed: 5}
EXIT_CANCELLED = 130

app = App(
    name="napari-em-da",
    help="Segment electron microscopy volumes and adapt to new microscopes.",
    help_format="plaintext",
    default_parameter=Parameter(negative_iterable=""),
)


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
def train(
    *volumes: Path,
    run: Path | None = None,
    classes: Classes = None,
    voxel_nm: Voxel = None,
    ignore_label: int | None = None,
    init: Path | None = None,
    network: NetworkName = "unet",
    network_option: Settings = None,
    method: MethodName = "supervised",
    method_option: Settings = None,
    weight_option: Settings = None,
    weights: WeightConfig = WeightConfig(),
    loss: LossConfig = LossConfig(),
    augment: AugmentConfig = AugmentConfig(),
    sampling: SamplingConfig = SamplingConfig(),
    training: TrainingConfig = TrainingConfig(),
    config: Path | None = None,
    resume: Path | None = None,
    as_json: Json = False,
) -> None:
    """Train a network on labelled volumes.

    Parameters
    ----------
    volumes
        IMAGE LABELS, or several such pairs.
    run
        Run folder to create.
    classes
        name=value[+value…][,name=…], such as mito=2; other values are background.
    voxel_nm
        Voxel size z,y,x in nm of all images; taken from the files if absent.
    ignore_label
        Label value that is not annotated.
    init
        Run folder whose network to start from.
    network_option, method_option, weight_option
        name=value, an option of the network, method or weight map; may be repeated.
    config
        A YAML file with a whole job, instead of the options.
    resume
        Run folder to continue, instead of the options.
    as_json
        Print JSON for machines.
    """
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.train import train as job

    if resume is not None:
        finish(job(RunFolder.open(resume).config(), resume=True), as_json)
        return
    if config is not None:
        finish(job(parse(TrainConfig, read_yaml(config))), as_json)
        return
    if not volumes or len(volumes) % 2:
        raise ConfigError(f"{len(volumes)} volumes given; give IMAGE LABELS, or several such pairs.")
    if run is None or not classes:
        raise ConfigError("Give --run FOLDER and --classes name=value (for example --classes mito=2).")
    pairs = zip(volumes[::2], volumes[1::2], strict=True)
    job_config = TrainConfig(
        run=run,
        source=tuple(LabelledConfig(image=image, labels=labels, voxel_nm=voxel_nm) for image, labels in pairs),
        classes=classes,
        ignore_label=ignore_label,
        init=init,
        network=NetworkConfig(name=network, options=options(network_option)),
        method=MethodConfig(name=method, options=options(method_option)),
        weights=weights.model_copy(update={"params": {**weights.params, **options(weight_option)}}),
        loss=loss,
        augment=augment,
        sampling=sampling,
        training=training,
    )
    finish(job(job_config), as_json)


@app.command
def adapt(
    *,
    run: Path,
    target: list[Path],
    out: Path,
    voxel_nm: Voxel = None,
    method: MethodName = "adversarial",
    option: Settings = None,
    augment: AugmentConfig = AugmentConfig(),
    sampling: SamplingConfig = SamplingConfig(),
    training: AdaptTrainingConfig = AdaptTrainingConfig(),
    as_json: Json = False,
) -> None:
    """Adapt a trained run to unlabelled volumes of another microscope.

    Parameters
    ----------
    run
        Run folder of the trained source model.
    target
        Unlabelled volume; may be repeated.
    out
        Run folder to create.
    voxel_nm
        Voxel size z,y,x in nm of the targets; taken from the files if absent.
    option
        name=value, an option of the method; may be repeated.
    as_json
        Print JSON for machines.
    """
    from napari_em_da.workflows.adapt import adapt as job

    targets = tuple(ImageConfig(image=path, voxel_nm=voxel_nm) for path in target)
    config = AdaptConfig(
        run=run,
        target=targets,
        out=out,
        method=MethodConfig(name=method, options=options(option)),
        augment=augment,
        sampling=sampling,
        training=training,
    )
    finish(job(config), as_json)


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
    from napari_em_da.workflows.segment import segment as job

    given = {k: v for k, v in locals().items() if k in SegmentConfig.model_fields}
    finish(job(parse(SegmentConfig, given)), as_json)


@app.command
def evaluate(
    prediction: Path,
    labels: Path,
    *,
    classes: Classes = None,
    ignore_label: int | None = None,
    metrics: str = "iou,dice,precision,recall",
    overlay: Path | None = None,
    image: Path | None = None,
    as_json: Json = False,
) -> None:
    """Score a segmentation against an annotation.

    Parameters
    ----------
    prediction
        Label volume.
    labels
        Annotated label volume of the same shape.
    classes
        name=value[+value…][,name=…]; what 'segment' recorded if absent.
    ignore_label
        Label value that is not annotated.
    metrics
        Names, separated by commas.
    overlay
        PNG of the section with the most foreground: hits green, misses red, false alarms blue.
    image
        Volume to show below the overlay.
    as_json
        Print JSON for machines.
    """
    from napari_em_da.workflows.evaluate import evaluate as job

    config = EvaluateConfig(
        prediction=prediction,
        labels=labels,
        classes=classes,
        ignore_label=ignore_label,
        metrics=tuple(metrics.split(",")),
        overlay=overlay,
        image=image,
    )
    finish(job(config), as_json)


@app.command
def replay(run: Path, *, out: Path | None = None, as_json: Json = False) -> None:
    """Repeat a finished run from its folder and say whether the result is identical.

    Parameters
    ----------
    run
        Run folder.
    out
        Folder of the repetition; the run's name with -replay if absent.
    as_json
        Print JSON for machines.
    """
    from napari_em_da.workflows.replay import replay as job

    finish(job(run, out), as_json)


@app.command
def pipeline(config: Path | None = None, *, template: bool = False, as_json: Json = False) -> None:
    """Run training stages that start from each other, as S0 does; a stopped pipeline goes on where it was.

    Parameters
    ----------
    config
        YAML file with the stages.
    template
        Print S0's stages as YAML to start from.
    as_json
        Print JSON for machines.
    """
    import yaml

    from napari_em_da.workflows.pipeline import load, s0_template
    from napari_em_da.workflows.pipeline import pipeline as job

    if template:
        print(yaml.safe_dump(s0_template(), sort_keys=False), end="")
        return
    if config is None:
        raise ConfigError("Give a YAML file of stages; --template prints one to start from.")
    finish(job(load(config)), as_json)


@app.command
def demo(*, out: Path = Path("runs/demo"), gui: bool | None = None, seed: int = 0, as_json: Json = False) -> None:
    """Train on one microscope, adapt to another, segment it and score it, on the embedded phantom (minutes).

    Parameters
    ----------
    out
        Folder to create.
    gui
        Open napari with the result at the end; by default where there is a display.
    seed
        Seed of phantom and training.
    as_json
        Print JSON for machines.
    """
    from napari_em_da.workflows.demo import demo as job

    finish(job(out, seed=seed), as_json)
    if gui or (gui is None and display_found()):
        from napari_em_da.layers import open_demo

        open_demo(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 2 wrong usage or config, 3 data, 4 resources, 5 job failed, 130 cancelled.
    """
    from pydantic import ValidationError

    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except EmDaError as error:
        return fail(str(error), next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))
    except ValidationError as error:
        return fail(describe(error, Config), EXIT_CODES[ConfigError])
    except CycloptsError as error:
        cause = error.__cause__
        text = describe(cause, Config) if isinstance(cause, ValidationError) else str(cause or error)
        return fail(text.strip(), EXIT_CODES[ConfigError])
    except OSError as error:
        return fail(f"{error.strerror or error}: {error.filename or ''}. Check the disk and the permissions.", 4)
    except KeyboardInterrupt:
        return fail("Cancelled. A training run goes on with: napari-em-da train --resume RUN", EXIT_CANCELLED)
    return 0
