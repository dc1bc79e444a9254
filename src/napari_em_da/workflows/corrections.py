"""Learn from my corrections: a few seconds of training on what was painted, with the source replayed beside it."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import numpy as np

from napari_em_da.config import CorrectConfig, TrainConfig, parse
from napari_em_da.errors import ConfigError
from napari_em_da.events import Event, Finished, Preview, Progress, Saved
from napari_em_da.jobs import Job
from napari_em_da.methods._base import Method
from napari_em_da.models._base import SegmentationNet
from napari_em_da.sampling import Prefetch, Sample, Sampler
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.training.loop import FitResult, fit
from napari_em_da.volume import Volume
from napari_em_da.workflows.correction_check import (
    Found,
    changes,
    find_view,
    look,
    mean_iou,
    tally,
)
from napari_em_da.workflows.correction_data import Round, collect, corrected, read_manifest, read_rounds, write_rounds
from napari_em_da.workflows.correction_plan import absolute_paths, expand, make_method, make_round_plan
from napari_em_da.workflows.correction_result import CorrectResult, missing_source, tell
from napari_em_da.workflows.correction_share import LOOKS, bound, first_iou, keep_share
from napari_em_da.workflows.correction_source import replayed
from napari_em_da.workflows.correction_time import Clock, Parts
from napari_em_da.workflows.plan import Plan
from napari_em_da.workflows.source_record import REFERENCE
from napari_em_da.workflows.train import check_disk, check_memory, continue_run, describe

WRITTEN = 10  # copies of the weights that a round writes or hashes in the end
BYTES_PER_S = 2e8  # of a slow disk


def correct(
    config: CorrectConfig, *, resume: bool = False, paint: Volume | None = None, started: float | None = None
) -> Job:
    """Train the network of ``config.run`` on painted corrections for some seconds and yield events.

    Half of the windows lie around painted voxels, of this round and of those before it; the other half comes from the
    source that the run was trained on, against forgetting it. Where nothing is painted, the predictions of the
    network as it started are kept. Batch-norm statistics stay. If the IoU on held-out windows of the source falls by
    more than ``config.forget`` all the same, the weights are moved back towards the start until it does not.

    The outcome is a run folder as any other: segment with it, adapt it, or start the next round from it. Its ``best``
    weights are those that are kept, its ``last`` ones those at the end of the training.

    Parameters
    ----------
    config : CorrectConfig
    resume : bool
        Go on with the stopped round in ``config.out``, with what was painted when it began.
    paint : Volume, optional
        The corrections, where they are in memory; ``config.corrections`` is not read then.
    started : float, optional
        When the seconds began to count, by ``time.perf_counter``.

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
    parts = Parts(started)
    if resume and config.out is None:
        raise ConfigError("Name the round to go on with: its folder is 'out'.")
    config = absolute_paths(config)
    training = expand(config)
    if resume:
        continue_run(training)
        rounds = read_rounds(training.run)
    else:
        rounds = collect(config, training.target[0], RunFolder.open(config.run), paint)
    parts.note("reading the paint")
    yield from learn_round(config, training, rounds, resume=resume, parts=parts)


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
    parts: Parts | None = None,
) -> Job:
    """Train one round whose paint is known; see ``correct``."""
    parts = Parts() if parts is None else parts
    plan = make_round_plan(config, training)
    check_memory(plan)
    check_disk(plan)
    parts.note("opening")
    yield Progress(0, 1, "volumes", "preparing")
    samplers, painted, held = read(plan, config, rounds)
    parts.note("reading the volumes")
    yield Progress(1, 1, "volumes", "preparing")
    yield from missing_source(config, "source" in samplers, bool(held))
    folder = begin(config, plan, rounds, resume)
    network, names, view = plan.network.to(plan.device), list(training.classes), find_view(config.view, rounds, plan)
    start = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    parts.note("saving")

    before: Found = yield from look(network, plan, view, painted)
    again = 1.2 * parts.note("predicting the view")
    before = before.with_source(tally(network, plan, held))
    again += LOOKS * parts.note("looking at the source")
    again += WRITTEN * 4 * sum(p.numel() for p in network.parameters()) / BYTES_PER_S
    clock = Clock(None if config.steps else parts.started + config.seconds - again)
    method = make_method(plan, config)
    fitting = fit(
        method,
        lambda begun: Prefetch(samplers, range(begun, training.training.steps), threads=1),
        training.training,
        folder,
        unjudged,
        device=plan.device,
        dtype=plan.dtype,
        resume=resume,
        enough=clock,
    )
    result: FitResult = yield from clock.shown(fitting)
    parts.note("training")

    first = first_iou(config, training, before.iou("source", names))
    least = bound(first, before.iou("source", names), config.forget)
    network.eval()
    kept = keep_share(
        network,
        start,
        lambda: tally(network, plan, held),
        lambda matrix: mean_iou(matrix, names),
        least,
        before.source,
    )
    parts.note("looking at the source")
    after: Found = yield from look(network, plan, view, painted)
    after = after.with_source(kept.found)
    yield Preview("prediction", "labels", after.view, result.steps)
    parts.note("predicting the view")
    if clock.deadline is not None:  # a replay repeats the steps that there was time for
        schedule = training.training.model_copy(update={"steps": result.steps})
        folder.write_config(training.model_copy(update={"training": schedule}))
    labels = save_view(folder, plan, after)
    yield Saved(labels, "view")
    digest = save_network(folder, network, result.steps, kept.share)
    yield Saved(folder.best, "network of the round")
    parts.note("saving")
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
        first,
        kept.share,
        digest,
        round(parts.total, 1),
        parts.seconds,
    )
    folder.update_info({"finished": True, "result": vars(outcome)})
    yield from tell(outcome, config)
    yield Finished(outcome)


def read(
    plan: Plan, config: CorrectConfig, rounds: list[Round]
) -> tuple[dict[str, Sampler], list[Sample], list[Sample]]:
    """Return the samplers of a round, and the fixed windows on paint and on what the run held out of the source."""
    replay = min(round(config.batch * config.replay), config.batch - 1) if plan.source else 0
    paint, painted = corrected(plan, rounds, config.batch - replay, config.recency)
    source, held = replayed(plan, replay)
    return {"corrections": paint, **({} if source is None else {"source": source})}, painted, held


def begin(config: CorrectConfig, plan: Plan, rounds: list[Round], resume: bool) -> RunFolder:
    """Make the run folder, or open that of the stopped round."""
    training = plan.config
    folder = RunFolder.open(training.run) if resume else RunFolder.create(training.run)
    if not resume:
        folder.write_config(training)
        write_rounds(folder, config, rounds)
        if (config.run / REFERENCE).is_file():
            shutil.copyfile(config.run / REFERENCE, folder.path / REFERENCE)
    known = RunFolder.open(config.run).info()
    folder.update_info({**describe(plan), "section_nm": known.get("section_nm"), "start": str(config.run)})
    return folder


def save_view(folder: RunFolder, plan: Plan, found: Found) -> Path:
    """Save what is predicted in the view as label values."""
    values = np.array([0, *(members[0] for members in plan.config.classes.values())])
    shown = values.astype(np.min_scalar_type(values.max()))[found.view]
    return Volume.from_array(shown, voxel_nm=plan.target[0].voxel_nm).save(folder.path / "view.tif", overwrite=True)


def save_network(folder: RunFolder, network: SegmentationNet, step: int, share: float) -> str:
    """Save the weights that are kept, and return their hash."""
    weights = network.state_dict()
    checkpoint.save(folder.best, checkpoint.prefixed("network", weights), {"step": step, "kept": share})
    return checkpoint.digest(weights)


def unjudged(_method: Method, _step: int) -> Generator[Event, None, None]:
    """Yield nothing: a round is judged by whoever painted."""
    yield from ()
