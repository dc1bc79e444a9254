"""Pseudo-label rounds: predict the whole target, label what is accepted, train on it, and start over from there."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from napari_em_da.config import TrainConfig, parse
from napari_em_da.errors import ConfigError, JobFailed
from napari_em_da.events import Event, Finished, Metric, Notice, Preview, Progress
from napari_em_da.jobs import Job
from napari_em_da.methods import METHODS
from napari_em_da.methods.pseudo_labels import PseudoLabelsOptions
from napari_em_da.selection.ranking import SOURCE_ONLY
from napari_em_da.training import checkpoint
from napari_em_da.training.folder import RunFolder
from napari_em_da.workflows.correction_data import is_round
from napari_em_da.workflows.corrections import resume_round
from napari_em_da.workflows.judging import CANDIDATES, REPORT, Record, adopt, decide, read_records, told
from napari_em_da.workflows.plan import Plan, make_plan
from napari_em_da.workflows.pseudo_labelling import make_pseudo_labels
from napari_em_da.workflows.pseudo_volumes import PseudoVolume
from napari_em_da.workflows.source_record import REFERENCE
from napari_em_da.workflows.train import (
    TrainResult,
    absolute,
    check_disk,
    check_memory,
    continue_run,
    full,
    train,
)
from napari_em_da.workflows.validation import Look

ROUNDS = "rounds"
BEFORE = "before.npy"  # what the source model predicts on the windows of the judge


def learn(config: TrainConfig, *, resume: bool = False, look: Look | None = None) -> Job:
    """Train as the method asks for: in rounds where it learns from pseudo-labels, else as ``train`` does.

    A stopped round of corrections goes on as one.
    """
    if resume and is_round(config.run):
        return resume_round(config.run)
    job = rounds if METHODS[config.method.name].pseudo else train
    return job(config, resume=resume, look=look)


def rounds(config: TrainConfig, *, resume: bool = False, look: Look | None = None) -> Job:
    """Adapt ``config.init`` to ``config.target`` in rounds and yield the events of one long training.

    Every round is a run of its own in ``rounds/1``, ``rounds/2``, …, which starts from the one before; the steps of the
    config are shared out among them. ``config.run`` itself is a run like any other: its candidates are those of all
    rounds, and the one chosen without target labels is its ``best``. With ``resume``, what is complete is kept.

    Raises
    ------
    ConfigError, DataError, ResourceError
        Before any work; as ``train``, and if there is no run to start from, or fewer steps than rounds.
    JobFailed
        If a loss is not finite, or the first round accepts no pixel.
    """
    started = time.perf_counter()
    options = check(config)
    plan = make_plan(absolute(config))
    config = plan.config
    check_memory(plan)
    check_disk(plan)
    out = continue_run(config) if resume else RunFolder.create(config.run)
    if not resume:
        out.write_config(config)
    for text in plan.notices:
        yield Notice(text)
    for text in plan.warnings:
        yield Notice(text, "warning")
    said = {*plan.notices, *plan.warnings}
    folders: list[RunFolder] = []
    made: list[dict[str, Any]] = []
    for number, steps in enumerate(shared_out(config.training.steps, options.rounds), start=1):
        yield Progress(number - 1, options.rounds, "rounds", "pseudo-label rounds")
        folder = RunFolder(out.path / ROUNDS / str(number))
        volumes = yield from begin(plan, folder, folders, options, steps)
        notice = summary(number, volumes, plan)
        yield notice
        if not any(any(volume.counts) for volume in volumes):
            if folders:
                break
            raise JobFailed(f"{notice.text} Lower tau, raise accepted, set z_consistent=false, or train longer first.")
        done = sum(entry["steps"] for entry in made)
        if not ((folder.path / "run.json").is_file() and folder.info().get("finished")):
            yield from as_one(train(folder.config(), resume=True, look=look), done, config.training.steps, said)
        result = folder.info()["result"]
        folders.append(folder)
        made.append({"steps": result["steps"], "chosen": result["best_step"], "pseudo": [vars(v) for v in volumes]})
        settle(out, folders)
    yield Progress(options.rounds, options.rounds, "rounds", "pseudo-label rounds")
    yield from finish(out, made, time.perf_counter() - started)


def finish(out: RunFolder, made: list[dict[str, Any]], seconds: float) -> Job:
    """Say which candidate was chosen and why, and mark the run as finished."""
    chosen, choice, _ = decide(read_records(out))
    yield from told(choice.why, choice.warning)
    steps, digest = sum(entry["steps"] for entry in made), out.info()["result"]["digest"]
    result = TrainResult(out.path, steps, chosen.source_iou or 0.0, chosen.step, digest, round(seconds, 1))
    kept = {name: value for name, value in vars(result).items() if name != "run"}
    out.update_info({"finished": True, "result": kept, "rounds": made})
    yield Finished(result)


def check(config: TrainConfig) -> PseudoLabelsOptions:
    """Return the method's options; a ConfigError says why there can be no rounds."""
    name = config.method.name
    options = parse(PseudoLabelsOptions, config.method.options, f"option of {name}")
    if config.init is None:
        raise ConfigError(f"The method {name!r} needs a trained run to predict the target with; give init, or 'adapt'.")
    theirs, ours = list(RunFolder.open(full(config.init)).config().classes), list(config.classes)
    if theirs != ours:
        raise ConfigError(
            f"{config.init} finds {', '.join(theirs)}, not {', '.join(ours)}; {name!r} keeps its classes."
        )
    if config.training.steps < options.rounds:
        raise ConfigError(
            f"{config.training.steps} steps cannot be shared out among {options.rounds} rounds; "
            "raise training.steps or lower rounds."
        )
    return options


def shared_out(steps: int, count: int) -> list[int]:
    """Return the steps of each round: alike, the first ones one more where it does not divide."""
    each, more = divmod(steps, count)
    return [each + (number < more) for number in range(count)]


def begin(
    plan: Plan, folder: RunFolder, before: Sequence[RunFolder], options: PseudoLabelsOptions, steps: int
) -> Generator[Event, None, list[PseudoVolume]]:
    """Make a round's pseudo-labels and its run folder, whose config is written last; complete parts are kept."""
    config = plan.config
    start = before[-1].path if before else config.init
    if start is None:
        raise ConfigError("Pseudo-label rounds need a trained run to start from.")
    volumes = yield from make_pseudo_labels(plan, RunFolder.open(start), folder.path, options)
    if not (folder.path / "config.yaml").is_file():
        if before:
            carry(before[-1], folder)
        training = config.training.model_copy(update={"steps": steps, "seed": config.training.seed + len(before)})
        folder.write_config(config.model_copy(update={"run": folder.path, "init": start, "training": training}))
    return volumes


def carry(previous: RunFolder, folder: RunFolder) -> None:
    """Take over what is known of the network that a round starts from, as its first candidate and its ``best``.

    The judge's look at the source model comes along, so that scores against it mean the same in all rounds.
    """
    chosen, _, _ = decide(read_records(previous))
    home = folder.path / CANDIDATES
    home.mkdir(exist_ok=True)
    shutil.copyfile(previous.path / CANDIDATES / BEFORE, home / BEFORE)
    first = copied(chosen, folder, 0, SOURCE_ONLY)
    lines = [line for line in previous.metrics() if line["step"] == chosen.step and "target/foreground" in line]
    text = "".join(json.dumps({**line, "step": 0}) + "\n" for line in lines[-1:])
    checkpoint.write_text(folder.metrics_path, text)
    adopt(first, folder)


def copied(record: Record, folder: RunFolder, step: int, name: str) -> Record:
    """Copy a candidate into another run."""
    weights = folder.path / CANDIDATES / f"{step:06d}.safetensors"
    for source, goal in (
        (record.weights, weights),
        (record.weights.with_suffix(".json"), weights.with_suffix(".json")),
    ):
        shutil.copyfile(source, goal)
    copy = replace(record, name=name, step=step, weights=weights)
    copy.save()
    return copy


def settle(out: RunFolder, folders: Sequence[RunFolder]) -> None:
    """Gather the candidates and metrics of the rounds so far, as of one long run, and choose one for ``best``."""
    (out.path / CANDIDATES).mkdir(exist_ok=True)
    known = {record.step for record in read_records(out)}
    lines: list[dict[str, float]] = []
    offset = 0
    for folder in folders:
        for record in read_records(folder):
            step = offset + record.step
            if (record.step or not offset) and step not in known:
                copied(record, out, step, out.path.name if step else SOURCE_ONLY)
        lines += [{**line, "step": offset + line["step"]} for line in folder.metrics() if line["step"] or not offset]
        offset += int(folder.info()["result"]["steps"])
    checkpoint.write_text(out.metrics_path, "".join(json.dumps(line) + "\n" for line in lines))
    if (folders[0].path / REFERENCE).is_file():
        shutil.copyfile(folders[0].path / REFERENCE, out.path / REFERENCE)
    chosen, _, text = decide(read_records(out))
    adopt(chosen, out)
    checkpoint.write_text(out.path / REPORT, text)
    out.update_info({**folders[-1].info(), "finished": False})


def as_one(job: Job, offset: int, total: int, said: set[str]) -> Generator[Event, None, None]:
    """Re-yield the events of one round as those of one long training, without repeating what was said before."""
    with closing(job):
        for event in job:
            if isinstance(event, Metric | Preview):
                yield replace(event, step=offset + event.step)
            elif isinstance(event, Progress) and event.unit == "steps":
                yield replace(event, done=offset + event.done, total=total)
            elif not isinstance(event, Finished) and not (isinstance(event, Notice) and event.text in said):
                yield event


def summary(number: int, volumes: Sequence[PseudoVolume], plan: Plan) -> Notice:
    """Say how much of the target a round accepted; a warning where a class has nothing."""
    total = sum(volume.voxels for volume in volumes)
    names = ("background", *plan.config.classes)
    shares = [sum(volume.counts[index] for volume in volumes) / total for index in range(len(names))]
    listed = ", ".join(f"{name} {share:.1%}" for name, share in zip(names, shares, strict=True))
    text = f"Round {number} accepts {sum(shares):.1%} of the target ({listed})."
    return Notice(text, "info" if all(shares) else "warning")
