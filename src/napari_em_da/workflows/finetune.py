"""Train a run on with a few labels of the volumes that it shall segment, slower and shorter than it was trained."""

from __future__ import annotations

from napari_em_da.config import FinetuneConfig, MethodConfig, TrainConfig, TrainingConfig
from napari_em_da.jobs import Job
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.adapt import override
from napari_em_da.workflows.train import full, train

SLOWER = 10
SHORTER = 2


def finetune(config: FinetuneConfig, *, resume: bool = False) -> Job:
    """Train the network of ``config.run`` on the labelled volumes of ``config.source`` and yield events as ``train``.

    The run may be a source model or an adapted one: adapting first and using the target's labels afterwards keeps the
    two apart. What is trained is the segmentation network alone, at the pixel size that it knows, from the weights and
    the batch-norm statistics that the run segments with.

    Raises
    ------
    ConfigError, DataError, ResourceError, JobFailed
        As ``train``.

    Notes
    -----
    A tenth of the run's learning rate and half of its steps, unless the config sets them.

    References
    ----------
    Roels J. et al., Domain adaptive segmentation in volume electron microscopy imaging, ISBI 2019.
    """
    return train(expand(config), resume=resume)


def expand(config: FinetuneConfig) -> TrainConfig:
    """Return the complete job: what the config leaves open comes from the run."""
    folder = RunFolder.open(full(config.run))
    base = folder.config()
    # the plan finds the section spacing: the run's, or that of coarser volumes
    scale = {"pixel_nm": folder.info().get("pixel_nm"), "section_nm": None}
    inherits_ignore = config.classes is None and "ignore_label" not in config.model_fields_set
    return base.model_copy(
        update={
            "run": config.out,
            "init": config.run,
            "source": config.source,
            "target": (),
            "classes": base.classes if config.classes is None else config.classes,
            "ignore_label": base.ignore_label if inherits_ignore else config.ignore_label,
            "method": MethodConfig(),
            "augment": override(base.augment.model_copy(update={"match_target": 0.0}), config.augment),
            "sampling": override(base.sampling.model_copy(update=scale), config.sampling),
            "training": override(gentler(base.training, config.training), config.training),
        }
    )


def gentler(base: TrainingConfig, machine: TrainingConfig) -> TrainingConfig:
    """Return the training of a run made slower and shorter, on the device of ``machine``: the run's may be another."""
    return base.model_copy(
        update={
            "learning_rate": base.learning_rate / SLOWER,
            "steps": max(1, base.steps // SHORTER),
            "device": machine.device,
            "precision": machine.precision,
        }
    )
