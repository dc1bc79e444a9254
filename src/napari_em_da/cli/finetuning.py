"""The verb that trains on with a few labels: finetune."""

from __future__ import annotations

from pathlib import Path

from napari_em_da.cli import configs
from napari_em_da.cli.app import app
from napari_em_da.cli.output import finish
from napari_em_da.cli.values import Classes, Json, Voxel
from napari_em_da.config import AugmentConfig, SamplingConfig, TrainingConfig


@app.command
def finetune(
    *volumes: Path,
    run: Path | None = None,
    out: Path | None = None,
    classes: Classes = None,
    voxel_nm: Voxel = None,
    ignore_label: int | None = None,
    label_fraction: float = 1.0,
    resume: bool = False,
    augment: AugmentConfig = AugmentConfig(),
    sampling: SamplingConfig = SamplingConfig(),
    training: TrainingConfig = TrainingConfig(),
    config: Path | None = None,
    as_json: Json = False,
) -> None:
    """Train a run, adapted or not, on with a few labels of the volumes that it shall segment.

    What is not given comes from the run: its network, classes, pixel size and training, with a tenth of its learning
    rate and half of its steps.

    Parameters
    ----------
    volumes
        IMAGE LABELS, or several such pairs.
    run
        Run folder of the network to start from.
    out
        Run folder to create.
    classes
        name=value[+value…][,name=…], such as mito=2, where the labels have other values than the run's.
    voxel_nm
        Voxel size z,y,x in nm of all images; taken from the files if absent.
    ignore_label
        Label value that is not annotated.
    label_fraction
        Share of the annotated sections whose labels are used, chosen by training.seed; a larger share holds a smaller.
    resume
        Go on with the stopped run in ``out``; give the same options again.
    config
        A YAML file with a whole job, instead of the options.
    as_json
        Print JSON for machines.
    """
    given = locals()
    from napari_em_da.workflows.finetune import finetune as job

    finish(job(configs.finetune(given), resume=resume), as_json)
