"""Train a network on labelled volumes; with a target and a method that uses it, adapt it (see ``adapt``)."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from napari_em_da.config import TrainConfig
from napari_em_da.errors import ConfigError, ResourceError
from napari_em_da.events import Finished, Metric, Notice, Preview
from napari_em_da.jobs import Job, forward
from napari_em_da.losses import segmentation_loss
from napari_em_da.methods._base import Method, Setup
from napari_em_da.sampling import Prefetch
from napari_em_da.seeding import seeded
from napari_em_da.training.folder import RunFolder
from napari_em_da.training.loop import FitResult, fit
from napari_em_da.workflows.judging import decide, read_records, told
from napari_em_da.workflows.plan import (
    Plan,
    describe_volume,
    make_plan,
)
from napari_em_da.workflows.pseudo_volumes import check_pseudo
from napari_em_da.workflows.streams import prepare
from napari_em_da.workflows.validation import Look, Validation


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its folder, the best validation score with its step, a hash of the final weights, seconds.

    Of an adaptation ``best_step`` is the candidate chosen without target labels (0: the source model), and
    ``best_score`` its IoU on held-out windows of the source.
    """

    run: Path
    steps: int
    best_score: float
    best_step: int
    digest: str
    seconds: float


def train(config: TrainConfig, *, resume: bool = False, look: Look | None = None) -> Job:
    """Train as ``config`` says and yield events.

    Parameters
    ----------
    config : TrainConfig
        ``config.run`` is the folder to create.
    resume : bool
        Continue the run in that folder from its last checkpoint, bit for bit on the CPU.
    look : callable, optional
        Shows more of the network at each validation, as `watching.Watch` does; the run stays the same.

    Yields
    ------
    Notice, Progress, Metric, Preview, Saved, and last Finished with a TrainResult.

    Raises
    ------
    ConfigError, DataError, ResourceError
        Before any work, with the remedy; see ``make_plan``.
    JobFailed
        If a loss is not finite.
    """
    plan = make_plan(absolute(config))
    config = plan.config
    check_pseudo(plan)
    check_memory(plan)
    check_disk(plan)
    folder = continue_run(config) if resume else RunFolder.create(config.run)
    started = time.perf_counter()
    if not resume:
        folder.write_config(config)
    folder.update_info(describe(plan))
    for text in plan.notices:
        yield Notice(text)
    for text in plan.warnings:
        yield Notice(text, "warning")
    samplers, validation = yield from prepare(plan, folder, look)
    method = make_method(plan)
    if plan.target and not folder.best.is_file():
        yield from judge_source(method.to(plan.device), validation, folder)
    result: FitResult = yield from forward(
        fit(
            method,
            lambda start: Prefetch(samplers, range(start, config.training.steps), threads=config.sampling.threads),
            config.training,
            folder,
            validation,
            device=plan.device,
            dtype=plan.dtype,
            resume=resume,
        )
    )
    if plan.target:
        chosen, choice, _ = decide([record for record in read_records(folder) if record.step <= result.steps])
        result = replace(result, best_step=chosen.step, best_score=chosen.source_iou or 0.0)
        yield from told(choice.why, choice.warning)
    seconds = round(time.perf_counter() - started, 1)
    folder.update_info({"finished": True, "result": {**vars(result), "seconds": seconds}})
    yield Finished(TrainResult(config.run, result.steps, result.best_score, result.best_step, result.digest, seconds))


def judge_source(method: Method, validation: Validation, folder: RunFolder) -> Job:
    """Look at the network as it starts: the source model is the first candidate, and the one to fall back on."""
    for event in validation(method, 0):
        if isinstance(event, Metric):
            folder.log(event.step, event.values)
        elif isinstance(event, Preview):
            folder.preview(event)
        yield event


def make_method(plan: Plan) -> Method:
    """Build the method; the same seed gives the same first weights of whatever it adds to the network."""
    config = plan.config
    setup = Setup(
        plan.network,
        segmentation_loss(config.loss),
        plan.patch,
        config.training.steps,
        config.training.learning_rate,
        plan.prior,
    )
    with seeded(config.training.seed):
        return plan.method.create(setup, config.method.options)


def absolute(config: TrainConfig) -> TrainConfig:
    """Return the config with absolute paths."""
    source = tuple(i.model_copy(update={"image": full(i.image), "labels": full(i.labels)}) for i in config.source)
    target = tuple(i.model_copy(update={"image": full(i.image)}) for i in config.target)
    init = None if config.init is None else full(config.init)
    return config.model_copy(update={"run": full(config.run), "source": source, "target": target, "init": init})


def full(path: Path) -> Path:
    """Return the absolute path, with ~ expanded."""
    return path.expanduser().resolve()


def continue_run(config: TrainConfig) -> RunFolder:
    """Open the run folder to continue; it must have been made by the same config."""
    folder = RunFolder.open(config.run)
    old, new = folder.config().model_dump(mode="json"), config.model_dump(mode="json")
    for key in new:
        if key != "run" and old.get(key) != new[key]:
            raise ConfigError(
                f"{config.run} was started with another {key!r} ({old.get(key)} instead of {new[key]}); "
                "resume it with its own config.yaml, or start a new run folder."
            )
    return folder


def check_memory(plan: Plan) -> None:
    """Compare the activations of one step with the memory that is free; a ResourceError names a batch that fits."""
    import copy

    import psutil

    network = copy.deepcopy(plan.network).to("meta")
    sizes: list[int] = []
    width = 4 if plan.dtype is None else 2
    hooks = [
        m.register_forward_hook(lambda _m, _i, out: sizes.append(out.numel() * width) if torch.is_tensor(out) else None)
        for m in network.modules()
        if not list(m.children())
    ]
    network(torch.empty(1, 1, *plan.patch, device="meta"))
    for hook in hooks:
        hook.remove()
    kept = plan.method.kept(plan.config.method.options)
    per_window = int(sum(sizes) * 1.3 * kept)
    weights = 16 * sum(p.numel() for p in plan.network.parameters())
    on_gpu = plan.device.type == "cuda"
    free = torch.cuda.mem_get_info(plan.device)[0] if on_gpu else psutil.virtual_memory().available
    batch = plan.config.sampling.batch
    need = per_window * batch + weights
    if need > free:
        fits = int((free - weights) // per_window)
        remedy = f"lower sampling.batch to {fits}" if fits >= 1 else "lower sampling.patch_px, or use a smaller network"
        raise ResourceError(
            f"One training step needs about {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free on {plan.device}; "
            f"{remedy}."
        )


def check_disk(plan: Plan) -> None:
    """Stop before work where the checkpoints (about six copies of the weights) would not fit on the disk."""
    need = 6 * 4 * sum(p.numel() for p in plan.network.parameters())
    run = plan.config.run
    free = shutil.disk_usage(next(folder for folder in (run, *run.parents) if folder.exists())).free
    if need > free:
        raise ResourceError(
            f"The checkpoints need about {need / 1e6:.0f} MB, but {run} has {free / 1e6:.0f} MB free; "
            "free some space, or choose another run folder."
        )


def describe(plan: Plan) -> dict[str, Any]:
    """What ``run.json`` records before training."""
    config = plan.config
    return {
        "versions": {n: version(n) for n in ("napari-em-da", "torch", "numpy")} | {"python": platform.python_version()},
        "machine": {"platform": platform.platform(), "device": str(plan.device), "threads": torch.get_num_threads()},
        "precision": "fp32" if plan.dtype is None else str(plan.dtype).removeprefix("torch."),
        "network": plan.network_info,
        "classes": {name: list(values) for name, values in config.classes.items()},
        "pixel_nm": plan.pixel_nm,
        "section_nm": plan.section_nm,
        "prior": plan.prior,
        "source": [describe_volume(i, v.image, v.sections) for i, v in zip(config.source, plan.source, strict=True)],
        "target": [describe_volume(i, v) for i, v in zip(config.target, plan.target, strict=True)],
        "finished": False,
    }
