"""Verbs that train: train, adapt, pipeline, replay, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from napari_em_da.cli import configs
from napari_em_da.cli.app import app
from napari_em_da.cli.output import display_found, finish
from napari_em_da.cli.values import (
    AdaptName,
    Classes,
    Json,
    MethodName,
    NetworkName,
    Settings,
    Voxel,
)
from napari_em_da.config import (
    AdaptTrainingConfig,
    AugmentConfig,
    LossConfig,
    SamplingConfig,
    TrainingConfig,
    WeightConfig,
)
from napari_em_da.errors import ConfigError


@app.command
def train(
    *volumes: Path,
    run: Path | None = None,
    classes: Classes = None,
    voxel_nm: Voxel = None,
    ignore_label: int | None = None,
    label_fraction: float = 1.0,
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
    label_fraction
        Share of the annotated sections whose labels are used, chosen by training.seed; a larger share holds a smaller.
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
    given = locals()
    from napari_em_da.training.folder import RunFolder
    from napari_em_da.workflows.train import train as job

    if resume is not None:
        finish(job(RunFolder.open(resume).config(), resume=True), as_json)
        return
    finish(job(configs.train(given)), as_json)


@app.command
def adapt(
    *,
    run: Path | None = None,
    target: list[Path] | None = None,
    out: Path | None = None,
    voxel_nm: Voxel = None,
    method: AdaptName = "adversarial",
    option: Settings = None,
    source_free: bool = False,
    resume: bool = False,
    augment: AugmentConfig = AugmentConfig(),
    sampling: SamplingConfig = SamplingConfig(),
    training: AdaptTrainingConfig = AdaptTrainingConfig(),
    config: Path | None = None,
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
    source_free
        Do not read the source's files, even if they are there (methods: adabn, source_free, auto).
    resume
        Go on with the stopped adaptation in ``out``; give the same options again.
    config
        A YAML file with a whole job, instead of the options.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.adapt import adapt as job

    finish(job(configs.adapt(given), resume=resume), as_json)


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
def benchmark(
    what: Literal["adaptation", "fractions"],
    *,
    data: Path,
    work: Path = Path("runs/benchmark"),
    profile: Literal["cpu", "gpu", "tiny"] = "cpu",
    pair: list[str] | None = None,
    method: list[str] | None = None,
    seeds: int = 3,
    as_json: Json = False,
) -> None:
    """Run a grid of methods on real microscope pairs; a stopped one goes on, one row per run is added to a table.

    Parameters
    ----------
    what
        adaptation: methods without target labels. fractions: what a share of the target's labels adds.
    data
        Folder with epfl_hippocampus, vnc_sstem and flyem_medulla.
    work
        Folder for runs, the table and its plots.
    profile
        Budgets: for a CPU, for a GPU, or a tiny one that only shows that everything works.
    pair
        Only this pair, for example 'epfl->vnc mito'; may be repeated.
    method
        Only this method; may be repeated. For fractions also target_only, finetune and auto; an adaptation that is not
        named takes part only where the adaptation benchmark has trained it.
    seeds
        Repetitions of everything.
    as_json
        Print JSON for machines.
    """
    from napari_em_da.experiments import adaptation, fractions
    from napari_em_da.experiments.pairs import PAIRS
    from napari_em_da.experiments.recipes import METHODS as GRID

    pairs = pair or tuple(PAIRS)
    if what == "fractions":
        finish(fractions.grid(data, work, profile=profile, pairs=pairs, methods=method, seeds=seeds), as_json)
        return
    methods = method or tuple(GRID)
    finish(adaptation.grid(data, work, profile=profile, pairs=pairs, methods=methods, seeds=seeds), as_json)


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
