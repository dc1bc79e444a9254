"""From a round's config to its job: paths, what it takes over from the run it starts from, and its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_em_da.config import CorrectConfig, ImageConfig, MethodConfig, TrainConfig, WeightConfig
from napari_em_da.device import choose_device, choose_precision
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods._corrections import SPEC
from napari_em_da.sampling.source import SAME_SPACING
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.correction_data import is_round
from napari_em_da.workflows.plan import Plan, open_image, open_labelled
from napari_em_da.workflows.source_record import at_hand
from napari_em_da.workflows.train import absolute, full

SLOWER = 3
MOST_STEPS = 100_000  # the clock is faster


def absolute_paths(config: CorrectConfig) -> CorrectConfig:
    """Return the config with absolute paths, and with the next free folder where none is given."""
    run = full(config.run)
    changes: dict[str, Any] = {"run": run, "image": full(config.image), "corrections": full(config.corrections)}
    changes["out"] = next_round(run) if config.out is None else full(config.out)
    return config.model_copy(update=changes)


def next_round(run: Path) -> Path:
    """Return ``rounds/round-N`` of a run, or beside the round that ``run`` is; N is the first free number."""
    home = run.parent if is_round(run) and run.parent.name == "rounds" else run / "rounds"
    number = 1
    while (home / f"round-{number}").exists():
        number += 1
    return home / f"round-{number}"


def expand(config: CorrectConfig) -> TrainConfig:
    """Return the complete job: the run's own, gentler, on the corrected volume and on what is left of its source."""
    folder = RunFolder.open(config.run)
    base = folder.config()
    again = is_round(folder.path)  # already gentle, and the look of its replayed windows is settled
    training = base.training
    look_of_target = base.augment.match_target if again else float(bool(base.target))
    changes = {
        "steps": config.steps or MOST_STEPS,
        "learning_rate": config.learning_rate or training.learning_rate / (1 if again else SLOWER),
        "schedule": "warm",
        "ema": 0.0,
        "validate_every": config.steps or MOST_STEPS,
        "checkpoint_every": config.steps or MOST_STEPS,
        "seed": training.seed if config.seed is None else config.seed,
        "precision": config.precision,
        "device": config.device,
    }
    known = [item.voxel_nm for item in base.target if full(item.image) == config.image]
    voxel_nm = config.voxel_nm or next(iter(known), None)
    return absolute(
        base.model_copy(
            update={
                "run": config.out,
                "init": config.run,
                "source": at_hand(base.source),
                "target": (ImageConfig(image=config.image, voxel_nm=voxel_nm),),
                "method": MethodConfig(),
                "weights": WeightConfig(),
                "augment": base.augment.model_copy(update={"match_target": look_of_target}),
                "sampling": base.sampling.model_copy(update={"batch": config.batch}),
                "training": training.model_copy(update=changes),
            }
        )
    )


def make_round_plan(config: CorrectConfig, training: TrainConfig) -> Plan:
    """Open what a round reads; its scale and its network are those of the run, whatever the volumes are."""
    start = RunFolder.open(config.run)
    info = start.info()
    device = choose_device(training.training.device)
    seed = training.training.seed
    classes, ignore = training.classes, training.ignore_label
    source = tuple(open_labelled(item, classes, ignore, seed) for item in training.source)
    target = tuple(open_image(item) for item in training.target)
    section_nm = info.get("section_nm")
    sizes = [volume.voxel_nm for volume in (*target, *(item.image for item in source))]
    if section_nm and any(size is None or size[0] > section_nm * (1 + SAME_SPACING) for size in sizes):
        section_nm = None  # sections in between do not exist: they are taken as they are, as in segmenting
    return Plan(
        training,
        source,
        target,
        SPEC,
        start.network(),
        info["network"],
        info["pixel_nm"],
        device,
        choose_precision(training.training.precision, device),
        tuple(info.get("prior") or ()),
        (),
        section_nm=section_nm,
    )


def make_method(plan: Plan, config: CorrectConfig) -> Method:
    """Build the method around the network of the run."""
    training = plan.config.training
    loss = segmentation_loss(plan.config.loss)
    setup = Setup(plan.network, loss, plan.patch, training.steps, training.learning_rate, plan.prior)
    return SPEC.create(setup, {"keep": config.keep})
