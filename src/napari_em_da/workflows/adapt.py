"""Adapt a trained run to unlabelled volumes: the same job as training, with a target and a method that uses it."""

from __future__ import annotations

from napari_em_da.config import AdaptConfig, M, TrainConfig, TrainingConfig
from napari_em_da.jobs import Job
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.auto import AUTO, auto
from napari_em_da.workflows.rounds import learn
from napari_em_da.workflows.source_record import at_hand
from napari_em_da.workflows.train import full
from napari_em_da.workflows.validation import Look

SOURCE_FREE = ("adabn", "source_free")


def adapt(config: AdaptConfig, *, resume: bool = False, look: Look | None = None) -> Job:
    """Adapt the network of ``config.run`` to ``config.target`` and yield events as ``train`` does.

    The method ``auto`` tries several methods and chooses among all their checkpoints without target labels, and
    ``pseudo_labels`` works in rounds (see ``rounds``).

    The target's pixel size becomes the network's: the source is resampled to it. No labels of the target are read; the
    config has no place for them.

    Where files of the source are gone, or ``config.source_free`` says so, nothing of it is read: what the run kept of
    it (class shares, shapes) has to do, the target is resampled to the run's pixel size, and the method must be one
    that learns from the target alone, as ``source_free`` and ``adabn``; ``auto`` then tries these two.

    Raises
    ------
    ConfigError, DataError, ResourceError, JobFailed
        As ``train``.
    """
    if config.method.name == AUTO:
        return auto(config if expand(config).source else without_source(config), resume=resume, look=look)
    return learn(expand(config), resume=resume, look=look)


def expand(config: AdaptConfig) -> TrainConfig:
    """Return the complete job: what the adaptation leaves open comes from the source run."""
    base = RunFolder.open(full(config.run)).config()
    sampling = override(base.sampling.model_copy(update={"pixel_nm": None, "section_nm": None}), config.sampling)
    seed = config.training.seed if "seed" in config.training.model_fields_set else base.training.seed
    return base.model_copy(
        update={
            "run": config.out,
            "init": config.run,
            "source": () if config.source_free else at_hand(base.source),
            "target": config.target,
            "method": config.method,
            "augment": override(without_defaults(base.augment), config.augment),
            "sampling": sampling,
            "training": TrainingConfig(**{**config.training.model_dump(), "seed": seed}),
        }
    )


def without_source(config: AdaptConfig) -> AdaptConfig:
    """Return a job of ``auto`` that tries, unless told otherwise, the methods that learn from the target alone."""
    portfolio = [{"name": name, "method": {"name": name}} for name in SOURCE_FREE]
    method = config.method.model_copy(update={"options": {"portfolio": portfolio, **config.method.options}})
    return config.model_copy(update={"method": method})


def without_defaults(base: M) -> M:
    """Return the same values with only those marked as set that differ from their defaults.

    A run saves every value, so that it no longer shows which ones its user chose.
    """
    return type(base)(**base.model_dump(exclude_defaults=True))


def override(base: M, changes: M) -> M:
    """Return ``base`` with the fields that ``changes`` sets explicitly."""
    return base.model_copy(update={name: getattr(changes, name) for name in changes.model_fields_set})
