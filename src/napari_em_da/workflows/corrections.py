"""Learn from my corrections: a few seconds of training on what was painted, with the source replayed beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_em_da.config import CorrectConfig, ImageConfig, MethodConfig, TrainConfig, WeightConfig, parse
from napari_em_da.device import choose_device, choose_precision
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event, Finished, Metric, Notice, Preview, Progress, Saved
from napari_em_da.jobs import Job, forward
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods._base import Method, Setup
from napari_em_da.methods._corrections import SPEC
from napari_em_da.sampling import Prefetch
from napari_em_da.sampling.source import SAME_SPACING
from napari_em_da.training.folder import RunFolder
from napari_em_da.training.loop import FitResult, fit
from napari_em_da.volume import Volume
from napari_em_da.workflows.correction_check import Found, View, changes, find_view, look
from napari_em_da.workflows.correction_data import (
    Round,
    collect,
    corrected,
    is_round,
    read_manifest,
    read_rounds,
    replayed,
    write_rounds,
)
from napari_em_da.workflows.plan import Plan, open_image, open_labelled
from napari_em_da.workflows.source_record import REFERENCE, at_hand
from napari_em_da.workflows.train import absolute, check_disk, check_memory, continue_run, describe, full

SLOWER = 3
MOST_STEPS = 100_000  # the clock is faster
FORGOT = 0.02  # loss of IoU on the source that is worth a warning


@dataclass(frozen=True)
class CorrectResult:
    """A round of corrections: a run like any other, and what it changed.

    Attributes
    ----------
    run : Path
    round, steps, painted : int
        Number of the round, steps done, painted voxels of all rounds.
    view : (section, y, x, size), and ``view_labels``, a file with the label values predicted there
    changed : dict of str to float
        Share of the view's pixels whose class changed (``all``), and that became or ceased to be each class.
    accuracy, iou, source_iou : (before, after)
        On painted voxels, and on windows of the source that the run held out; None where no class occurs.
    digest : str
        Hash of the final weights.
    seconds : float
    """

    run: Path
    round: int
    steps: int
    painted: int
    view: View
    view_labels: Path
    changed: dict[str, float]
    accuracy: tuple[float, float]
    iou: tuple[float | None, float | None]
    source_iou: tuple[float | None, float | None]
    digest: str
    seconds: float


def correct(config: CorrectConfig, *, resume: bool = False) -> Job:
    """Train the network of ``config.run`` on painted corrections for some seconds and yield events.

    Half of the windows lie around painted voxels, of this round and of those before it; the other half comes from the
    source that the run was trained on, against forgetting it. Where nothing is painted, the predictions of the
    network as it started are kept. Batch-norm statistics stay.

    The outcome is a run folder as any other: segment with it, adapt it, or start the next round from it.

    Parameters
    ----------
    config : CorrectConfig
    resume : bool
        Go on with the stopped round in ``config.out``, with what was painted when it began.

    Yields
    ------
    Notice, Progress, Metric, Preview, Saved, and last Finished with a CorrectResult.

    Raises
    ------
    ConfigError, DataError, ResourceError
        Before any work: unknown run, nothing painted, other shapes, an existing folder.
    JobFailed
        If a loss is not finite.

    Notes
    -----
    The clock decides how many steps are done; the run records their number, so that a replay repeats exactly them.
    The source comes without its weight map, whose computation may take longer than the round.
    """
    started = time.perf_counter()
    if resume and config.out is None:
        raise ConfigError("Name the round to go on with: its folder is 'out'.")
    config = absolute_paths(config)
    training = expand(config)
    if resume:
        continue_run(training)
        rounds = read_rounds(training.run)
    else:
        rounds = collect(config, training.target[0], RunFolder.open(config.run))
    yield from learn_round(config, training, rounds, resume=resume, started=started)


def resume_round(run: Path) -> Job:
    """Continue a stopped round from its folder alone."""
    config = parse(CorrectConfig, read_manifest(run)["config"])
    yield from learn_round(config, RunFolder.open(run).config(), read_rounds(run), resume=True)


def repeat_round(run: Path, out: Path) -> Job:
    """Repeat a finished round, with as many steps as it did, into another folder."""
    training = RunFolder.open(run).config()
    manifest = read_manifest(run)["config"]
    config = parse(CorrectConfig, {**manifest, "out": out, "steps": training.training.steps})
    yield from learn_round(config, training.model_copy(update={"run": out}), read_rounds(run))


def learn_round(
    config: CorrectConfig,
    training: TrainConfig,
    rounds: list[Round],
    *,
    resume: bool = False,
    started: float | None = None,
) -> Job:
    """Train one round whose paint is known; see ``correct``."""
    started = time.perf_counter() if started is None else started
    plan = make_round_plan(config, training)
    check_memory(plan)
    check_disk(plan)
    replay = round(config.batch * config.replay) if plan.source else 0
    replay = min(replay, config.batch - 1)
    yield Progress(0, 1, "volumes", "preparing")
    paint, painted = corrected(plan, rounds, config.batch - replay, config.recency)
    source, held = replayed(plan, replay)
    yield Progress(1, 1, "volumes", "preparing")
    if source is None:
        yield Notice(
            "Only the corrections are learned: no labelled source is replayed, so what the network knew may be lost. "
            + ("Put the source's files back." if config.replay else "Set replay above 0."),
            "warning",
        )
    folder = RunFolder.open(training.run) if resume else RunFolder.create(training.run)
    if not resume:
        folder.write_config(training)
        write_rounds(folder, config, rounds)
        if (config.run / REFERENCE).is_file():
            shutil.copyfile(config.run / REFERENCE, folder.path / REFERENCE)
    known = RunFolder.open(config.run).info()
    folder.update_info({**describe(plan), "section_nm": known.get("section_nm"), "start": str(config.run)})
    view = find_view(config.view, rounds, plan.target[0].shape)

    begun = time.perf_counter()
    network = plan.network.to(plan.device)
    before: Found = yield from look(network, plan, view, painted, held)
    now = time.perf_counter()
    deadline = None if config.steps else started + config.seconds - 1.2 * (now - begun)
    clock = Clock(deadline)
    method = make_method(plan, config)
    samplers = {"corrections": paint, **({} if source is None else {"source": source})}
    fitting = fit(
        method,
        lambda start: Prefetch(samplers, range(start, training.training.steps), threads=1),
        training.training,
        folder,
        keep_last,
        device=plan.device,
        dtype=plan.dtype,
        resume=resume,
        enough=clock,
    )
    result: FitResult = yield from clock.shown(fitting)
    if deadline is not None:  # a replay repeats the steps that there was time for
        schedule = training.training.model_copy(update={"steps": result.steps})
        folder.write_config(training.model_copy(update={"training": schedule}))
    after: Found = yield from look(method.network, plan, view, painted, held)
    yield Preview("prediction", "labels", after.view, result.steps)
    names = list(training.classes)
    labels = folder.path / "view.tif"
    values = np.array([0, *(members[0] for members in training.classes.values())])
    shown = values.astype(np.min_scalar_type(values.max()))[after.view]
    Volume.from_array(shown, voxel_nm=plan.target[0].voxel_nm).save(labels, overwrite=True)
    yield Saved(labels, "view")
    outcome = CorrectResult(
        folder.path,
        rounds[-1].number,
        result.steps,
        sum(item.painted.voxels for item in rounds),
        view,
        labels,
        changes(before.view, after.view, names),
        (before.accuracy, after.accuracy),
        (before.iou("painted", names), after.iou("painted", names)),
        (before.iou("source", names), after.iou("source", names)),
        result.digest,
        round(time.perf_counter() - started, 1),
    )
    folder.update_info({"finished": True, "result": vars(outcome)})
    yield from tell(outcome)
    yield Finished(outcome)


def tell(outcome: CorrectResult) -> Iterator[Event]:
    """Say what a round changed, and warn where the source was forgotten."""
    steps = f"{outcome.steps} step{'s' if outcome.steps != 1 else ''}"
    yield Notice(
        f"Round {outcome.round}, {steps}: {100 * outcome.changed['all']:.1f} % of the view changed; "
        f"{100 * outcome.accuracy[0]:.0f} % of the painted voxels were right before, {100 * outcome.accuracy[1]:.0f} % "
        "are now."
    )
    before, after = outcome.source_iou
    if before is not None and after is not None and before - after > FORGOT:
        yield Notice(
            f"The IoU on the source fell from {before:.3f} to {after:.3f}: raise replay or keep, or lower the learning "
            "rate, if the source still matters.",
            "warning",
        )


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
        "schedule": "constant",
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


def keep_last(method: Method, step: int) -> Iterator[Event]:
    """Make the last weights the best: a round is judged by whoever painted."""
    yield Metric(step, {"score": float(step)})


class Clock:
    """Ends a training in time: before the step that would end after the deadline; None never ends it."""

    def __init__(self, deadline: float | None, now: Callable[[], float] = time.perf_counter) -> None:
        self.deadline = deadline
        self.now = now
        self.started = now()
        self.steps = 0

    def __call__(self, step: int) -> bool:
        """Return whether there is no time for another step; one step is always done."""
        self.steps += 1
        if self.deadline is None or self.steps == 1:
            return False
        passed = self.now() - self.started
        return self.now() + passed / (self.steps - 1) > self.deadline

    def shown(self, job: Job) -> Generator[Event, None, Any]:
        """Re-yield the events of a training, its progress in seconds where these are limited; return its result."""
        return (yield from forward(self._in_seconds(job)))

    def _in_seconds(self, job: Job) -> Job:
        total = None if self.deadline is None else max(1, round(self.deadline - self.started))
        for event in job:
            if total is not None and isinstance(event, Progress):
                event = Progress(min(total, int(self.now() - self.started)), total, "seconds", event.stage)
            yield event
